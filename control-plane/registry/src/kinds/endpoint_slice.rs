//! EndpointSlice: a bounded part of the addresses behind a Service.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::{Error, ErrorList};
use skep_api::names;
use skep_api::object::ObjectExt;

use super::namespaced;
use crate::strategy::check::{At, check};
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy, default_text, default_to, items_mut};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    generation: &["endpoints", "ports", "addressType"],
    ..namespaced("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", &EndpointSlice)
};

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20000;

struct EndpointSlice;

fn endpoint(endpoint: &At<'_>, family: &str) {
    let addresses = endpoint.child("addresses");
    let items = addresses.items();
    if items.is_empty() {
        addresses.required("must contain at least 1 address");
    } else if items.len() > MAX_ADDRESSES {
        addresses.error(Error::too_many(addresses.path(), items.len(), MAX_ADDRESSES));
    }
    for address in &items {
        let text = address.text();
        match family {
            "IPv4" if text.parse::<std::net::Ipv4Addr>().is_err() => {
                address.invalid("must be a valid IPv4 address");
            }
            "IPv6" if text.parse::<std::net::Ipv6Addr>().is_err() => {
                address.invalid("must be a valid IPv6 address");
            }
            "FQDN" => address.invalid_all(names::dns1123_subdomain(text)),
            _ => {}
        }
    }
    endpoint.child("hostname").named(names::dns1123_label);
    endpoint.child("nodeName").named(names::dns1123_subdomain);
}

impl Strategy for EndpointSlice {
    fn default(&self, object: &mut Value) {
        for port in items_mut(object, &["ports"]) {
            default_to(port, &["name"], "");
            default_text(port, &["protocol"], "TCP");
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let family = root.child("addressType");
            if family.require() {
                family.one_of(&["FQDN", "IPv4", "IPv6"]);
            }
            let endpoints = root.child("endpoints");
            let items = endpoints.items();
            if items.len() > MAX_ENDPOINTS {
                endpoints.error(Error::too_many(endpoints.path(), items.len(), MAX_ENDPOINTS));
            } else {
                items.iter().for_each(|e| endpoint(e, family.text()));
            }
            let ports = root.child("ports");
            let items = ports.items();
            if items.len() > MAX_PORTS {
                ports.error(Error::too_many(ports.path(), items.len(), MAX_PORTS));
                return;
            }
            let mut taken = BTreeSet::new();
            for port in items {
                let name = port.child("name");
                name.named(names::dns1123_label);
                if !taken.insert(name.text()) {
                    name.duplicate();
                }
                port.child("protocol").require_one_of(&["SCTP", "TCP", "UDP"]);
                port.child("appProtocol").named(names::qualified_name);
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(new);
        errors.extend(check(new, |root| {
            root.child("addressType").immutable(old.get("addressType").unwrap_or(&Value::Null));
        }));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::text("AddressType"),
            printer::text("Ports"),
            printer::text("Endpoints"),
            printer::AGE,
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let port = |p: &Value| p.int(&["port"]).map_or_else(|| "*".to_owned(), |n| n.to_string());
        let ports: Vec<String> = object.items(&["ports"]).iter().map(port).collect();
        let addresses: Vec<String> = object
            .items(&["endpoints"])
            .iter()
            .flat_map(|e| e.items(&["addresses"]))
            .filter_map(|a| a.as_str().map(str::to_owned))
            .collect();
        let show = |list: &[String]| {
            if list.is_empty() { "<unset>".to_owned() } else { printer::first(list, 3) }
        };
        vec![
            object.name().into(),
            object.text(&["addressType"]).into(),
            show(&ports).into(),
            show(&addresses).into(),
            printer::age(object, now),
        ]
    }
}
