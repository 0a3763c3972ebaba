//! What the scheduler writes besides bindings: why a pod has no node, where it is nominated, and whom it
//! makes go.

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use skep_client::{Client, DeleteParams, Error, Patch, PatchParams};

use crate::pod_info::PodInfo;
use crate::run::SCHEDULER_NAME;

/// What becomes of `nominatedNodeName`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Nominate {
    Keep,
    To(String),
    Nowhere,
}

/// Where a pod is nominated, as the API shows it.
pub(crate) fn nominated_node(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.nominated_node_name.as_deref().filter(|name| !name.is_empty())
}

fn scheduled(pod: &Pod) -> Option<&PodCondition> {
    let status = pod.status.as_ref()?;
    status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled")
}

/// The patch of a pod's status; `None` when it says all that already. Pure.
fn unschedulable_patch(pod: &PodInfo, message: &str, nominate: &Nominate, now: Timestamp) -> Option<Value> {
    let before = scheduled(&pod.pod).filter(|condition| condition.status == "False");
    let known = before.is_some_and(|condition| condition.message.as_deref() == Some(message));
    if known && *nominate == Nominate::Keep {
        return None;
    }
    let since = before.and_then(|condition| condition.last_transition_time.clone());
    let mut status = json!({"conditions": [{
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastTransitionTime": since.unwrap_or(Time(now)),
        "observedGeneration": pod.pod.metadata.generation,
    }]});
    match nominate {
        Nominate::Keep => {}
        Nominate::To(node) => status["nominatedNodeName"] = node.as_str().into(),
        Nominate::Nowhere => status["nominatedNodeName"] = Value::Null,
    }
    Some(json!({"metadata": {"uid": pod.uid}, "status": status}))
}

/// The condition that `kubectl describe` shows, and the node the pod waits for.
pub(crate) async fn unschedulable(client: &Client, pod: &PodInfo, message: &str, nominate: &Nominate) {
    if let Some(patch) = unschedulable_patch(pod, message, nominate, Timestamp::now()) {
        write(client, pod, patch).await;
    }
}

/// The pod waits for no node any more.
pub(crate) async fn nominated_nowhere(client: &Client, pod: &PodInfo) {
    write(client, pod, json!({"metadata": {"uid": pod.uid}, "status": {"nominatedNodeName": null}})).await;
}

async fn write(client: &Client, pod: &PodInfo, patch: Value) {
    let api = client.namespaced::<Pod>(&pod.key.namespace);
    let result = api.patch_status(&pod.key.name, &Patch::Strategic(patch), &PatchParams::default()).await;
    // Gone, or another pod of that name: there is nobody to tell it of.
    if let Err(error) = result
        && !error.is_not_found()
        && !error.is_conflict()
    {
        tracing::warn!(pod = %pod.key.name, namespace = %pod.key.namespace, %error, "reporting the condition");
    }
}

/// Tells a pod that it goes, and why; its own time to end is left to it.
pub(crate) async fn evict(client: &Client, victim: &PodInfo) -> Result<(), Error> {
    let api = client.namespaced::<Pod>(&victim.key.namespace);
    let patch = Patch::Strategic(json!({"metadata": {"uid": victim.uid}, "status": {"conditions": [{
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": format!("{SCHEDULER_NAME}: preempting to accommodate a higher priority pod"),
        "lastTransitionTime": Time(Timestamp::now()),
        "observedGeneration": victim.pod.metadata.generation,
    }]}}));
    let told = api.patch_status(&victim.key.name, &patch, &PatchParams::default()).await.map(drop);
    let gone = |result: Result<(), Error>| match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    };
    gone(told)?;
    gone(api.delete(&victim.key.name, &DeleteParams::uid(victim.uid.clone())).await)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_is_known_is_not_written_again() {
        let condition = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "full", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": []}, "status": {"conditions": condition}});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let pod = PodInfo::new(Arc::new(pod));
        let patch =
            |message: &str, nominate| unschedulable_patch(&pod, message, &nominate, Timestamp::UNIX_EPOCH);
        assert_eq!(patch("full", Nominate::Keep), None);
        let other = patch("fuller", Nominate::Keep).expect("a patch");
        assert_eq!(other["status"]["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
        assert!(other["status"].get("nominatedNodeName").is_none());
        let to = patch("full", Nominate::To("a".into())).expect("a patch");
        assert_eq!(to["status"]["nominatedNodeName"], "a");
        let nowhere = patch("full", Nominate::Nowhere).expect("a patch");
        assert_eq!(nowhere["status"]["nominatedNodeName"], Value::Null);
    }
}
