//! The scale subresource: a small object made of a large one.

use std::sync::Arc;

use serde_json::{Value, json};
use skep_api::error::ApiError;
use skep_api::resource::GroupVersionKind;

use super::patch::patched;
use super::update::{Part, Proposal};
use super::{Patch, Registry, Resource, Target, WriteOptions, Written, fields, meta};
use crate::cache::Object;

impl Registry {
    /// The scale of an object.
    pub async fn get_scale(&self, target: &Target) -> Result<Value, ApiError> {
        let resource = self.resource(&target.resource)?;
        let object = self.get(target, None).await?;
        scale_of(&resource, &object.value)
    }

    pub(super) async fn update_scale(
        &self,
        target: &Target,
        scale: &Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        self.change_scale(target, options, &mut |_| Ok(scale.clone())).await
    }

    pub(super) async fn patch_scale(
        &self,
        target: &Target,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let resource = self.resource(&target.resource)?;
        if let Patch::Apply(applied) = patch {
            return self.apply_scale(target, applied, options).await;
        }
        self.change_scale(target, options, &mut |scale| match patch {
            Patch::Apply(_) => Err(ApiError::internal("an applied scale takes another way")),
            // A scale has no lists, so a strategic patch of it is a merge patch.
            Patch::Strategic(patch) | Patch::Merge(patch) => {
                patched(&resource, scale, &Patch::Merge(patch.clone()))
            }
            Patch::Json(_) => patched(&resource, scale, patch),
        })
        .await
    }

    /// An applied scale is an applied object of which nothing but the replicas is told: so conflicts, owners and
    /// what is left out are those of the object's own field.
    async fn apply_scale(
        &self,
        target: &Target,
        applied: &Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let resource = self.resource(&target.resource)?;
        if !resource.kind().has_scale() {
            return Err(ApiError::no_such_path());
        }
        super::patch::check_manager(applied, options)?;
        super::patch::check_kind(applied, &GroupVersionKind::new("autoscaling", "v1", "Scale"))?;
        super::create::check_place(applied, target)?;
        let errors = resource.kind().validate_scale(applied);
        if !errors.is_empty() {
            let kind = GroupVersionKind::new("autoscaling", "v1", "Scale");
            return Err(ApiError::invalid(&kind, &target.name, &errors));
        }
        let gvk = resource.gvk();
        let mut config = json!({
            "apiVersion": gvk.api_version(), "kind": gvk.kind, "metadata": {"name": target.name},
        });
        if applied.pointer("/spec/replicas").is_some() {
            resource.kind().write_scale(&mut config, applied);
        }
        let revision = meta::sent_revision(applied)?;
        let mut written = self
            .change(target, options, Part::Object, &mut |old: &Arc<Object>, conversions| {
                let object =
                    fields::apply(&resource, "scale", Some(&old.value), &config, options, conversions)?;
                Ok(Proposal { object, revision, applied: true, warnings: Vec::new() })
            })
            .await?;
        written.object = scale_of(&resource, &written.object)?;
        Ok(written)
    }

    async fn change_scale(
        &self,
        target: &Target,
        options: &WriteOptions,
        change: &mut (dyn FnMut(&Value) -> Result<Value, ApiError> + Send),
    ) -> Result<Written, ApiError> {
        let resource = self.resource(&target.resource)?;
        if !resource.kind().has_scale() {
            return Err(ApiError::no_such_path());
        }
        // The write is one of the object itself, so that its spec may change; the managers still see
        // that it came through the subresource.
        let mut written = self
            .change(target, options, Part::Object, &mut |old: &Arc<Object>, _| {
                let scale = change(&scale_of(&resource, &old.value)?)?;
                let errors = resource.kind().validate_scale(&scale);
                if !errors.is_empty() {
                    let kind = GroupVersionKind::new("autoscaling", "v1", "Scale");
                    return Err(ApiError::invalid(&kind, &target.name, &errors));
                }
                let mut object = Value::clone(&old.value);
                resource.kind().write_scale(&mut object, &scale);
                let sent = meta::sent_revision(&scale)?;
                let revision = if sent == old.revision { 0 } else { sent };
                Ok(Proposal { object, revision, applied: false, warnings: Vec::new() })
            })
            .await?;
        written.object = scale_of(&resource, &written.object)?;
        Ok(written)
    }
}

/// The scale of an object.
fn scale_of(resource: &Resource, object: &Value) -> Result<Value, ApiError> {
    resource.kind().read_scale(object).ok_or_else(ApiError::no_such_path)
}
