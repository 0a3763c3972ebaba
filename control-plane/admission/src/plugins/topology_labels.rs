//! PodTopologyLabels: a pod that gets a node learns the node's zone and region as labels.

use std::sync::Arc;

use async_trait::async_trait;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;

use super::core;
use crate::{Attributes, Operation, Plugin, Reader};

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// The plug-in.
pub struct PodTopologyLabels {
    reader: Arc<dyn Reader>,
}

impl PodTopologyLabels {
    /// Reads nodes through `reader`.
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self { reader }
    }
}

#[async_trait]
impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, subresource: &str) -> bool {
        operation == Operation::Create
            && gvr.group.is_empty()
            && gvr.resource == "pods"
            && matches!(subresource, "" | "binding")
    }

    async fn admit(&self, attributes: &mut Attributes) -> Result<(), ApiError> {
        let binding = attributes.subresource == "binding";
        let Some(object) = &mut attributes.object else { return Ok(()) };
        let path: &[&str] = if binding { &["target", "name"] } else { &["spec", "nodeName"] };
        let node = object.text(path).to_owned();
        if node.is_empty() || binding && !matches!(object.text(&["target", "kind"]), "" | "Node") {
            return Ok(());
        }
        // A node that is not there is nothing to refuse here: it may be about to register.
        let Some(node) = self.reader.get(&core("nodes"), None, &node).await? else { return Ok(()) };
        for label in LABELS {
            if let Some(value) = node.label(label) {
                object.set_label(label, value);
            }
        }
        Ok(())
    }
}
