//! Patch: the four kinds of it, each a function from the stored object to a proposal.

use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::resource::GroupVersionKind;
use skep_machinery::patch;
use skep_machinery::schema::Schema;

use super::conversions::Conversions;
use super::update::{Part, Proposal};
use super::{Patch, Registry, Resource, Target, WriteOptions, Written, fields, meta};
use crate::cache::set_resource_version;

impl Registry {
    /// Patches an object or a subresource of it. Apply creates what is not there.
    pub async fn patch(
        &self,
        target: &Target,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let resource = self.resource(&target.resource)?;
        let part = match target.subresource.as_str() {
            "" => Part::Object,
            "status" => Part::Status,
            "scale" => return self.patch_scale(target, patch, options).await,
            _ => return self.patch_given(target, patch, options).await,
        };
        if let Patch::Apply(applied) = patch {
            self.check_applied(&resource, target, applied, options)?;
        }
        loop {
            let changed = self
                .change(target, options, part, &mut |old, conversions| {
                    propose(&resource, &target.subresource, &old.value, patch, options, conversions)
                })
                .await;
            let (Err(error), Patch::Apply(applied)) = (&changed, patch) else { return changed };
            let absent =
                error.is_not_found() && part == Part::Object && meta::text(applied, "uid").is_empty();
            if !absent {
                return changed;
            }
            let mut object = applied.clone();
            meta::metadata(&mut object)?.insert("name".to_owned(), Value::String(target.name.clone()));
            // Of what is not there nobody has noted anything in another version.
            let mut object = fields::apply(&resource, "", None, &object, options, &Conversions::default())?;
            let warnings = recheck(&resource, &mut object, options)?;
            match self.create_once(target, object, options, true).await {
                // Somebody was faster: apply to theirs.
                Err(error) if error.is_already_exists() => {}
                Ok(mut written) => {
                    written.warnings.extend(warnings);
                    return Ok(written);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn check_applied(
        &self,
        resource: &Resource,
        target: &Target,
        applied: &Value,
        options: &WriteOptions,
    ) -> Result<(), ApiError> {
        check_manager(applied, options)?;
        check_kind(applied, resource.gvk())?;
        super::create::check_place(applied, target)
    }
}

/// An apply names its manager, and tells nothing of other managers.
pub(super) fn check_manager(applied: &Value, options: &WriteOptions) -> Result<(), ApiError> {
    if options.field_manager.is_empty() {
        return Err(ApiError::bad_request(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    let managers = applied.pointer("/metadata/managedFields").and_then(Value::as_array);
    if managers.is_some_and(|managers| !managers.is_empty()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

/// What is applied says what it is, and it is what the path says.
pub(super) fn check_kind(applied: &Value, gvk: &GroupVersionKind) -> Result<(), ApiError> {
    let text = |field: &str| applied.get(field).and_then(Value::as_str);
    let (Some(version), Some(name)) = (text("apiVersion"), text("kind")) else {
        return Err(ApiError::bad_request("apply patches must have apiVersion and kind set"));
    };
    if version != gvk.api_version() || name != gvk.kind {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}, Kind={name}) does not match the expected API version ({}, \
             Kind={})",
            gvk.api_version(),
            gvk.kind
        )));
    }
    Ok(())
}

/// The patched object.
fn propose(
    resource: &Resource,
    subresource: &str,
    old: &Value,
    patch: &Patch,
    options: &WriteOptions,
    conversions: &Conversions,
) -> Result<Proposal, ApiError> {
    if let Patch::Apply(applied) = patch {
        let mut object = fields::apply(resource, subresource, Some(old), applied, options, conversions)?;
        let warnings = recheck(resource, &mut object, options)?;
        let revision = meta::sent_revision(applied)?;
        return Ok(Proposal { object, revision, applied: true, warnings });
    }
    let mut object = patched(resource, old, patch)?;
    let warnings = recheck(resource, &mut object, options)?;
    // A patch that names a resource version binds the write to it.
    let before = meta::sent_revision(old)?;
    let after = meta::sent_revision(&object)?;
    let revision = if after == before && !names_revision(patch) { 0 } else { after };
    set_resource_version(&mut object, before);
    super::create::check_place(
        &object,
        &Target::new(resource.gvr().clone(), meta::text(old, "namespace"), meta::text(old, "name")),
    )?;
    Ok(Proposal { object, revision, applied: false, warnings })
}

/// Does a merge patch carry a resource version?
fn names_revision(patch: &Patch) -> bool {
    match patch {
        Patch::Merge(patch) | Patch::Strategic(patch) => !meta::text(patch, "resourceVersion").is_empty(),
        Patch::Json(_) | Patch::Apply(_) => false,
    }
}

/// Runs one of the three patches that know no managers.
pub(super) fn patched(resource: &Resource, old: &Value, patch: &Patch) -> Result<Value, ApiError> {
    let result = match patch {
        Patch::Json(operations) => patch::json_patch(old, operations),
        Patch::Merge(patch) => Ok(patch::merge_patch(old, patch)),
        Patch::Strategic(patch) => match Schema::of(resource.gvk()) {
            Some(message) => patch::strategic_merge(old, patch, message),
            None => Err(skep_machinery::Error::UnsupportedMediaType(format!(
                "strategic merge patch is not supported for {}",
                resource.gvk()
            ))),
        },
        Patch::Apply(_) => return Err(ApiError::bad_request("apply is not supported here")),
    };
    result.map_err(ApiError::from)
}

/// A patched object must be an object of its kind: types are checked, unknown fields dropped or refused.
pub(super) fn recheck(
    resource: &Resource,
    object: &mut Value,
    options: &WriteOptions,
) -> Result<Vec<String>, ApiError> {
    let decoded = resource.kind().recheck(object, options.field_validation)?;
    *object = decoded.object;
    Ok(decoded.warnings)
}
