//! What a quota counts and how much of it there is. Pure.
//!
//! What an object uses is worked out by the same function that admission refuses by.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use skep_api::object::ObjectExt;
use skep_api::quantity::Quantity;
use skep_api::quota::{in_scope, usage};
use skep_api::resource::GroupVersionResource;

/// Core kinds that a quota may name without a prefix, besides pods.
const PLAIN: [&str; 6] = [
    "services",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
];

/// A kind, as a quota names it: resource and group.
pub(super) type Counted = (String, String);

pub(super) struct Snapshot<'a> {
    pub(super) quota: &'a Value,
    /// All objects of its namespace, of the kinds it counts that the server knows.
    pub(super) objects: &'a [(GroupVersionResource, Vec<Value>)],
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// A merge patch of the status.
    pub(super) status: Option<Value>,
}

/// The kind whose objects use what a quota limits under this name.
pub(super) fn counted(name: &str) -> Counted {
    let core = |resource: &str| (resource.to_owned(), String::new());
    if let Some(kind) = name.strip_prefix("count/") {
        return match kind.split_once('.') {
            Some((resource, group)) => (resource.to_owned(), group.to_owned()),
            None => core(kind),
        };
    }
    if let Some(plain) = PLAIN.iter().find(|plain| **plain == name) {
        return core(plain);
    }
    match name {
        "services.nodeports" | "services.loadbalancers" => core("services"),
        "requests.storage" => core("persistentvolumeclaims"),
        _ if name.contains(".storageclass.storage.k8s.io/") => core("persistentvolumeclaims"),
        // Compute resources, known ones and those of devices.
        _ => core("pods"),
    }
}

/// All kinds a quota counts.
pub(super) fn all_counted(quota: &Value) -> BTreeSet<Counted> {
    quota.map(&["spec", "hard"]).into_iter().flatten().map(|(name, _)| counted(name)).collect()
}

pub(super) fn plan(snapshot: &Snapshot<'_>) -> Plan {
    let quota = snapshot.quota;
    let empty = serde_json::Map::new();
    let hard = quota.map(&["spec", "hard"]).unwrap_or(&empty);
    let mut used: BTreeMap<&str, Quantity> = BTreeMap::new();
    for name in hard.keys() {
        let (resource, group) = counted(name);
        // What the server does not know is not said to be unused.
        if snapshot.objects.iter().any(|(gvr, _)| gvr.resource == resource && gvr.group == group) {
            used.insert(name, Quantity::default());
        }
    }
    for (gvr, objects) in snapshot.objects {
        for object in objects.iter().filter(|object| in_scope(quota, gvr, object)) {
            for (name, amount) in usage(gvr, object) {
                if let Some(sum) = used.get_mut(name.as_str()) {
                    *sum = sum.plus(&amount);
                }
            }
        }
    }
    let same = |field: &str, now: &dyn Fn(&str) -> Option<Quantity>, count: usize| {
        let before = quota.map(&["status", field]);
        let entries = before.into_iter().flatten();
        let amounts = |value: &Value| value.as_str().and_then(|text| text.parse::<Quantity>().ok());
        before.map_or(0, serde_json::Map::len) == count
            && entries
                .into_iter()
                .all(|(name, value)| amounts(value).is_some() && amounts(value) == now(name))
    };
    let limit = |name: &str| hard.get(name).and_then(Value::as_str).and_then(|text| text.parse().ok());
    if same("hard", &limit, hard.len()) && same("used", &|name| used.get(name).copied(), used.len()) {
        return Plan::default();
    }
    let mut patch = json!({"hard": hard, "used": {}});
    for (name, amount) in &used {
        patch["used"][*name] = amount.to_string().into();
    }
    // What is no longer limited must be taken out, or a merge leaves it.
    for field in ["hard", "used"] {
        for (name, _) in quota.map(&["status", field]).into_iter().flatten() {
            if patch[field].get(name).is_none() {
                patch[field][name] = Value::Null;
            }
        }
    }
    Plan { status: Some(patch) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(group: &str, resource: &str) -> GroupVersionResource {
        GroupVersionResource::new(group, "v1", resource)
    }

    fn pod(name: &str, cpu: &str, deadline: Option<i64>) -> Value {
        json!({"metadata": {"name": name}, "spec": {"activeDeadlineSeconds": deadline,
            "containers": [{"resources": {"requests": {"cpu": cpu, "example.com/gpu": "1"}}}]}})
    }

    fn quota(hard: &Value, more: &Value) -> Value {
        let mut quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
        quota["spec"]["scopes"] = more["scopes"].clone();
        quota["status"] = more["status"].clone();
        quota
    }

    #[test]
    fn names_tell_kinds() {
        let cases = [
            ("pods", "pods", ""),
            ("requests.cpu", "pods", ""),
            ("limits.memory", "pods", ""),
            ("requests.example.com/gpu", "pods", ""),
            ("services.nodeports", "services", ""),
            ("configmaps", "configmaps", ""),
            ("gold.storageclass.storage.k8s.io/requests.storage", "persistentvolumeclaims", ""),
            ("count/replicasets.apps", "replicasets", "apps"),
            ("count/secrets", "secrets", ""),
            ("count/ingresses.networking.k8s.io", "ingresses", "networking.k8s.io"),
        ];
        for (name, resource, group) in cases {
            assert_eq!(counted(name), (resource.to_owned(), group.to_owned()), "{name}");
        }
    }

    #[test]
    fn sums() {
        let pods = vec![pod("a", "500m", None), pod("b", "1", Some(5))];
        let sets = vec![json!({"metadata": {"name": "r"}})];
        let objects = [(kind("", "pods"), pods), (kind("apps", "replicasets"), sets)];
        let hard = json!({"pods": "5", "requests.cpu": "2", "requests.example.com/gpu": "3",
            "count/replicasets.apps": "1", "count/unknown.example.com": "1", "limits.cpu": "1"});
        let quota = quota(&hard, &json!({}));
        let made = plan(&Snapshot { quota: &quota, objects: &objects }).status.expect("a status");
        let want = json!({"pods": "2", "requests.cpu": "1500m", "requests.example.com/gpu": "2",
            "count/replicasets.apps": "1", "limits.cpu": "0"});
        assert_eq!(made, json!({"hard": hard, "used": want}));
    }

    #[test]
    fn scopes_choose() {
        let objects = [(kind("", "pods"), vec![pod("a", "1", None), pod("b", "2", Some(5))])];
        for (scope, want) in [("Terminating", "2"), ("NotTerminating", "1"), ("BestEffort", "0")] {
            let quota = quota(&json!({"cpu": "9"}), &json!({"scopes": [scope]}));
            let made = plan(&Snapshot { quota: &quota, objects: &objects }).status.expect("a status");
            assert_eq!(made["used"]["cpu"], want, "{scope}");
        }
    }

    #[test]
    fn writes_what_changed_and_takes_out_what_is_gone() {
        let objects = [(kind("", "pods"), vec![pod("a", "1", None)])];
        let status = json!({"hard": {"pods": "1"}, "used": {"pods": "1"}});
        let same = quota(&json!({"pods": "1"}), &json!({"status": status}));
        assert_eq!(plan(&Snapshot { quota: &same, objects: &objects }), Plan::default());
        let status = json!({"hard": {"cpu": "1"}, "used": {"cpu": "1"}});
        let other = quota(&json!({"pods": "1"}), &json!({"status": status}));
        let made = plan(&Snapshot { quota: &other, objects: &objects }).status;
        let want = json!({"hard": {"pods": "1", "cpu": null}, "used": {"pods": "1", "cpu": null}});
        assert_eq!(made, Some(want));
    }

    proptest! {
        /// Once written, a status needs no more writing, whatever the amounts.
        #[test]
        fn a_status_is_written_once(cpus in prop::collection::vec(0u32..5000, 0..20), pods in 0u32..9) {
            let all = cpus.iter().map(|cpu| pod("p", &format!("{cpu}m"), None)).collect();
            let objects = [(kind("", "pods"), all)];
            let hard = json!({"pods": pods.to_string(), "requests.cpu": "1500m", "memory": "1Gi"});
            let mut quota = quota(&hard, &json!({}));
            let status = plan(&Snapshot { quota: &quota, objects: &objects }).status.expect("a status");
            prop_assert_eq!(&status["used"]["pods"], &json!(cpus.len().to_string()));
            quota["status"] = status;
            prop_assert_eq!(plan(&Snapshot { quota: &quota, objects: &objects }), Plan::default());
        }
    }
}
