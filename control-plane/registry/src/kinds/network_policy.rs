//! NetworkPolicy: which traffic pods accept and send.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::ErrorList;
use skep_api::object::ObjectExt;

use super::namespaced;
use super::pod::containers::port as port_or_name;
use crate::strategy::address;
use crate::strategy::check::{At, check};
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy, default_text, items_mut};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["netpol"],
    generation: &["spec"],
    ..namespaced("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", &NetworkPolicy)
};

struct NetworkPolicy;

fn port(port: &At<'_>) {
    port.child("protocol").one_of(&["TCP", "UDP", "SCTP"]);
    let (number, end) = (port.child("port"), port.child("endPort"));
    if number.is_set() {
        port_or_name(&number);
    }
    let Some(last) = end.int() else { return };
    match number.int() {
        _ if !number.is_set() => end.invalid("may not be specified when `port` is not specified"),
        None => end.invalid("may not be specified when `port` is non-numeric"),
        Some(first) => {
            if last < first {
                end.invalid("must be greater than or equal to `port`");
            }
            end.within(1, 65535);
        }
    }
}

fn peer(peer: &At<'_>) {
    let block = peer.child("ipBlock");
    let selectors = ["podSelector", "namespaceSelector"].map(|name| peer.child(name));
    for selector in &selectors {
        selector.selector();
    }
    let some = selectors.iter().any(At::is_set);
    if !block.is_set() {
        if !some {
            peer.required("must specify a peer");
        }
        return;
    }
    if some {
        peer.forbidden("may not specify both ipBlock and another peer");
    }
    let cidr = block.child("cidr");
    if !cidr.require() {
        return;
    }
    let outer = address::cidr(&cidr);
    for except in block.child("except").items() {
        if let (Some(outer), Some(inner)) = (outer, address::cidr(&except))
            && (!outer.contains(&inner) || outer == inner)
        {
            except.invalid("must be a strict subset of `cidr`");
        }
    }
}

impl Strategy for NetworkPolicy {
    fn default(&self, object: &mut Value) {
        for direction in ["ingress", "egress"] {
            for rule in items_mut(object, &["spec", direction]) {
                for port in items_mut(rule, &["ports"]) {
                    default_text(port, &["protocol"], "TCP");
                }
            }
        }
        if object.items(&["spec", "policyTypes"]).is_empty() && object.at(&["spec"]).is_some() {
            let mut types = vec!["Ingress"];
            if !object.items(&["spec", "egress"]).is_empty() {
                types.push("Egress");
            }
            object.set(&["spec", "policyTypes"], types);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            spec.child("podSelector").selector();
            for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
                for rule in spec.child(direction).items() {
                    rule.child("ports").items().iter().for_each(port);
                    rule.child(peers).items().iter().for_each(peer);
                }
            }
            let types = spec.child("policyTypes");
            if types.items().len() > 2 {
                types.invalid("may not specify more than two policyTypes");
            } else {
                types.items().iter().for_each(|t| t.one_of(&["Ingress", "Egress"]));
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        address::ratchet(&self.validate(new), &self.validate(old))
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut told = Vec::new();
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            for (index, rule) in object.items(&["spec", direction]).iter().enumerate() {
                for (place, peer) in rule.items(&[peers]).iter().enumerate() {
                    let at = format!("spec.{direction}[{index}].{peers}[{place}].ipBlock");
                    let cidr = peer.text(&["ipBlock", "cidr"]);
                    address::cidr_warnings(&mut told, &format!("{at}.cidr"), cidr);
                    for (number, except) in peer.items(&["ipBlock", "except"]).iter().enumerate() {
                        let at = format!("{at}.except[{number}]");
                        address::cidr_warnings(&mut told, &at, except.as_str().unwrap_or_default());
                    }
                }
            }
        }
        told
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[printer::NAME, printer::text("Pod-Selector"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let empty = Value::Object(serde_json::Map::new());
        let selector = printer::selector(object.at(&["spec", "podSelector"]).or(Some(&empty)));
        vec![object.name().into(), selector.into(), printer::age(object, now)]
    }
}
