//! LimitPodHardAntiAffinityTopology: a pod keeps others off its own node at most, not off a whole zone.
//! Off by default.

use async_trait::async_trait;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;

use super::forbidden;
use crate::{Attributes, Operation, Plugin};

const HOST: &str = "kubernetes.io/hostname";

/// The plug-in.
pub struct LimitPodHardAntiAffinityTopology;

#[async_trait]
impl Plugin for LimitPodHardAntiAffinityTopology {
    fn name(&self) -> &'static str {
        "LimitPodHardAntiAffinityTopology"
    }

    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, subresource: &str) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
            && gvr.group.is_empty()
            && gvr.resource == "pods"
            && subresource.is_empty()
    }

    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        let Some(pod) = &attributes.object else { return Ok(()) };
        let path = ["spec", "affinity", "podAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
        match pod.items(&path).iter().find(|term| term.text(&["topologyKey"]) != HOST) {
            None => Ok(()),
            Some(term) => Err(forbidden(
                attributes,
                format!(
                    "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {} but only key {HOST} is allowed",
                    term.text(&["topologyKey"])
                ),
            )),
        }
    }
}
