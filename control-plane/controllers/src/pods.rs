//! What controllers ask of pods: their state, and new ones from a template.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Index key of the pods an object controls.
pub(crate) fn by_owner(uid: &str) -> String {
    format!("owner:{uid}")
}

/// Index key of the pods of a namespace nobody controls.
pub(crate) fn by_orphanage(namespace: &str) -> String {
    format!("orphans:{namespace}")
}

/// Index key of the pods on a node.
pub(crate) fn by_node(name: &str) -> String {
    format!("node:{name}")
}

/// All index keys of a pod.
pub(crate) fn index_keys(pod: &Pod) -> Vec<String> {
    let mut keys = match crate::owners::controller_of(&pod.metadata) {
        Some(owner) => vec![by_owner(&owner.uid)],
        None => vec![by_orphanage(pod.metadata.namespace.as_deref().unwrap_or_default())],
    };
    keys.extend(node_name(pod).map(by_node));
    keys
}

/// The node of a pod.
pub(crate) fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())
}

/// What endpoints say of the pod behind an address.
pub(crate) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The phase, or "".
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// Neither ended nor leaving.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Ended, well or not.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// A condition of a pod.
pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// Ready to serve.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// Since when it is ready.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|c| c.status == "True")?;
    ready.last_transition_time.as_ref().map(|t| t.0)
}

/// Ready for at least `min_ready` seconds; `Err` tells how long it still takes.
pub(crate) fn is_available(pod: &Pod, min_ready: i32, now: Timestamp) -> Result<bool, Duration> {
    if !is_ready(pod) {
        return Ok(false);
    }
    if min_ready <= 0 {
        return Ok(true);
    }
    let Some(since) = ready_since(pod) else { return Ok(false) };
    let lasted = now.duration_since(since).as_secs();
    let left = i64::from(min_ready) - lasted;
    if left <= 0 { Ok(true) } else { Err(Duration::from_secs(left.unsigned_abs())) }
}

/// A new pod of a template. Its name begins with `prefix` and the server completes it.
pub(crate) fn from_template(
    template: &PodTemplateSpec,
    namespace: &str,
    prefix: &str,
    owner: OwnerReference,
) -> Pod {
    let meta = template.metadata.as_ref();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{prefix}-")),
            namespace: Some(namespace.to_owned()),
            labels: meta.and_then(|m| m.labels.clone()),
            annotations: meta.and_then(|m| m.annotations.clone()),
            finalizers: meta.and_then(|m| m.finalizers.clone()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Sorts pods so that those to delete first come first: not yet on a node, not yet running, not ready,
/// cheap to delete, on crowded nodes, ready for a short time, often restarted, young.
pub(crate) fn sort_for_deletion(pods: &mut [Arc<Pod>], siblings: &[Arc<Pod>]) {
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for pod in siblings {
        if let Some(node) = node_name(pod) {
            *crowd.entry(node).or_default() += 1;
        }
    }
    pods.sort_by(|a, b| {
        let stage = |p: &Pod| match phase(p) {
            "Running" => 2,
            "Unknown" => 1,
            _ => 0,
        };
        let cost = |p: &Pod| -> i32 {
            let annotations = p.metadata.annotations.as_ref();
            annotations.and_then(|a| a.get(DELETION_COST)).and_then(|c| c.parse().ok()).unwrap_or(0)
        };
        let rank = |p: &Pod| node_name(p).and_then(|n| crowd.get(n)).copied().unwrap_or(0);
        let created = |p: &Pod| p.metadata.creation_timestamp.as_ref().map(|t| t.0);
        node_name(a)
            .is_some()
            .cmp(&node_name(b).is_some())
            .then(stage(a).cmp(&stage(b)))
            .then(is_ready(a).cmp(&is_ready(b)))
            .then(cost(a).cmp(&cost(b)))
            .then(rank(b).cmp(&rank(a)))
            .then_with(|| newer_first(ready_since(a), ready_since(b)))
            .then(restarts(b).cmp(&restarts(a)))
            .then_with(|| newer_first(created(a), created(b)))
    });
}

/// A missing time counts as the newest.
fn newer_first(a: Option<Timestamp>, b: Option<Timestamp>) -> Ordering {
    b.unwrap_or(Timestamp::MAX).cmp(&a.unwrap_or(Timestamp::MAX))
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    statuses.map(|c| c.restart_count).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, more: &Value) -> Arc<Pod> {
        let mut pod = json!({"metadata": {"name": name}});
        json_patch(&mut pod, more);
        Arc::new(serde_json::from_value(pod).expect("pod"))
    }

    fn json_patch(into: &mut Value, from: &Value) {
        match (into, from) {
            (Value::Object(a), Value::Object(b)) => {
                for (k, v) in b {
                    json_patch(a.entry(k.clone()).or_insert(Value::Null), v);
                }
            }
            (a, b) => *a = b.clone(),
        }
    }

    #[test]
    fn deletion_order() {
        let running = |ready: &str, node: &str| {
            json!({"spec": {"containers": [], "nodeName": node}, "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"},
            ]}})
        };
        let mut cheap = running("True", "a");
        cheap["metadata"] = json!({"annotations": {DELETION_COST: "-5"}});
        let mut pods = vec![
            pod("ready-alone", &running("True", "b")),
            pod("ready-crowded", &running("True", "a")),
            pod("cheap", &cheap),
            pod("unready", &running("False", "a")),
            pod(
                "pending",
                &json!({"spec": {"containers": [], "nodeName": "a"}, "status": {"phase": "Pending"}}),
            ),
            pod("unassigned", &json!({})),
        ];
        let siblings = pods.clone();
        sort_for_deletion(&mut pods, &siblings);
        let names: Vec<&str> = pods.iter().filter_map(|p| p.metadata.name.as_deref()).collect();
        assert_eq!(names, ["unassigned", "pending", "unready", "cheap", "ready-crowded", "ready-alone"]);
    }
}
