//! What an object counts against a quota: pure.

use std::collections::BTreeMap;

use crate::object::ObjectExt;
use crate::quantity::Quantity;
use crate::resource::GroupVersionResource;
use serde_json::Value;

/// Amounts by quota resource name.
pub type Usage = BTreeMap<String, Quantity>;

/// The core kinds whose plain plural is a quota resource.
const PLAIN: [&str; 8] = [
    "pods",
    "services",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "serviceaccounts",
];

/// What one object uses.
pub fn usage(gvr: &GroupVersionResource, object: &Value) -> Usage {
    let one = Quantity::from_int(1);
    let mut out = Usage::new();
    if gvr.group.is_empty() && gvr.resource == "pods" {
        if matches!(object.text(&["status", "phase"]), "Succeeded" | "Failed") {
            return out;
        }
        pod(object, &mut out);
    }
    out.insert(format!("count/{}", gvr.qualified()), one);
    if gvr.group.is_empty() && PLAIN.contains(&gvr.resource.as_str()) {
        out.insert(gvr.resource.clone(), one);
    }
    match (gvr.group.as_str(), gvr.resource.as_str()) {
        ("", "services") => service(object, &mut out),
        ("", "persistentvolumeclaims") => claim(object, &mut out),
        _ => {}
    }
    out
}

fn pod(pod: &Value, out: &mut Usage) {
    for field in ["requests", "limits"] {
        for (name, quantity) in pod_total(pod, field) {
            if field == "requests" && matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                out.insert(name.clone(), quantity);
            }
            out.insert(format!("{field}.{name}"), quantity);
        }
    }
}

/// The sum over containers (and sidecars), or the largest init container where that is more.
fn pod_total(pod: &Value, field: &str) -> Usage {
    let amounts = |container: &Value| -> Usage {
        let entries = container.map(&["resources", field]).into_iter().flatten();
        entries.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.parse().ok()?))).collect()
    };
    let mut total = Usage::new();
    let mut peak = Usage::new();
    let plus = |total: &mut Usage, more: &Usage| {
        for (name, quantity) in more {
            let sum = total.get(name).map_or(*quantity, |sum| sum.plus(quantity));
            total.insert(name.clone(), sum);
        }
    };
    for container in pod.items(&["spec", "containers"]) {
        plus(&mut total, &amounts(container));
    }
    let mut sidecars = Usage::new();
    for container in pod.items(&["spec", "initContainers"]) {
        let mut now = amounts(container);
        if container.text(&["restartPolicy"]) == "Always" {
            plus(&mut sidecars, &now);
            plus(&mut total, &now);
        } else {
            plus(&mut now, &sidecars);
            for (name, quantity) in now {
                let most = peak.get(&name).map_or(quantity, |most| (*most).max(quantity));
                peak.insert(name, most);
            }
        }
    }
    for (name, quantity) in peak {
        let most = total.get(&name).map_or(quantity, |sum| (*sum).max(quantity));
        total.insert(name, most);
    }
    let overhead: Usage = pod
        .map(&["spec", "overhead"])
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.parse().ok()?)))
        .collect();
    plus(&mut total, &overhead);
    total
}

fn service(service: &Value, out: &mut Usage) {
    let ports = service.items(&["spec", "ports"]);
    let count = i64::try_from(ports.len()).unwrap_or(i64::MAX);
    let kind = service.text(&["spec", "type"]);
    let balancer = kind == "LoadBalancer";
    let without = service.at(&["spec", "allocateLoadBalancerNodePorts"]) == Some(&Value::Bool(false));
    let node_ports = if kind == "NodePort" || balancer && !without { count } else { 0 };
    out.insert("services.nodeports".into(), Quantity::from_int(node_ports));
    out.insert("services.loadbalancers".into(), Quantity::from_int(i64::from(balancer)));
}

fn claim(claim: &Value, out: &mut Usage) {
    let storage = claim.text(&["spec", "resources", "requests", "storage"]).parse::<Quantity>().ok();
    let class = claim.text(&["spec", "storageClassName"]);
    if let Some(storage) = storage {
        out.insert("requests.storage".into(), storage);
        if !class.is_empty() {
            out.insert(format!("{class}.storageclass.storage.k8s.io/requests.storage"), storage);
        }
    }
    if !class.is_empty() {
        let name = format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims");
        out.insert(name, Quantity::from_int(1));
    }
}

/// Does a quota count this object at all.
pub fn in_scope(quota: &Value, gvr: &GroupVersionResource, object: &Value) -> bool {
    let scopes = quota.items(&["spec", "scopes"]);
    let expressions = quota.items(&["spec", "scopeSelector", "matchExpressions"]);
    if scopes.is_empty() && expressions.is_empty() {
        return true;
    }
    if !gvr.group.is_empty() || gvr.resource != "pods" {
        return false;
    }
    scopes.iter().filter_map(Value::as_str).all(|scope| matches_scope(scope, "Exists", &[], object))
        && expressions.iter().all(|expression| {
            let values: Vec<&str> = expression.items(&["values"]).iter().filter_map(Value::as_str).collect();
            matches_scope(expression.text(&["scopeName"]), expression.text(&["operator"]), &values, object)
        })
}

fn matches_scope(scope: &str, operator: &str, values: &[&str], pod: &Value) -> bool {
    let terminating = pod.int(&["spec", "activeDeadlineSeconds"]).is_some_and(|seconds| seconds >= 0);
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort(pod),
        "NotBestEffort" => !best_effort(pod),
        "PriorityClass" => {
            let class = pod.text(&["spec", "priorityClassName"]);
            match operator {
                "In" => values.contains(&class),
                "NotIn" => !values.contains(&class),
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

fn best_effort(pod: &Value) -> bool {
    let empty = |field| {
        let total = pod_total(pod, field);
        !["cpu", "memory"].iter().any(|name| total.get(*name).is_some_and(|quantity| !quantity.is_zero()))
    };
    empty("requests") && empty("limits")
}

fn crosses_namespaces(pod: &Value) -> bool {
    let reaches = |term: &Value| {
        !term.items(&["namespaces"]).is_empty()
            || term.at(&["namespaceSelector"]).is_some_and(|s| !s.is_null())
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|side| {
        let base = ["spec", "affinity", side];
        let required = [&base[..], &["requiredDuringSchedulingIgnoredDuringExecution"]].concat();
        let preferred = [&base[..], &["preferredDuringSchedulingIgnoredDuringExecution"]].concat();
        pod.items(&required).iter().any(reaches)
            || pod.items(&preferred).iter().filter_map(|term| term.at(&["podAffinityTerm"])).any(reaches)
    })
}

/// The compute resources a quota limits that some container of the pod does not state.
pub fn unstated<'a>(pod: &Value, hard: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let states = |field: &str, name: &str| {
        ["containers", "initContainers"].iter().all(|list| {
            let mut all = pod.items(&["spec", list]).iter();
            all.all(|container| container.at(&["resources", field, name]).is_some())
        })
    };
    hard.filter(|full| match *full {
        "cpu" | "memory" | "ephemeral-storage" => !states("requests", full),
        _ => match full.split_once('.') {
            Some((field @ ("requests" | "limits"), name @ ("cpu" | "memory" | "ephemeral-storage"))) => {
                !states(field, name)
            }
            _ => false,
        },
    })
    .collect()
}
