//! Node: capacity and conditions of a machine; its pod range is given once.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::{Error, ErrorList};
use skep_api::names;
use skep_api::object::ObjectExt;

use super::{cluster, proxy, status as status_of};
use crate::strategy::check::{At, check, same};
use crate::strategy::printer::{self, Column, or};
use crate::strategy::{KindRow, Strategy};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["no"],
    subresources: &[status_of("", "v1", "Node"), proxy("NodeProxyOptions")],
    ..cluster("", "v1", "Node", "nodes", &Node)
};

const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "PreferNoSchedule"];

struct Node;

/// Taints: qualified keys, label values, known effects, one of each key and effect.
fn taints(taints: &At<'_>) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for taint in taints.items() {
        let key = taint.child("key");
        key.invalid_all(names::qualified_name(key.text()));
        taint.child("value").named(names::label_value);
        taint.child("effect").require_one_of(EFFECTS);
        let pair = (key.text(), taint.child("effect").text());
        if seen.contains(&pair) {
            taint.error(Error {
                detail: "taints must be unique by key and effect pair".to_owned(),
                ..Error::duplicate(taint.path(), taint.value().clone())
            });
        }
        seen.push(pair);
    }
}

fn address(object: &Value, kind: &str) -> String {
    let found = object.items(&["status", "addresses"]).iter().find(|a| a.text(&["type"]) == kind);
    found.map_or("<none>", |a| a.text(&["address"])).to_owned()
}

fn status(object: &Value) -> String {
    let ready = object.items(&["status", "conditions"]).iter().find(|c| c.text(&["type"]) == "Ready");
    let mut text = match ready.map(|c| c.text(&["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object.flag(&["spec", "unschedulable"]) {
        text.push_str(",SchedulingDisabled");
    }
    text
}

fn roles(object: &Value) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in object.labels().into_iter().flatten() {
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/") {
            roles.push(role);
        } else if key == "kubernetes.io/role" {
            roles.push(value.as_str().unwrap_or_default());
        }
    }
    roles.retain(|role| !role.is_empty());
    roles.sort_unstable();
    roles.dedup();
    or(&roles.join(","), "<none>").to_owned()
}

impl Strategy for Node {
    fn default(&self, object: &mut Value) {
        let cidr = object.text(&["spec", "podCIDR"]).to_owned();
        if !cidr.is_empty() && object.items(&["spec", "podCIDRs"]).is_empty() {
            object.set(&["spec", "podCIDRs"], json!([cidr]));
        } else if cidr.is_empty() && !object.items(&["spec", "podCIDRs"]).is_empty() {
            let first = object.items(&["spec", "podCIDRs"])[0].clone();
            object.set(&["spec", "podCIDR"], first);
        }
        if object.at(&["status", "allocatable"]).is_none()
            && let Some(capacity) = object.at(&["status", "capacity"]).cloned()
        {
            object.set(&["status", "allocatable"], capacity);
        }
    }

    /// An agent registers its node with the status it has.
    fn empties_status(&self) -> bool {
        false
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            taints(&spec.child("taints"));
            for cidr in spec.child("podCIDRs").items() {
                if cidr.text().parse::<ipnet::IpNet>().is_err() {
                    cidr.invalid("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
                }
            }
            for list in ["capacity", "allocatable"] {
                for (_, amount) in root.down(&["status", list]).entries() {
                    if amount.quantity().is_some_and(|q| q.sign() < 0) {
                        amount.invalid("must be greater than or equal to 0");
                    }
                }
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = check(new, |root| {
            let old_spec = old.get("spec").unwrap_or(&Value::Null);
            for (field, name) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
                let here = root.child("spec").child(field);
                let before = old_spec.get(field).unwrap_or(&Value::Null);
                if !crate::strategy::check::is_empty(before) && !same(here.value(), before) {
                    here.forbidden(format!("node updates may not change {name} except from \"\" to valid"));
                }
            }
        });
        errors.extend(self.validate(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::text("Status"),
            printer::text("Roles"),
            printer::AGE,
            printer::text("Version"),
            printer::wide("Internal-IP"),
            printer::wide("External-IP"),
            printer::wide("OS-Image"),
            printer::wide("Kernel-Version"),
            printer::wide("Container-Runtime"),
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let info = |field: &str| object.text(&["status", "nodeInfo", field]);
        vec![
            object.name().into(),
            status(object).into(),
            roles(object).into(),
            printer::age(object, now),
            info("kubeletVersion").into(),
            address(object, "InternalIP").into(),
            address(object, "ExternalIP").into(),
            or(info("osImage"), "<unknown>").into(),
            or(info("kernelVersion"), "<unknown>").into(),
            or(info("containerRuntimeVersion"), "<unknown>").into(),
        ]
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn selectable_value(&self, object: &Value, field: &str) -> String {
        debug_assert_eq!(field, "spec.unschedulable");
        object.flag(&["spec", "unschedulable"]).to_string()
    }
}
