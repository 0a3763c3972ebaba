//! Pod: the unit that runs on a node.

mod affinity;
mod annotations;
pub(in crate::kinds) mod containers;
pub(in crate::kinds) mod defaults;
mod environment;
mod handlers;
mod mounts;
mod print;
pub(in crate::kinds) mod resources;
mod security;
pub(in crate::kinds) mod spec;
mod status;
mod update;
pub(in crate::kinds) mod volumes;
pub(in crate::kinds) mod warnings;

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::ErrorList;
use skep_api::object::ObjectExt;

use super::{WRITE, namespaced, proxy, subresource};
use crate::strategy::address::ip_warnings;
use crate::strategy::check::{At, check};
use crate::strategy::printer::Column;
use crate::strategy::{KindRow, Strategy};
use spec::Scope;

/// What opens a stream: GET for WebSockets, POST for clients of old.
const STREAM: &[&str] = &["create", "get"];

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["po"],
    categories: &["all"],
    generation: &["spec"],
    subresources: &[
        super::status("", "v1", "Pod"),
        subresource("attach", "", "v1", "PodAttachOptions", STREAM),
        subresource("binding", "", "v1", "Binding", &["create"]),
        subresource("ephemeralcontainers", "", "v1", "Pod", WRITE),
        subresource("eviction", "policy", "v1", "Eviction", &["create"]),
        subresource("exec", "", "v1", "PodExecOptions", STREAM),
        subresource("log", "", "v1", "Pod", &["get"]),
        subresource("portforward", "", "v1", "PodPortForwardOptions", STREAM),
        proxy("PodProxyOptions"),
        subresource("resize", "", "v1", "Pod", WRITE),
    ],
    ..namespaced("", "v1", "Pod", "pods", &Pod)
};

struct Pod;

/// What holds for a pod whenever it is written.
fn whole(root: &At<'_>) {
    let spec = root.child("spec");
    annotations::validate(&root.child("metadata").child("annotations"), &spec);
    spec::validate(&spec, Scope::Pod);
    if !spec.child("serviceAccountName").is_empty() {
        return;
    }
    for volume in spec.child("volumes").items() {
        for source in volume.child("projected").child("sources").items() {
            let token = source.child("serviceAccountToken");
            if token.is_set() {
                token.forbidden("must not be specified when serviceAccountName is not set");
            }
        }
    }
}

impl Strategy for Pod {
    fn default(&self, object: &mut Value) {
        defaults::pod(object);
    }

    fn prepare_for_create(&self, object: &mut Value) {
        let class = resources::quality(&object["spec"]);
        object.set(&["status"], json!({"phase": "Pending", "qosClass": class}));
    }

    /// The class of a pod is settled when it is created.
    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        if let Some(class) = old.at(&["status", "qosClass"]) {
            new.set(&["status", "qosClass"], class.clone());
        }
    }

    fn prepare_for_subresource(&self, name: &str, new: &mut Value, old: &Value) {
        update::prepare_subresource(name, new, old);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let pod_spec = root.child("spec");
            let notes = root.child("metadata").child("annotations");
            whole(root);
            if !pod_spec.child("ephemeralContainers").is_empty() {
                pod_spec.child("ephemeralContainers").forbidden("cannot be set on create");
            }
            if !pod_spec.child("schedulingGates").is_empty() && !pod_spec.child("nodeName").is_empty() {
                pod_spec
                    .child("nodeName")
                    .forbidden("cannot be set until all schedulingGates have been cleared");
            }
            annotations::match_fields(&notes, &pod_spec);
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        check(new, |root| {
            whole(root);
            update::pod(root, old);
        })
    }

    fn validate_subresource(&self, name: &str, new: &Value, old: &Value) -> ErrorList {
        check(new, |root| {
            whole(root);
            match name {
                "ephemeralcontainers" => update::ephemeral_containers(root, old),
                "resize" => update::resize(root, old),
                _ => {}
            }
        })
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> ErrorList {
        check(new, |root| status::update(root, old))
    }

    /// People write templates; whoever changes a pod is a program mostly.
    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_none() { warnings::pod(object) } else { Vec::new() }
    }

    fn status_warnings(&self, object: &Value) -> Vec<String> {
        let mut told = Vec::new();
        for list in ["podIPs", "hostIPs"] {
            for (index, ip) in object.items(&["status", list]).iter().enumerate() {
                ip_warnings(&mut told, &format!("status.{list}[{index}].ip"), ip.text(&["ip"]));
            }
        }
        told
    }

    fn columns(&self) -> &'static [Column] {
        print::COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        print::row(object, now)
    }

    fn selectable(&self) -> &'static [&'static str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ]
    }

    fn selectable_value(&self, object: &Value, field: &str) -> String {
        match field {
            "spec.hostNetwork" => object.flag(&["spec", "hostNetwork"]).to_string(),
            "status.podIPs" => {
                let ips = object.items(&["status", "podIPs"]).iter().map(|ip| ip.text(&["ip"]));
                ips.collect::<Vec<_>>().join(",")
            }
            _ => object.text(&field.split('.').collect::<Vec<_>>()).to_owned(),
        }
    }

    /// A pod on a node gets its grace period: the node's agent deletes it when it has stopped. One that is
    /// on no node, or has finished, goes at once.
    fn graceful_delete(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        let finished = ["Succeeded", "Failed"].contains(&object.text(&["status", "phase"]));
        if object.text(&["spec", "nodeName"]).is_empty() || finished {
            return Some(0);
        }
        let wanted = requested.or_else(|| object.int(&["spec", "terminationGracePeriodSeconds"]));
        // Negative means as soon as possible, but through the agent.
        Some(match wanted.unwrap_or(30) {
            seconds if seconds < 0 => 1,
            seconds => seconds,
        })
    }
}
