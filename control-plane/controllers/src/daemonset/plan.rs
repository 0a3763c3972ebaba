//! Which nodes get a daemon pod and which pods go. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
    Toleration,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::deployment::resolve;
use crate::history::HASH;
use crate::taint_eviction::tolerates;
use crate::{owners, pods};

/// Pods made or deleted in one go.
const BURST: usize = 250;
const NAME_FIELD: &str = "metadata.name";

pub(super) struct Snapshot<'a> {
    pub(super) set: &'a DaemonSet,
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) nodes: &'a [Arc<Node>],
    /// Of the current template.
    pub(super) hash: &'a str,
    pub(super) now: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Nodes to make a pod for.
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<Arc<Pod>>,
    pub(super) status: Option<Value>,
    pub(super) again: Option<Duration>,
}

/// The template a pod was made of.
pub(super) fn hash_of(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(HASH).map(String::as_str)
}

/// The node of a daemon pod: where it is, or where it is to go.
fn node_of(pod: &Pod) -> Option<&str> {
    if let Some(name) = pods::node_name(pod) {
        return Some(name);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|t| t.match_fields.iter().flatten());
    let mut named = fields.filter(|f| f.key == NAME_FIELD && f.operator == "In");
    named.next()?.values.as_ref()?.first().map(String::as_str)
}

pub(super) fn plan(snapshot: &Snapshot<'_>) -> Plan {
    let set = snapshot.set;
    let mut plan = Plan::default();
    let Some(spec) = &set.spec else { return plan };
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let template = with_tolerations(spec.template.spec.clone().unwrap_or_default());
    let mut by_node: HashMap<&str, Vec<&Arc<Pod>>> = HashMap::new();
    for pod in snapshot.pods {
        by_node.entry(node_of(pod).unwrap_or_default()).or_default().push(pod);
    }
    let before = set.status.clone().unwrap_or_default();
    let mut status = DaemonSetStatus {
        collision_count: before.collision_count,
        conditions: before.conditions.clone(),
        observed_generation: set.metadata.generation,
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    // Old pods that could make room for new ones, those that serve nobody first.
    let (mut idle, mut serving) = (Vec::new(), Vec::new());
    for node in snapshot.nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let mut here = by_node.remove(name).unwrap_or_default();
        let (run, stay) = suits(&template, node);
        if run {
            status.desired_number_scheduled += 1;
        }
        let failed: Vec<&Arc<Pod>> = here.extract_if(.., |p| pods::is_finished(p)).collect();
        plan.delete
            .extend(failed.iter().filter(|p| p.metadata.deletion_timestamp.is_none()).map(|p| Arc::clone(p)));
        let leaving = here.iter().any(|p| p.metadata.deletion_timestamp.is_some());
        here.retain(|p| p.metadata.deletion_timestamp.is_none());
        // The oldest stays.
        here.sort_by_key(|p| {
            (pods::node_name(p).is_none(), p.metadata.creation_timestamp.clone().map(|t| t.0))
        });
        let Some((pod, extra)) = here.split_first() else {
            // A pod on its way out still holds the place.
            if run && !leaving && failed.is_empty() {
                plan.create.push(name.to_owned());
            }
            continue;
        };
        if !stay {
            status.number_misscheduled += 1;
            plan.delete.extend(here.iter().map(|p| Arc::clone(p)));
            continue;
        }
        plan.delete.extend(extra.iter().map(|p| Arc::clone(p)));
        if run {
            status.current_number_scheduled += 1;
        } else {
            status.number_misscheduled += 1;
            continue;
        }
        let current = hash_of(pod) == Some(snapshot.hash);
        updated += i32::from(current);
        status.number_ready += i32::from(pods::is_ready(pod));
        let is_available = match pods::is_available(pod, min_ready, snapshot.now) {
            Ok(is) => is,
            Err(left) => {
                plan.again = Some(plan.again.map_or(left, |a| a.min(left)));
                false
            }
        };
        available += i32::from(is_available);
        if !current {
            if is_available { serving.push(Arc::clone(pod)) } else { idle.push(Arc::clone(pod)) }
        }
    }
    // Pods of nodes that are gone are the pod collector's; unassigned ones without a target are ours.
    for pod in by_node.remove("").into_iter().flatten() {
        if pod.metadata.deletion_timestamp.is_none() {
            plan.delete.push(pod.clone());
        }
    }
    for (node, left) in by_node {
        // Meant for a node that is gone, and never there.
        let never = left.into_iter().filter(|p| pods::node_name(p) != Some(node));
        plan.delete.extend(never.filter(|p| p.metadata.deletion_timestamp.is_none()).map(Arc::clone));
    }
    let desired = status.desired_number_scheduled;
    status.updated_number_scheduled = Some(updated);
    status.number_available = Some(available);
    status.number_unavailable = Some(desired - available);
    roll(set, desired, available, idle, serving, &mut plan);
    plan.create.truncate(BURST);
    plan.delete.truncate(BURST);
    if status != before {
        plan.status = Some(json!(status));
    }
    plan
}

/// Deletes old pods, as many as may be unavailable; the place is filled when they are gone.
fn roll(
    set: &DaemonSet,
    desired: i32,
    available: i32,
    idle: Vec<Arc<Pod>>,
    serving: Vec<Arc<Pod>>,
    plan: &mut Plan,
) {
    let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
        return;
    }
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let one = IntOrString::Int(1);
    let limit = rolling.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&one);
    let surge = rolling.and_then(|r| r.max_surge.as_ref()).map_or(0, |s| resolve(s, desired, true));
    // A surge would put two pods on a node: taken as leave to replace as many.
    let limit = resolve(limit, desired, true).max(surge).max(1);
    let room = usize::try_from(limit - (desired - available)).unwrap_or(0);
    plan.delete.extend(idle);
    plan.delete.extend(serving.into_iter().take(room));
}

/// Whether a daemon pod should come to a node, and whether one that is there may stay.
fn suits(template: &PodSpec, node: &Node) -> (bool, bool) {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let named = template.node_name.as_deref().is_none_or(|n| n.is_empty() || n == name);
    let selected = template.node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    let affinity = template.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let matched =
        required.is_none_or(|s| s.node_selector_terms.iter().any(|t| term_matches(t, name, labels)));
    if !(named && selected && matched) {
        return (false, false);
    }
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    let (mut run, mut stay) = (true, true);
    for taint in taints {
        let tolerated = template.tolerations.iter().flatten().any(|t| tolerates(t, taint));
        if !tolerated && matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute") {
            run = false;
            stay &= taint.effect != "NoExecute";
        }
    }
    (run, stay)
}

fn term_matches(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let holds = |r: &NodeSelectorRequirement, value: Option<&str>| {
        let values = r.values.as_deref().unwrap_or_default();
        let among = |v: &str| values.iter().any(|x| x == v);
        let number = |v: &str| v.parse::<i64>().ok();
        let bound = || values.first().and_then(|v| number(v));
        match r.operator.as_str() {
            "In" => value.is_some_and(among),
            "NotIn" => !value.is_some_and(among),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "Gt" => value.and_then(number).zip(bound()).is_some_and(|(v, b)| v > b),
            "Lt" => value.and_then(number).zip(bound()).is_some_and(|(v, b)| v < b),
            _ => false,
        }
    };
    let by_label = term.match_expressions.as_deref().unwrap_or_default();
    let by_field = term.match_fields.as_deref().unwrap_or_default();
    !(by_label.is_empty() && by_field.is_empty())
        && by_label.iter().all(|r| holds(r, labels.get(&r.key).map(String::as_str)))
        && by_field.iter().all(|r| r.key == NAME_FIELD && holds(r, Some(name)))
}

/// Daemon pods stay on nodes that are in trouble.
fn with_tolerations(mut spec: PodSpec) -> PodSpec {
    let mut add = |key: &str, effect: &str| {
        spec.tolerations.get_or_insert_default().push(Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        });
    };
    add("node.kubernetes.io/not-ready", "NoExecute");
    add("node.kubernetes.io/unreachable", "NoExecute");
    add("node.kubernetes.io/disk-pressure", "NoSchedule");
    add("node.kubernetes.io/memory-pressure", "NoSchedule");
    add("node.kubernetes.io/pid-pressure", "NoSchedule");
    add("node.kubernetes.io/unschedulable", "NoSchedule");
    if spec.host_network == Some(true) {
        add("node.kubernetes.io/network-unavailable", "NoSchedule");
    }
    spec
}

/// How often the template has changed, as the API counts it.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// The daemon pod for a node: the scheduler may put it nowhere else.
pub(super) fn new_pod(set: &DaemonSet, node: &str, hash: &str) -> Pod {
    let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let mut pod = pods::from_template(&template, namespace, name, owners::controller_ref(set));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(HASH.into(), hash.into());
    if let Some(count) = set.metadata.annotations.as_ref().and_then(|all| all.get(TEMPLATE_GENERATION)) {
        labels.insert("pod-template-generation".into(), count.clone());
    }
    let mut spec = with_tolerations(pod.spec.take().unwrap_or_default());
    let here = NodeSelectorRequirement {
        key: NAME_FIELD.into(),
        operator: "In".into(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    let required: &mut NodeSelector =
        affinity.required_during_scheduling_ignored_during_execution.get_or_insert_default();
    if required.node_selector_terms.is_empty() {
        required.node_selector_terms.push(NodeSelectorTerm::default());
    }
    // Terms are alternatives: the name must be in each.
    for term in &mut required.node_selector_terms {
        term.match_fields = Some(vec![here.clone()]);
    }
    pod.spec = Some(spec);
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(strategy: &Value) -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": {"name": "d", "namespace": "ns", "uid": "d"},
            "spec": {
                "selector": {"matchLabels": {"app": "d"}},
                "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [], "nodeSelector": {"os": "linux"}}},
                "updateStrategy": strategy,
            },
        }))
        .expect("set")
    }

    fn node(name: &str, os: &str, taints: &Value) -> Arc<Node> {
        let node = json!({"metadata": {"name": name, "labels": {"os": os}}, "spec": {"taints": taints}});
        Arc::new(serde_json::from_value(node).expect("node"))
    }

    fn pod(set: &DaemonSet, node: &str, hash: &str, ready: bool) -> Arc<Pod> {
        let mut pod = new_pod(set, node, hash);
        pod.metadata.name = Some(format!("{node}-{hash}"));
        pod.metadata.uid = pod.metadata.name.clone();
        let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]});
        pod.status = Some(serde_json::from_value(status).expect("status"));
        Arc::new(pod)
    }

    fn run(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> Plan {
        plan(&Snapshot { set, pods, nodes, hash: "new", now: Timestamp::UNIX_EPOCH })
    }

    #[test]
    fn one_pod_a_node_that_suits() {
        let set = set(&json!({}));
        let cordoned = json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]);
        let tainted = json!([{"key": "mine", "effect": "NoSchedule"}]);
        let nodes = [
            node("a", "linux", &json!([])),
            node("b", "other", &json!([])),
            node("c", "linux", &cordoned),
            node("d", "linux", &tainted),
        ];
        let made = run(&set, &nodes, &[pod(&set, "b", "new", true)]);
        assert_eq!(made.create, ["a", "c"]);
        assert_eq!(made.delete.len(), 1);
        let status = made.status.expect("status");
        assert_eq!(
            (&status["desiredNumberScheduled"], &status["numberMisscheduled"]),
            (&json!(2), &json!(1))
        );
        // What is there already stays on a node with a taint that only keeps newcomers off.
        assert!(run(&set, &nodes, &[pod(&set, "d", "new", true)]).delete.is_empty());
    }

    #[test]
    fn rolls_within_the_limit() {
        let set = set(&json!({"rollingUpdate": {"maxUnavailable": 2}}));
        let nodes: Vec<_> = ["a", "b", "c", "d"].map(|n| node(n, "linux", &json!([]))).into();
        let all: Vec<_> = ["a", "b", "c", "d"].map(|n| pod(&set, n, "old", true)).into();
        assert_eq!(run(&set, &nodes, &all).delete.len(), 2);
        let mut some = all.clone();
        some[0] = pod(&set, "a", "new", false);
        assert_eq!(run(&set, &nodes, &some).delete.len(), 1);
        let unready: Vec<_> = ["a", "b", "c", "d"].map(|n| pod(&set, n, "old", false)).into();
        assert_eq!(run(&set, &nodes, &unready).delete.len(), 4, "those serve nobody");
    }
}
