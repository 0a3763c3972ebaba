//! Subresources that have the shape of their object but may change one part of it only: a namespace's
//! finalizers, a pod's ephemeral containers and resources, the approval of a signing request.

use std::sync::Arc;

use serde_json::Value;
use skep_api::error::ApiError;

use super::patch::patched;
use super::update::{Part, Proposal};
use super::{Patch, Registry, Target, WriteOptions, Written, meta};
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
        self.change(target, options, Part::Given, &mut |old: &Arc<Object>| {
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
        self.change(target, options, Part::Given, &mut |old: &Arc<Object>| {
            let sent = match patch {
                Patch::Apply(applied) => patched(&resource, &old.value, &Patch::Strategic(applied.clone()))?,
                _ => patched(&resource, &old.value, patch)?,
            };
            let object = with_part(resource.kind(), subresource, &old.value, &sent)?;
            let sent = meta::sent_revision(&sent)?;
            let revision = if sent == old.revision { 0 } else { sent };
            Ok(Proposal { object, revision, applied: false, warnings: Vec::new() })
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
        self.change(target, options, Part::Own, &mut |_| {
            Ok(Proposal { object: definition.clone(), revision, applied: false, warnings: Vec::new() })
        })
        .await
    }
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
