//! Subresources that have the shape of their object but may change one part of it only: a namespace's
//! finalizers, a pod's ephemeral containers and resources, the approval of a signing request.

use std::sync::Arc;

use serde_json::{Value, json};
use skep_api::error::ApiError;

use super::create::check_place;
use super::patch::{check_kind, check_manager, patched, recheck};
use super::update::{Part, Proposal};
use super::{Patch, Registry, Target, WriteOptions, Written, fields, meta};
use crate::cache::Object;
use crate::strategy::Kind;

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
        let resource = self.resource(&target.resource)?;
        let subresource = target.subresource.as_str();
        self.change(target, options, Part::Given, &mut |old: &Arc<Object>, _| {
            let object = with_part(resource.kind(), subresource, &old.value, sent)?;
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
        let resource = self.resource(&target.resource)?;
        let subresource = target.subresource.as_str();
        self.change(target, options, Part::Given, &mut |old: &Arc<Object>, conversions| {
            let (mut sent, applied) = match patch {
                Patch::Apply(config) => {
                    check_manager(config, options)?;
                    check_kind(config, resource.gvk())?;
                    check_place(config, target)?;
                    let config = only_part(subresource, config);
                    (
                        fields::apply(
                            &resource,
                            subresource,
                            Some(&old.value),
                            &config,
                            options,
                            conversions,
                        )?,
                        true,
                    )
                }
                _ => (patched(&resource, &old.value, patch)?, false),
            };
            let warnings = recheck(&resource, &mut sent, options)?;
            let object = with_part(resource.kind(), subresource, &old.value, &sent)?;
            let sent = meta::sent_revision(&sent)?;
            let revision = if sent == old.revision { 0 } else { sent };
            Ok(Proposal { object, revision, applied, warnings })
        })
        .await
    }
}

impl Registry {
    /// The last write to a definition whose objects are gone: conditions and finalizers, nothing checked.
    pub(crate) async fn finish_definition(
        &self,
        target: &Target,
        definition: Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let revision = meta::sent_revision(&definition)?;
        self.change(target, options, Part::Own, &mut |_, _| {
            Ok(Proposal { object: definition.clone(), revision, applied: false, warnings: Vec::new() })
        })
        .await
    }
}

/// What an applier through a subresource can own: the part that path may change. The rest of what it sent counts for
/// nothing.
fn only_part(subresource: &str, config: &Value) -> Value {
    let mut part = json!({
        "apiVersion": config["apiVersion"], "kind": config["kind"],
        "metadata": {"name": config["metadata"]["name"]},
    });
    let keep = |part: &mut Value, group: &str, field: &str| {
        if let Some(value) = config.get(group).and_then(|group| group.get(field)) {
            part[group][field] = value.clone();
        }
    };
    match subresource {
        "ephemeralcontainers" => keep(&mut part, "spec", "ephemeralContainers"),
        "resize" => {
            for list in ["containers", "initContainers"] {
                let containers = config.pointer(&format!("/spec/{list}")).and_then(Value::as_array);
                let Some(containers) = containers else { continue };
                let mut kept = Vec::with_capacity(containers.len());
                for container in containers {
                    let mut only = json!({"name": container["name"]});
                    for field in ["resources", "resizePolicy"] {
                        if let Some(value) = container.get(field) {
                            only[field] = value.clone();
                        }
                    }
                    kept.push(only);
                }
                part["spec"][list] = Value::Array(kept);
            }
        }
        "approval" => keep(&mut part, "status", "conditions"),
        "finalize" => keep(&mut part, "spec", "finalizers"),
        _ => return config.clone(),
    }
    part
}

/// What is stored, with the part of what was sent that the subresource may change.
fn with_part(kind: &Kind, subresource: &str, old: &Value, sent: &Value) -> Result<Value, ApiError> {
    if kind.subresource(subresource).is_none() {
        return Err(ApiError::no_such_path());
    }
    let mut object = sent.clone();
    kind.prepare_subresource(subresource, &mut object, old);
    Ok(object)
}
