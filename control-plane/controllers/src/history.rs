//! ControllerRevisions: the templates a DaemonSet or StatefulSet has had, numbered.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};
use skep_client::{Client, DeleteParams, Error, Patch, PatchParams};

use crate::hash;

/// Label of pods and revisions: the hash of the template.
pub(crate) const HASH: &str = "controller-revision-hash";

/// The patch that brings an object (back) to this template.
pub(crate) fn data(template: &PodTemplateSpec) -> Value {
    let mut template = json!(template);
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// The revision of the current template, made (or given the highest number again) when need be.
pub(crate) async fn current(
    client: &Client,
    owner: &OwnerReference,
    meta: &ObjectMeta,
    template: &PodTemplateSpec,
    known: &[Arc<ControllerRevision>],
) -> Result<Arc<ControllerRevision>, Error> {
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let api = client.namespaced::<ControllerRevision>(namespace);
    let wanted = data(template);
    let highest = known.iter().map(|r| r.revision).max().unwrap_or(0);
    let same = known.iter().find(|r| r.data.as_ref().is_some_and(|d| d.0 == wanted));
    if let Some(same) = same {
        if same.revision == highest {
            return Ok(same.clone());
        }
        let patch = Patch::Merge(json!({"revision": highest + 1}));
        let name = same.metadata.name.as_deref().unwrap_or_default();
        return api.patch(name, &patch, &PatchParams::default()).await.map(Arc::new);
    }
    for collisions in 0.. {
        let hash = hash::safe(wanted.to_string().as_bytes(), Some(collisions));
        let mut labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        labels.insert(HASH.into(), hash.clone());
        let revision = ControllerRevision {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", owner.name)),
                namespace: meta.namespace.clone(),
                labels: Some(labels),
                owner_references: Some(vec![owner.clone()]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(wanted.clone())),
            revision: highest + 1,
        };
        match api.create(&revision).await {
            Err(e) if e.is_already_exists() => {
                let name = revision.metadata.name.as_deref().unwrap_or_default();
                let live = api.get(name).await?;
                if live.data.as_ref().is_some_and(|d| d.0 == wanted) {
                    return Ok(Arc::new(live));
                }
            }
            result => return result.map(Arc::new),
        }
    }
    unreachable!("the loop has no end but its returns")
}

/// Hash label of a revision.
pub(crate) fn hash_of(revision: &ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    labels.and_then(|l| l.get(HASH)).map(String::as_str).unwrap_or_default()
}

/// Deletes the oldest revisions no pod has, beyond the limit.
pub(crate) async fn clean_up(
    client: &Client,
    known: &[Arc<ControllerRevision>],
    live: impl Fn(&str) -> bool,
    limit: i32,
) -> Result<(), Error> {
    let mut idle: Vec<&Arc<ControllerRevision>> = known.iter().filter(|r| !live(hash_of(r))).collect();
    idle.sort_by_key(|r| r.revision);
    let surplus = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    for revision in idle.into_iter().take(surplus) {
        let meta = &revision.metadata;
        let api = client.namespaced::<ControllerRevision>(meta.namespace.as_deref().unwrap_or_default());
        let params = DeleteParams::uid(meta.uid.clone().unwrap_or_default());
        match api.delete(meta.name.as_deref().unwrap_or_default(), &params).await {
            Err(e) if !e.is_not_found() => return Err(e),
            _ => {}
        }
    }
    Ok(())
}
