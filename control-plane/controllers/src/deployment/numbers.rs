//! Figures of a deployment: bounds of the rollout, template hashes, annotations.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Label that tells the ReplicaSets (and pods) of a deployment apart.
pub(super) const HASH: &str = "pod-template-hash";
/// Annotation: which rollout a ReplicaSet belongs to.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotation: earlier rollouts of the same template.
pub(super) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotation: size of the deployment when the ReplicaSet was last scaled.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation: the same with the surge.
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Asked pods.
pub(super) fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// Asked pods of a ReplicaSet.
pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// Available pods of a ReplicaSet.
pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

/// Whether old pods go before new ones come.
pub(super) fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

/// How many pods more and how many fewer than asked there may be during a rollout.
pub(super) fn bounds(deployment: &Deployment) -> (i32, i32) {
    if is_recreate(deployment) {
        return (0, 0);
    }
    let rolling = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    let rolling = rolling.and_then(|s| s.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".into());
    let total = replicas(deployment);
    let surge = resolve(rolling.and_then(|r| r.max_surge.as_ref()).unwrap_or(&quarter), total, true);
    let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&quarter);
    let unavailable = resolve(unavailable, total, false);
    // With neither, the rollout could never begin.
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable.min(total)) }
}

/// A number, or a part of the total.
pub(crate) fn resolve(value: &IntOrString, total: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(n) => (*n).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let product = i64::from(total) * percent.clamp(0, 10_000);
            let part = if up { (product + 99) / 100 } else { product / 100 };
            i32::try_from(part).unwrap_or(i32::MAX)
        }
    }
}

/// Whether a ReplicaSet has the template of the deployment, the hash label aside.
pub(super) fn same_template(set: &ReplicaSet, deployment: &Deployment) -> bool {
    let theirs = set.spec.as_ref().and_then(|s| s.template.as_ref());
    let ours = deployment.spec.as_ref().map(|s| &s.template);
    let (Some(theirs), Some(ours)) = (theirs, ours) else { return false };
    theirs.spec == ours.spec && {
        let plain = |t: &PodTemplateSpec| {
            let mut meta = t.metadata.clone().unwrap_or_default();
            meta.creation_timestamp = None;
            let mut labels = meta.labels.take().unwrap_or_default();
            labels.remove(HASH);
            (labels, meta.annotations.take().unwrap_or_default())
        };
        plain(theirs) == plain(ours)
    }
}

/// The hash of a template: ten characters that are safe in names and labels.
pub(super) fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    // Serialising our own types cannot fail; an empty text would only make the name less distinct.
    let text = serde_json::to_vec(template).unwrap_or_default();
    crate::hash::safe(&text, collisions)
}

/// The revision annotation as a number.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    annotation(set, REVISION).unwrap_or(0)
}

/// A numeric annotation.
pub(super) fn annotation(set: &ReplicaSet, key: &str) -> Option<i64> {
    set.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_up_for_surge_and_down_for_unavailable() {
        let quarter = IntOrString::String("25%".into());
        assert_eq!(resolve(&quarter, 3, true), 1);
        assert_eq!(resolve(&quarter, 3, false), 0);
        assert_eq!(resolve(&IntOrString::Int(2), 3, false), 2);
        let zero = serde_json::json!({"spec": {"replicas": 3, "selector": {}, "template": {},
            "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "10%"}}}});
        let deployment: Deployment = serde_json::from_value(zero).expect("deployment");
        assert_eq!(bounds(&deployment), (0, 1));
    }
}
