//! Endpoints: the addresses behind a Service, in the form of old.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::ErrorList;
use skep_api::names;
use skep_api::object::ObjectExt;

use super::namespaced;
use crate::strategy::address;
use crate::strategy::check::{At, check, same};
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy, default_text, items_mut};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["ep"],
    deprecated: Some("deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
    ..namespaced("", "v1", "Endpoints", "endpoints", &Endpoints)
};

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
                    address::ip(&address.child("ip"));
                    address.child("hostname").named(names::dns1123_label);
                    let node = address.child("nodeName");
                    if node.is_set() {
                        node.invalid_text(names::dns1123_subdomain(node.text()));
                    }
                    address::endpoint(&address.child("ip"));
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
                    let application = port.child("appProtocol");
                    if application.is_set() {
                        application.invalid_text(names::qualified_name(application.text()));
                    }
                }
            }
        })
    }

    /// What was stored before a rule came may stay as it is.
    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let subsets = |object: &Value| object.get("subsets").cloned().unwrap_or_default();
        if same(&subsets(new), &subsets(old)) { ErrorList::new() } else { self.validate(new) }
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut told = Vec::new();
        if object.label("endpoints.kubernetes.io/managed-by") == Some("endpoint-controller") {
            return told;
        }
        for (index, subset) in object.items(&["subsets"]).iter().enumerate() {
            for list in ["addresses", "notReadyAddresses"] {
                for (place, item) in subset.items(&[list]).iter().enumerate() {
                    let at = format!("subsets[{index}].{list}[{place}].ip");
                    address::ip_warnings(&mut told, &at, item.text(&["ip"]));
                }
            }
        }
        told
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[printer::NAME, printer::text("Endpoints"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), summary(object).into(), printer::age(object, now)]
    }
}
