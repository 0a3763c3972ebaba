//! TaintNodesByCondition: a new node takes no pods before somebody has seen that it is ready.

use async_trait::async_trait;
use serde_json::{Value, json};
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;

use crate::{Attributes, Operation, Plugin};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// The plug-in.
pub struct TaintNodesByCondition;

#[async_trait]
impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, subresource: &str) -> bool {
        operation == Operation::Create
            && gvr.group.is_empty()
            && gvr.resource == "nodes"
            && subresource.is_empty()
    }

    async fn admit(&self, attributes: &mut Attributes) -> Result<(), ApiError> {
        let Some(node) = &mut attributes.object else { return Ok(()) };
        let mut taints = node.items(&["spec", "taints"]).to_vec();
        let same =
            |taint: &Value| taint.text(&["key"]) == NOT_READY && taint.text(&["effect"]) == "NoSchedule";
        if !taints.iter().any(same) {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
            node.set(&["spec", "taints"], taints);
        }
        Ok(())
    }
}
