//! EndpointSlice: a bounded part of the addresses behind a Service.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::{Error, ErrorList};
use skep_api::names;
use skep_api::object::ObjectExt;

use super::namespaced;
use crate::strategy::address;
use crate::strategy::check::{At, check, same};
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy, default_text, default_to, items_mut};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    generation: &["endpoints", "ports", "addressType", "metadata.labels"],
    ..namespaced("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", &EndpointSlice)
};

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20000;
const MAX_HINTS: usize = 8;

/// Who makes slices of what it has checked.
const CONTROLLERS: [&str; 2] =
    ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];

struct EndpointSlice;

fn endpoint(endpoint: &At<'_>, family: &str) {
    let addresses = endpoint.child("addresses");
    let items = addresses.items();
    if items.is_empty() {
        addresses.required("must contain at least 1 address");
    } else if items.len() > MAX_ADDRESSES {
        addresses.error(Error::too_many(addresses.path(), items.len(), MAX_ADDRESSES));
    }
    for item in &items {
        let of_family = |detail: &str, fits: bool| {
            if !fits {
                addresses.error(Error::invalid(addresses.path(), item.text(), detail));
            }
            address::endpoint(item);
        };
        match family {
            "IPv4" => {
                if let Some(ip) = address::ip(item) {
                    of_family("must be an IPv4 address", ip.is_ipv4());
                }
            }
            "IPv6" => {
                if let Some(ip) = address::strict_ip(item) {
                    of_family("must be an IPv6 address", ip.is_ipv6());
                }
            }
            "FQDN" => full_name(item),
            _ => {}
        }
    }
    let node = endpoint.child("nodeName");
    if node.is_set() {
        node.invalid_text(names::dns1123_subdomain(node.text()));
    }
    let hostname = endpoint.child("hostname");
    if hostname.is_set() {
        hostname.invalid_text(names::dns1123_label(hostname.text()));
    }
    for (list, grammar) in
        [("forZones", names::label_value as fn(&str) -> Vec<String>), ("forNodes", names::dns1123_subdomain)]
    {
        if !hints(&endpoint.child("hints").child(list), grammar) {
            break;
        }
    }
}

/// Names of zones or nodes, each once. Says whether there are not too many.
fn hints(list: &At<'_>, grammar: fn(&str) -> Vec<String>) -> bool {
    let items = list.items();
    if items.len() > MAX_HINTS {
        list.error(Error::too_many(list.path(), items.len(), MAX_HINTS));
        return false;
    }
    let mut taken = BTreeSet::new();
    for item in &items {
        let name = item.child("name");
        if !taken.insert(name.text()) {
            name.duplicate();
        }
        name.invalid_text(grammar(name.text()));
    }
    true
}

/// A name with at least one dot in it.
fn full_name(at: &At<'_>) {
    if at.text().is_empty() {
        at.required("");
        return;
    }
    let name = at.text().strip_suffix('.').unwrap_or(at.text());
    let faults = names::dns1123_subdomain(name);
    let complain = |text: &str, detail: String| at.error(Error::invalid(at.path(), text, detail));
    if !faults.is_empty() {
        complain(name, faults.join(","));
        return;
    }
    if !name.contains('.') {
        complain(name, "should be a domain with at least two segments separated by dots".to_owned());
        return;
    }
    let bad = name.split('.').find(|label| !names::dns1123_label(label).is_empty());
    if let Some(label) = bad {
        complain(label, names::dns1123_label(label).join(","));
    }
}

/// The place of a backend as it was told once. What is not changed keeps it.
fn forget_topology(new: &mut Value, old: Option<&Value>) {
    let endpoints = |object: &Value| object.get("endpoints").cloned().unwrap_or_default();
    if old.is_some_and(|old| same(&endpoints(old), &endpoints(new))) {
        return;
    }
    for endpoint in items_mut(new, &["endpoints"]) {
        endpoint.unset(&["deprecatedTopology"]);
    }
}

fn endpoints(root: &At<'_>) {
    let endpoints = root.child("endpoints");
    let items = endpoints.items();
    if items.len() > MAX_ENDPOINTS {
        endpoints.error(Error::too_many(endpoints.path(), items.len(), MAX_ENDPOINTS));
    } else {
        items.iter().for_each(|e| endpoint(e, root.child("addressType").text()));
    }
}

/// Address type and ports.
fn shape(root: &At<'_>) {
    let family = root.child("addressType");
    if family.require() {
        family.one_of(&["FQDN", "IPv4", "IPv6"]);
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
        let application = port.child("appProtocol");
        if application.is_set() {
            application.invalid_text(names::qualified_name(application.text()));
        }
    }
}

impl Strategy for EndpointSlice {
    fn default(&self, object: &mut Value) {
        for port in items_mut(object, &["ports"]) {
            default_to(port, &["name"], "");
            default_text(port, &["protocol"], "TCP");
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        forget_topology(object, None);
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        forget_topology(new, Some(old));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            shape(root);
            endpoints(root);
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        check(new, |root| {
            shape(root);
            // What was stored before a rule came may stay as it is.
            if !same(root.child("endpoints").value(), old.get("endpoints").unwrap_or(&Value::Null)) {
                endpoints(root);
            }
            root.child("addressType").immutable(old.get("addressType").unwrap_or(&Value::Null));
        })
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut told = Vec::new();
        if old.is_none() && object.text(&["addressType"]) == "FQDN" {
            told.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
        }
        let maker = object.label("endpointslice.kubernetes.io/managed-by").unwrap_or_default();
        if CONTROLLERS.contains(&maker) {
            return told;
        }
        for (index, endpoint) in object.items(&["endpoints"]).iter().enumerate() {
            for (place, ip) in endpoint.items(&["addresses"]).iter().enumerate() {
                let at = format!("endpoints[{index}].addresses[{place}]");
                address::ip_warnings(&mut told, &at, ip.as_str().unwrap_or_default());
            }
        }
        told
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
