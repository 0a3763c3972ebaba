//! Node: capacity and conditions of a machine; its pod range is given once.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::{Error, ErrorList};
use skep_api::names;
use skep_api::object::ObjectExt;

use super::{cluster, proxy, resource_name, status as status_of};
use crate::strategy::address;
use crate::strategy::check::{At, check, is_empty, same};
use crate::strategy::printer::{self, Column, or};
use crate::strategy::{KindRow, Strategy};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["no"],
    subresources: &[status_of("", "v1", "Node"), proxy("NodeProxyOptions")],
    ..cluster("", "v1", "Node", "nodes", &Node)
};

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

struct Node;

/// Taints: qualified keys, label values, known effects, one of each key and effect.
fn taints(taints: &At<'_>) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for taint in taints.items() {
        let (key, value, effect) = (taint.child("key"), taint.child("value"), taint.child("effect"));
        key.invalid_text(names::qualified_name(key.text()));
        let faults = names::label_value(value.text());
        if !faults.is_empty() {
            value.invalid_text(vec![faults.join(";")]);
        }
        effect.require_one_of(EFFECTS);
        let pair = (key.text(), effect.text());
        if seen.contains(&pair) {
            taint.error(Error {
                detail: "taints must be unique by key and effect pair".to_owned(),
                ..Error::duplicate(taint.path(), taint.value().clone())
            });
        }
        seen.push(pair);
    }
}

/// What holds for a node whenever it is written.
fn whole(root: &At<'_>) {
    let (metadata, status) = (root.child("metadata"), root.child("status"));
    // Upstream tells taints below `metadata`.
    taints(&root.child("spec").child("taints").told_at(metadata.path().child("taints")));
    for list in ["capacity", "allocatable"] {
        let here = status.child(list);
        for (name, amount) in here.entries() {
            resource_name::amount(&amount.told_at(here.path().child(name)), name);
        }
    }
    features(&status.child("declaredFeatures"));
}

/// Features an agent declares, in order, each once.
fn features(list: &At<'_>) {
    let items = list.items();
    for pair in items.windows(2) {
        match pair[0].text().cmp(pair[1].text()) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => pair[1].duplicate(),
            std::cmp::Ordering::Greater => pair[1].invalid("list must be sorted alphabetically"),
        }
    }
}

/// Pod ranges: one a family at most.
fn ranges(cidrs: &At<'_>) {
    let items = cidrs.items();
    let nets: Vec<_> = items.iter().filter_map(address::cidr).collect();
    let families = [true, false].map(|v4| nets.iter().any(|net| net.addr().is_ipv4() == v4));
    if items.len() > 2 || (items.len() == 2 && nets.len() == 2 && families != [true, true]) {
        cidrs.invalid("may specify no more than one CIDR for each IP family");
    }
}

fn address_of(object: &Value, kind: &str) -> String {
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

    /// How agents were once configured through the API is gone.
    fn prepare_for_create(&self, object: &mut Value) {
        object.unset(&["spec", "configSource"]);
        object.unset(&["status", "config"]);
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        if old.at(&["spec", "configSource"]).is_none() {
            new.unset(&["spec", "configSource"]);
        }
    }

    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        if old.at(&["status", "config"]).is_none() {
            new.unset(&["status", "config"]);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            whole(root);
            ranges(&root.child("spec").child("podCIDRs"));
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        check(new, |root| {
            whole(root);
            let mut seen = Vec::new();
            for address in root.down(&["status", "addresses"]).items() {
                if seen.contains(&address.value()) {
                    address.duplicate();
                }
                seen.push(address.value());
            }
            let spec = root.child("spec");
            let before = |field: &str| old.at(&["spec", field]).unwrap_or(&Value::Null);
            for (field, name) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
                let here = spec.child(field);
                if !is_empty(before(field)) && !same(here.value(), before(field)) {
                    here.forbidden(format!("node updates may not change {name} except from \"\" to valid"));
                }
            }
            let external = spec.child("externalID");
            if external.text() != before("externalID").as_str().unwrap_or_default() {
                external.forbidden("may not be updated");
            }
        })
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> ErrorList {
        self.validate_update(new, old)
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut told = Vec::new();
        if object.at(&["spec", "configSource"]).is_some() {
            told.push("spec.configSource: the feature is removed".to_owned());
        }
        if !object.text(&["spec", "externalID"]).is_empty() {
            told.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
        }
        for (index, cidr) in object.items(&["spec", "podCIDRs"]).iter().enumerate() {
            let at = format!("spec.podCIDRs[{index}]");
            address::cidr_warnings(&mut told, &at, cidr.as_str().unwrap_or_default());
        }
        told
    }

    fn status_warnings(&self, object: &Value) -> Vec<String> {
        self.warnings(object, None)
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
            address_of(object, "InternalIP").into(),
            address_of(object, "ExternalIP").into(),
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
