//! The objects every cluster begins with. The mandatory ones give the exempt level and the level of last
//! resort; the suggested ones keep nodes, leader election, controllers and everybody else apart.

use serde_json::{Value, json};

/// The annotation that lets the server keep an object's spec as it ships it.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

const API: &str = "flowcontrol.apiserver.k8s.io/v1";

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": API,
        "kind": kind,
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}},
        "spec": spec,
    })
}

fn level(name: &str, spec: &Value) -> Value {
    object("PriorityLevelConfiguration", name, spec)
}

/// A level that queues: its shares, how much of them it lends, its queues and the hand of a flow.
fn queuing(name: &str, shares: u32, lendable: u32, queues: u32, hand: u32) -> Value {
    level(
        name,
        &json!({
            "type": "Limited",
            "limited": {
                "nominalConcurrencyShares": shares,
                "lendablePercent": lendable,
                "limitResponse": {
                    "type": "Queue",
                    "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50},
                },
            },
        }),
    )
}

/// Levels whose spec nobody may change.
pub fn mandatory_levels() -> Vec<Value> {
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let last = json!({
        "type": "Limited",
        "limited": {
            "nominalConcurrencyShares": 5,
            "lendablePercent": 0,
            "limitResponse": {"type": "Reject"},
        },
    });
    vec![level("exempt", &exempt), level("catch-all", &last)]
}

/// Levels an administrator may change.
pub fn suggested_levels() -> Vec<Value> {
    vec![
        queuing("system", 30, 33, 64, 6),
        queuing("node-high", 40, 25, 64, 6),
        queuing("leader-election", 10, 0, 16, 4),
        queuing("workload-high", 40, 50, 128, 6),
        queuing("workload-low", 100, 90, 128, 6),
        queuing("global-default", 20, 50, 128, 6),
    ]
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

fn system_accounts() -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}})
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster_scope: bool) -> Value {
    let mut rule = json!({
        "verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"],
    });
    if cluster_scope {
        rule["clusterScope"] = json!(true);
    }
    rule
}

fn everything(subjects: &[Value]) -> Value {
    json!({
        "subjects": subjects,
        "resourceRules": [resources(&["*"], "*", &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}

fn schema(name: &str, level: &str, precedence: u32, distinguisher: &str, rule: &Value) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        "rules": [rule],
    });
    if !distinguisher.is_empty() {
        spec["distinguisherMethod"] = json!({"type": distinguisher});
    }
    object("FlowSchema", name, &spec)
}

const EVERYBODY: [&str; 2] = ["system:unauthenticated", "system:authenticated"];

/// Schemas whose spec nobody may change.
pub fn mandatory_schemas() -> Vec<Value> {
    vec![
        schema("exempt", "exempt", 1, "", &everything(&groups(&["system:masters"]))),
        schema("catch-all", "catch-all", 10000, "ByUser", &everything(&groups(&EVERYBODY))),
    ]
}

/// Schemas an administrator may change.
pub fn suggested_schemas() -> Vec<Value> {
    const LEASES: &str = "coordination.k8s.io";
    let (manager, scheduler) = (user("system:kube-controller-manager"), user("system:kube-scheduler"));
    let probes = json!({
        "subjects": groups(&EVERYBODY),
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    });
    let election = json!({
        "subjects": [manager.clone(), scheduler.clone(), system_accounts()],
        "resourceRules": [resources(&["get", "create", "update"], LEASES, &["leases"], false)],
    });
    let nodes = json!({
        "subjects": groups(&["system:nodes"]),
        "resourceRules": [
            resources(&["*"], "", &["nodes", "nodes/status"], true),
            resources(&["*"], LEASES, &["leases"], false),
        ],
    });
    vec![
        schema("system-nodes", "system", 500, "ByUser", &everything(&groups(&["system:nodes"]))),
        schema("system-node-high", "node-high", 400, "ByUser", &nodes),
        schema("probes", "exempt", 2, "", &probes),
        schema("system-leader-election", "leader-election", 100, "ByUser", &election),
        schema("kube-controller-manager", "workload-high", 800, "ByNamespace", &everything(&[manager])),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", &everything(&[scheduler])),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            "ByNamespace",
            &everything(&[system_accounts()]),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            "ByUser",
            &everything(&groups(&["system:serviceaccounts"])),
        ),
        schema("global-default", "global-default", 9900, "ByUser", &everything(&groups(&EVERYBODY))),
    ]
}

/// All schemas.
pub fn schemas() -> Vec<Value> {
    mandatory_schemas().into_iter().chain(suggested_schemas()).collect()
}

/// All levels.
pub fn levels() -> Vec<Value> {
    mandatory_levels().into_iter().chain(suggested_levels()).collect()
}

/// The fixed spec of a mandatory object.
pub fn fixed_spec(kind: &str, name: &str) -> Option<Value> {
    let objects = if kind == "FlowSchema" { mandatory_schemas() } else { mandatory_levels() };
    let found = objects.into_iter().find(|object| object["metadata"]["name"] == name)?;
    found.get("spec").cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Level, Schema};

    #[test]
    fn every_object_can_be_read_and_names_a_level() {
        let levels: Vec<Level> = levels().iter().map(|l| Level::from_object(l).expect("a level")).collect();
        assert_eq!(levels.iter().map(|level| level.shares).sum::<f64>(), 245.0);
        for object in schemas() {
            let schema = Schema::from_object(&object).expect("a schema");
            assert!(levels.iter().any(|level| level.name == schema.level), "{}", schema.name);
        }
        assert_eq!(schemas().len(), 11);
    }
}
