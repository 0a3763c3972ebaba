//! Subresources that have the shape of their object but may change one part of it only: a namespace's
//! finalizers, a pod's ephemeral containers and resources, the approval of a signing request.

use std::sync::Arc;

use serde_json::{Value, json};
use skep_api::error::ApiError;

use super::patch::patched;
use super::update::{Part, Proposal};
use super::{Patch, Registry, Target, WriteOptions, Written, meta};
use crate::cache::Object;

impl Registry {
    /// `namespaces/finalize`.
    pub(super) async fn finalize(
        &self,
        target: &Target,
        sent: &Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        self.update_given(target, sent, options).await
    }

    pub(super) async fn update_given(
        &self,
        target: &Target,
        sent: &Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let subresource = target.subresource.as_str();
        self.change(target, options, Part::Given, &mut |old: &Arc<Object>| {
            let object = with_part(subresource, &old.value, sent)?;
            let revision = meta::sent_revision(sent)?;
            Ok(Proposal { object, revision, applied: false, warnings: Vec::new() })
        })
        .await
    }

    pub(super) async fn patch_given(
        &self,
        target: &Target,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let resource = self.resource(&target.resource)?.clone();
        let subresource = target.subresource.as_str();
        self.change(target, options, Part::Given, &mut |old: &Arc<Object>| {
            let sent = match patch {
                Patch::Apply(applied) => patched(&resource, &old.value, &Patch::Strategic(applied.clone()))?,
                _ => patched(&resource, &old.value, patch)?,
            };
            let object = with_part(subresource, &old.value, &sent)?;
            let sent = meta::sent_revision(&sent)?;
            let revision = if sent == old.revision { 0 } else { sent };
            Ok(Proposal { object, revision, applied: false, warnings: Vec::new() })
        })
        .await
    }
}

/// The old object with the subresource's part of the new one.
fn with_part(subresource: &str, old: &Value, sent: &Value) -> Result<Value, ApiError> {
    let mut object = old.clone();
    match subresource {
        "finalize" => {
            let finalizers = sent.pointer("/spec/finalizers").cloned().unwrap_or_else(|| json!([]));
            object["spec"]["finalizers"] = finalizers;
            meta::set_finalizers(&mut object, &meta::finalizers(sent))?;
        }
        "ephemeralcontainers" => ephemeral_containers(&mut object, sent)?,
        "resize" => resize(&mut object, sent)?,
        "approval" => {
            object["status"]["conditions"] =
                sent.pointer("/status/conditions").cloned().unwrap_or_else(|| json!([]));
        }
        _ => return Err(ApiError::no_such_path()),
    }
    Ok(object)
}

/// Ephemeral containers are only ever added.
fn ephemeral_containers(object: &mut Value, sent: &Value) -> Result<(), ApiError> {
    let list = |pod: &Value| {
        let list = pod.pointer("/spec/ephemeralContainers").and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    };
    let new = list(sent);
    for old in list(object) {
        let same = new.iter().find(|new| new.get("name") == old.get("name"));
        if same != Some(&old) {
            let name = old.get("name").and_then(Value::as_str).unwrap_or_default();
            return Err(ApiError::bad_request(format!(
                "existing ephemeral containers {name:?} may not be changed or removed"
            )));
        }
    }
    object["spec"]["ephemeralContainers"] = Value::Array(new);
    meta::bump_generation(object)
}

/// The resources of containers, by name.
fn resize(object: &mut Value, sent: &Value) -> Result<(), ApiError> {
    for list in ["/spec/containers", "/spec/initContainers"] {
        let new = sent.pointer(list).and_then(Value::as_array).cloned().unwrap_or_default();
        for container in object.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(sent) = new.iter().find(|new| new.get("name") == container.get("name")) else {
                continue;
            };
            for field in ["resources", "resizePolicy"] {
                match sent.get(field) {
                    Some(value) => container[field] = value.clone(),
                    None => _ = container.as_object_mut().map(|container| container.remove(field)),
                }
            }
        }
    }
    meta::bump_generation(object)
}
