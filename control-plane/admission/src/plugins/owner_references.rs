//! OwnerReferencesPermissionEnforcement: who sets owners must be allowed to delete the object, and who
//! blocks an owner's deletion must be allowed to hold it. Off by default.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::{GroupVersionKind, GroupVersionResource};

use super::forbidden;
use crate::{Access, Attributes, Operation, Plugin, Question, Reader};

/// The plug-in.
pub struct OwnerReferencesPermissionEnforcement {
    reader: Arc<dyn Reader>,
    access: Arc<dyn Access>,
}

impl OwnerReferencesPermissionEnforcement {
    /// Asks `access`; learns through `reader` which resource a kind is.
    pub fn new(reader: Arc<dyn Reader>, access: Arc<dyn Access>) -> Self {
        Self { reader, access }
    }

    async fn may_delete(&self, attributes: &Attributes) -> bool {
        let question = Question {
            verb: "delete",
            group: &attributes.gvr.group,
            version: &attributes.gvr.version,
            resource: &attributes.gvr.resource,
            subresource: &attributes.subresource,
            namespace: &attributes.namespace,
            name: &attributes.name,
            ..Question::default()
        };
        self.access.may(&attributes.user, question).await.allowed
    }
}

fn owners(object: Option<&Value>) -> &[Value] {
    object.map_or(&[], |object| object.items(&["metadata", "ownerReferences"]))
}

/// The references that begin to block their owner's deletion.
fn newly_blocking<'a>(new: &'a [Value], old: &[Value]) -> Vec<&'a Value> {
    let blocks = |reference: &Value| reference.flag(&["blockOwnerDeletion"]);
    let before = |uid: &str| old.iter().any(|reference| reference.text(&["uid"]) == uid && blocks(reference));
    new.iter().filter(|reference| blocks(reference) && !before(reference.text(&["uid"]))).collect()
}

#[async_trait]
impl Plugin for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn handles(&self, operation: Operation, _: &GroupVersionResource, subresource: &str) -> bool {
        matches!(operation, Operation::Create | Operation::Update) && subresource != "status"
    }

    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        let (new, old) = (owners(attributes.object.as_ref()), owners(attributes.old_object.as_ref()));
        if new == old {
            return Ok(());
        }
        // On create somebody who can't delete gains nothing: the object is new.
        if attributes.operation != Operation::Create && !self.may_delete(attributes).await {
            let why = "cannot set an ownerRef on a resource you can't delete: ";
            return Err(forbidden(attributes, why));
        }
        for reference in newly_blocking(new, old) {
            let gvk = GroupVersionKind::from_api_version(
                reference.text(&["apiVersion"]),
                reference.text(&["kind"]),
            );
            let cannot = |why: &str| {
                forbidden(
                    attributes,
                    format!(
                        "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {why}"
                    ),
                )
            };
            let Some(gvr) = self.reader.resource_of(&gvk) else {
                return Err(cannot(&format!("no RESTMapping found for {gvk}")));
            };
            let question = Question {
                verb: "update",
                group: &gvr.group,
                version: &gvr.version,
                resource: &gvr.resource,
                subresource: "finalizers",
                namespace: &attributes.namespace,
                name: reference.text(&["name"]),
                ..Question::default()
            };
            let answer = self.access.may(&attributes.user, question).await;
            if !answer.allowed {
                return Err(cannot(&answer.reason));
            }
        }
        Ok(())
    }
}
