//! AlwaysPullImages: every container pulls its image, so that nobody runs a private image just because
//! it lies on the node. Off by default.

use async_trait::async_trait;
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;

use super::{forbidden, join};
use crate::{Attributes, Operation, Plugin};

/// The plug-in.
pub struct AlwaysPullImages;

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

#[async_trait]
impl Plugin for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, subresource: &str) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
            && gvr.group.is_empty()
            && gvr.resource == "pods"
            && matches!(subresource, "" | "ephemeralcontainers")
    }

    async fn admit(&self, attributes: &mut Attributes) -> Result<(), ApiError> {
        if is_untouched(attributes) {
            return Ok(());
        }
        let Some(pod) = &mut attributes.object else { return Ok(()) };
        for list in LISTS {
            let mut containers = pod.items(&["spec", list]).to_vec();
            if containers.is_empty() {
                continue;
            }
            for container in &mut containers {
                container.set(&["imagePullPolicy"], "Always");
            }
            pod.set(&["spec", list], containers);
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        let Some(pod) = attributes.object.as_ref().filter(|_| !is_untouched(attributes)) else {
            return Ok(());
        };
        let mut complaints = Vec::new();
        for list in LISTS {
            for (at, container) in pod.items(&["spec", list]).iter().enumerate() {
                let policy = container.text(&["imagePullPolicy"]);
                if policy != "Always" {
                    complaints.push(format!(
                        "spec.{list}[{at}].imagePullPolicy: Unsupported value: {policy:?}: supported values: \"Always\""
                    ));
                }
            }
        }
        if complaints.is_empty() { Ok(()) } else { Err(forbidden(attributes, join(&complaints))) }
    }
}

/// An update that brings no new image changes nothing about pulling.
fn is_untouched(attributes: &Attributes) -> bool {
    let (Some(new), Some(old)) = (&attributes.object, &attributes.old_object) else { return false };
    let images = |pod: &Value| -> Vec<String> {
        let lists = LISTS.iter().flat_map(|list| pod.items(&["spec", list]));
        lists.map(|container| container.text(&["image"]).to_owned()).collect()
    };
    let before = images(old);
    images(new).iter().all(|image| before.contains(image))
}
