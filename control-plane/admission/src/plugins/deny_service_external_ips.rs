//! DenyServiceExternalIPs: nobody takes over an address by naming it in a service. Off by default.

use async_trait::async_trait;
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;

use super::forbidden;
use crate::{Attributes, Operation, Plugin};

/// The plug-in.
pub struct DenyServiceExternalIPs;

#[async_trait]
impl Plugin for DenyServiceExternalIPs {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, subresource: &str) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
            && gvr.group.is_empty()
            && gvr.resource == "services"
            && subresource.is_empty()
    }

    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        let addresses = |object: &Option<Value>| match object {
            Some(object) => object.items(&["spec", "externalIPs"]).to_vec(),
            None => Vec::new(),
        };
        let before = addresses(&attributes.old_object);
        // What is there may stay, and go.
        if addresses(&attributes.object).iter().all(|address| before.contains(address)) {
            return Ok(());
        }
        Err(forbidden(attributes, "Use of external IPs is denied by admission control"))
    }
}
