//! PersistentVolumeClaimResize: a claim grows only where its volume can.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::quantity::Quantity;
use skep_api::resource::GroupVersionResource;

use super::forbidden;
use crate::{Attributes, Operation, Plugin, Reader};

/// The plug-in.
pub struct PersistentVolumeClaimResize {
    reader: Arc<dyn Reader>,
}

impl PersistentVolumeClaimResize {
    /// Reads storage classes through `reader`.
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self { reader }
    }
}

fn size(claim: &Value) -> Quantity {
    claim.text(&["spec", "resources", "requests", "storage"]).parse().unwrap_or_default()
}

/// The class of a claim: the field, or the annotation that came before it.
pub(super) fn class_of(claim: &Value) -> &str {
    let old = claim.annotation("volume.beta.kubernetes.io/storage-class");
    old.unwrap_or_else(|| claim.text(&["spec", "storageClassName"]))
}

#[async_trait]
impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, subresource: &str) -> bool {
        operation == Operation::Update
            && gvr.group.is_empty()
            && gvr.resource == "persistentvolumeclaims"
            && subresource.is_empty()
    }

    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        let (Some(new), Some(old)) = (&attributes.object, &attributes.old_object) else { return Ok(()) };
        if size(new) <= size(old) {
            return Ok(());
        }
        if old.text(&["status", "phase"]) != "Bound" {
            return Err(forbidden(attributes, "Only bound persistent volume claims can be expanded"));
        }
        let class = class_of(new);
        let classes = GroupVersionResource::new("storage.k8s.io", "v1", "storageclasses");
        let found = if class.is_empty() { None } else { self.reader.get(&classes, None, class).await? };
        if found.is_some_and(|class| class.flag(&["allowVolumeExpansion"])) {
            return Ok(());
        }
        Err(forbidden(
            attributes,
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        ))
    }
}
