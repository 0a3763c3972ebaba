//! ExtendedResourceToleration: a pod that asks for a special resource tolerates the taint that keeps
//! others off the nodes that have it. Off by default.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde_json::{Value, json};
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;

use crate::{Attributes, Operation, Plugin};

/// The plug-in.
pub struct ExtendedResourceToleration;

#[async_trait]
impl Plugin for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, subresource: &str) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
            && gvr.group.is_empty()
            && gvr.resource == "pods"
            && subresource.is_empty()
    }

    async fn admit(&self, attributes: &mut Attributes) -> Result<(), ApiError> {
        let Some(pod) = &mut attributes.object else { return Ok(()) };
        let lists = ["initContainers", "containers"].iter().flat_map(|list| pod.items(&["spec", list]));
        let requests =
            lists.flat_map(|container| container.map(&["resources", "requests"]).into_iter().flatten());
        let names: BTreeSet<String> =
            requests.map(|(name, _)| name.clone()).filter(|name| is_extended(name)).collect();
        let mut tolerations = pod.items(&["spec", "tolerations"]).to_vec();
        for name in &names {
            let toleration = json!({"key": name, "operator": "Exists", "effect": ""});
            let same = |known: &Value| {
                known.text(&["key"]) == name
                    && known.text(&["operator"]) == "Exists"
                    && known.text(&["effect"]).is_empty()
            };
            if !tolerations.iter().any(same) {
                let mut toleration = toleration;
                toleration.unset(&["effect"]);
                tolerations.push(toleration);
            }
        }
        if !names.is_empty() {
            pod.set(&["spec", "tolerations"], tolerations);
        }
        Ok(())
    }
}

/// Is it a resource that is not Kubernetes' own?
fn is_extended(name: &str) -> bool {
    let Some((domain, _)) = name.split_once('/') else { return false };
    domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io") && !name.starts_with("requests.")
}
