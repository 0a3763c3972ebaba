//! What the status of a pod may become.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;
use skep_api::field::Error;
use skep_api::names;
use skep_api::object::ObjectExt;

use super::annotations;
use crate::strategy::address::ip;
use crate::strategy::check::{At, same};

const SYSTEM_CONDITIONS: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];

/// An update of the status.
pub(super) fn update(root: &At<'_>, old: &Value) {
    annotations::update(&root.child("metadata").child("annotations"), old);
    let status = root.child("status");
    // Upstream tells conditions below `metadata`.
    let conditions = status.child("conditions").told_at(root.path().child("metadata").child("conditions"));
    for condition in conditions.items() {
        let kind = condition.child("type").text();
        if SYSTEM_CONDITIONS.contains(&kind) {
            continue;
        }
        for detail in names::qualified_name(kind) {
            condition.error(Error::invalid(&condition.path().child("Type"), kind, detail));
        }
    }
    let nominated = status.child("nominatedNodeName");
    if nominated.text() != old.text(&["status", "nominatedNodeName"]) {
        nominated.named(names::dns1123_subdomain);
    }
    let class = status.child("qosClass");
    if !same(class.value(), old.at(&["status", "qosClass"]).unwrap_or(&Value::Null)) {
        class.invalid("field is immutable");
    }
    let policy = old.text(&["spec", "restartPolicy"]);
    for (list, ephemeral) in
        [("containerStatuses", false), ("initContainerStatuses", false), ("ephemeralContainerStatuses", true)]
    {
        let policy = if ephemeral { "Never" } else { policy };
        revived(&status.child(list), old, list, policy);
    }
    claims(&status.child("resourceClaimStatuses"), old);
    addresses(&status.child("podIPs"));
    let hosts = status.child("hostIPs");
    if let Some(first) = hosts.items().first()
        && first.child("ip").text() != status.child("hostIP").text()
    {
        first.child("ip").invalid("must be equal to `hostIP`");
    }
    addresses(&hosts);
}

/// A container that ended for good does not come back.
fn revived(statuses: &At<'_>, old: &Value, list: &str, policy: &str) {
    if policy == "Always" {
        return;
    }
    let sidecar = |name: &str| {
        old.items(&["spec", "initContainers"])
            .iter()
            .any(|c| c.text(&["name"]) == name && c.text(&["restartPolicy"]) == "Always")
    };
    // A container's own policy and rules go before the pod's.
    let own_policy = |name: &str| {
        ["containers", "initContainers"].iter().flat_map(|l| old.items(&["spec", l])).any(|c| {
            c.text(&["name"]) == name
                && (c.get("restartPolicy").is_some() || c.get("restartPolicyRules").is_some())
        })
    };
    for (index, before) in old.items(&["status", list]).iter().enumerate() {
        let Some(ended) = before.at(&["state", "terminated"]) else { continue };
        let failed = ended.int(&["exitCode"]).unwrap_or(0) != 0;
        let name = before.text(&["name"]);
        if (failed && policy == "OnFailure") || sidecar(name) || own_policy(name) {
            continue;
        }
        let alive = |now: &At<'_>| {
            now.child("name").text() == name && !now.child("state").child("terminated").is_set()
        };
        if statuses.items().iter().any(alive) {
            let path = statuses.path().index(index).child("state");
            statuses.error(Error::forbidden(&path, "may not be transitioned to non-terminated state"));
        }
    }
}

fn claims(statuses: &At<'_>, old: &Value) {
    let known = old.items(&["spec", "resourceClaims"]);
    let mut taken = BTreeSet::new();
    for status in statuses.items() {
        let name = status.child("name");
        if !known.iter().any(|claim| claim.text(&["name"]) == name.text()) {
            name.invalid("must match the name of an entry in `spec.resourceClaims`");
        }
        if !taken.insert(name.text()) {
            name.duplicate();
        }
        let claim = status.child("resourceClaimName");
        if claim.is_set() {
            claim.told_at(name.path().clone()).invalid_all(names::dns1123_subdomain(claim.text()));
        }
    }
}

/// At most one address a family, each valid, none twice.
fn addresses(list: &At<'_>) {
    let items = list.items();
    for item in &items {
        ip(&item.child("ip").told_at(item.path().clone()));
    }
    if items.len() < 2 {
        return;
    }
    let parsed: Vec<Option<IpAddr>> = items.iter().map(|item| item.child("ip").text().parse().ok()).collect();
    let both = parsed.iter().flatten().any(IpAddr::is_ipv4) && parsed.iter().flatten().any(IpAddr::is_ipv6);
    if !both || items.len() > 2 {
        list.invalid("may specify no more than one IP for each IP family");
    }
    let mut seen = BTreeSet::new();
    for item in &items {
        if !seen.insert(item.child("ip").text()) {
            item.duplicate();
        }
    }
}
