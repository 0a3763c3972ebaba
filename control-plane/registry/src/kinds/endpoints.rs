//! Endpoints: the addresses behind a Service, in the form of old.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::ErrorList;
use skep_api::names;
use skep_api::object::ObjectExt;

use super::namespaced;
use super::pod::spec::ip;
use crate::strategy::check::{At, check};
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy, default_text, items_mut};

/// The row of the table of kinds.
pub(super) static ROW: KindRow =
    KindRow { short_names: &["ep"], ..namespaced("", "v1", "Endpoints", "endpoints", &Endpoints) };

struct Endpoints;

fn joined(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// The first three addresses with their ports.
fn summary(object: &Value) -> String {
    let subsets = object.items(&["subsets"]);
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let mut list = Vec::new();
    for subset in subsets {
        let addresses = subset.items(&["addresses"]);
        if subset.items(&["ports"]).is_empty() {
            list.extend(addresses.iter().map(|a| a.text(&["ip"]).to_owned()));
        }
        for port in subset.items(&["ports"]) {
            let number = port.int(&["port"]).unwrap_or(0);
            list.extend(addresses.iter().map(|a| joined(a.text(&["ip"]), number)));
        }
    }
    printer::first(&list, 3)
}

impl Strategy for Endpoints {
    fn default(&self, object: &mut Value) {
        for subset in items_mut(object, &["subsets"]) {
            for port in items_mut(subset, &["ports"]) {
                default_text(port, &["protocol"], "TCP");
            }
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            for subset in root.child("subsets").items() {
                let lists = ["addresses", "notReadyAddresses"].map(|list| subset.child(list));
                if lists.iter().all(At::is_empty) {
                    subset.required("must specify `addresses` or `notReadyAddresses`");
                }
                for address in lists.iter().flat_map(At::items) {
                    ip(&address.child("ip"));
                    address.child("hostname").named(names::dns1123_label);
                }
                let ports = subset.child("ports").items();
                for port in &ports {
                    let name = port.child("name");
                    if ports.len() > 1 {
                        name.require();
                    }
                    name.named(names::dns1123_label);
                    let number = port.child("port");
                    number.invalid_all(names::port_number(number.int().unwrap_or(0)));
                    port.child("protocol").require_one_of(&["SCTP", "TCP", "UDP"]);
                }
            }
        })
    }

    fn warnings(&self, _object: &Value) -> Vec<String> {
        vec!["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned()]
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[printer::NAME, printer::text("Endpoints"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), summary(object).into(), printer::age(object, now)]
    }
}
