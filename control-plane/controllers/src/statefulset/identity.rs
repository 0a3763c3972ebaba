//! What makes each pod of a StatefulSet one of its own: its number, its name, its volumes.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::history::HASH;
use crate::{owners, pods};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

pub(super) fn set_name(set: &StatefulSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

/// The number of the pod with this name, if the name is one the set gives.
pub(super) fn ordinal(set: &StatefulSet, pod: &str) -> Option<i32> {
    let (parent, number) = pod.rsplit_once('-')?;
    // "+1" and "01" are names of nobody.
    let plain = number.bytes().all(|b| b.is_ascii_digit()) && (number == "0" || !number.starts_with('0'));
    (parent == set_name(set) && plain).then(|| number.parse().ok())?
}

/// The number of a pod of the set.
pub(super) fn ordinal_of(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    ordinal(set, pod.metadata.name.as_deref()?)
}

pub(super) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set_name(set))
}

/// The revision a pod was made of: for StatefulSets the label holds its full name.
pub(super) fn revision_of(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(HASH).map(String::as_str)
}

fn templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    set.spec.as_ref().and_then(|s| s.volume_claim_templates.as_deref()).unwrap_or_default()
}

fn claim_name(template: &PersistentVolumeClaim, pod: &str) -> String {
    format!("{}-{pod}", template.metadata.name.as_deref().unwrap_or_default())
}

/// The names of the claims of a pod.
pub(super) fn claim_names(set: &StatefulSet, ordinal: i32) -> Vec<String> {
    let pod = pod_name(set, ordinal);
    templates(set).iter().map(|t| claim_name(t, &pod)).collect()
}

/// The claims of a pod, owned as the retention policy wants it.
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let pod = pod_name(set, ordinal);
    let selector = set.spec.as_ref().and_then(|s| s.selector.match_labels.clone()).unwrap_or_default();
    let make = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(template, &pod));
        claim.metadata.namespace = set.metadata.namespace.clone();
        claim.metadata.labels.get_or_insert_default().extend(selector.clone());
        if retention(set).when_deleted {
            claim.metadata.owner_references.get_or_insert_default().push(owners::controller_ref(set));
        }
        claim.status = None;
        claim
    };
    templates(set).iter().map(make).collect()
}

/// Whether claims go with what they were made for.
#[derive(Clone, Copy)]
pub(super) struct Retention {
    /// With the set.
    pub(super) when_deleted: bool,
    /// With a pod the set no longer wants.
    pub(super) when_scaled: bool,
}

pub(super) fn retention(set: &StatefulSet) -> Retention {
    let policy = set
        .spec
        .as_ref()
        .and_then(|s| s.persistent_volume_claim_retention_policy.clone())
        .unwrap_or_default();
    Retention {
        when_deleted: policy.when_deleted.as_deref() == Some("Delete"),
        when_scaled: policy.when_scaled.as_deref() == Some("Delete"),
    }
}

/// The references a claim should have, where those it has differ. `condemned` is the pod when the set
/// no longer wants it.
pub(super) fn corrected_owners(
    set: &StatefulSet,
    claim: &PersistentVolumeClaim,
    pod_name: &str,
    condemned: Option<&Pod>,
) -> Option<Vec<OwnerReference>> {
    let before = claim.metadata.owner_references.clone().unwrap_or_default();
    let set_ref = owners::controller_ref(set);
    let ours = |o: &OwnerReference| o.uid == set_ref.uid || (o.kind == "Pod" && o.name == pod_name);
    // Someone else's claim is not ours to hand on.
    if before.iter().any(|o| o.controller == Some(true) && !ours(o)) {
        return None;
    }
    let retention = retention(set);
    let wanted = match condemned.filter(|_| retention.when_scaled) {
        Some(pod) => Some(owners::controller_ref(pod)),
        None => retention.when_deleted.then_some(set_ref.clone()),
    };
    let mut after: Vec<OwnerReference> = before.iter().filter(|o| !ours(o)).cloned().collect();
    let kept = before.iter().find(|o| wanted.as_ref().is_some_and(|w| w.uid == o.uid));
    after.extend(kept.cloned().or(wanted));
    let uids = |refs: &[OwnerReference]| {
        let mut uids: Vec<String> = refs.iter().map(|o| o.uid.clone()).collect();
        uids.sort();
        uids
    };
    (uids(&after) != uids(&before)).then_some(after)
}

/// Whether a claim is on its way out, or goes with an earlier pod of this name: a new pod must not get it.
pub(super) fn is_stale(claim: &PersistentVolumeClaim, pod_name: &str) -> bool {
    let references = claim.metadata.owner_references.iter().flatten();
    claim.metadata.deletion_timestamp.is_some()
        || references.into_iter().any(|o| o.kind == "Pod" && o.name == pod_name)
}

/// The labels a pod of this number must have.
pub(super) fn labels(set: &StatefulSet, ordinal: i32) -> [(&'static str, String); 2] {
    [(POD_NAME, pod_name(set, ordinal)), (POD_INDEX, ordinal.to_string())]
}

/// A pod of a revision.
pub(super) fn new_pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let mut pod = pods::from_template(template, namespace, set_name(set), owners::controller_ref(set));
    let name = pod_name(set, ordinal);
    pod.metadata.name = Some(name.clone());
    let own = pod.metadata.labels.get_or_insert_default();
    own.extend(labels(set, ordinal).map(|(key, value)| (key.to_owned(), value)));
    own.insert(HASH.into(), revision.into());
    let mut spec = pod.spec.take().unwrap_or_default();
    spec.hostname = Some(name.clone());
    spec.subdomain = set.spec.as_ref().and_then(|s| s.service_name.clone()).filter(|s| !s.is_empty());
    let volumes = spec.volumes.get_or_insert_default();
    volumes.retain(|v| !templates(set).iter().any(|t| t.metadata.name.as_deref() == Some(&v.name)));
    volumes.extend(templates(set).iter().map(|template| Volume {
        name: template.metadata.name.clone().unwrap_or_default(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(template, &name),
            read_only: None,
        }),
        ..Volume::default()
    }));
    if volumes.is_empty() {
        spec.volumes = None;
    }
    pod.spec = Some(spec);
    pod
}
