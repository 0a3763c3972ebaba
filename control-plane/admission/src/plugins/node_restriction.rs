//! NodeRestriction: a node agent changes its own node and its own pods only. Which verbs a node has at
//! all is the authorizers' matter; here is what depends on the content of a request.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;

use super::{core, forbidden};
use crate::{Attributes, Operation, Plugin, Reader};

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Labels in the protected domains that a node may set on itself.
const OWN_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// The plug-in.
pub struct NodeRestriction {
    reader: Arc<dyn Reader>,
}

impl NodeRestriction {
    /// Reads pods through `reader`.
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self { reader }
    }

    fn node(&self, attributes: &Attributes, node: &str) -> Result<(), ApiError> {
        let named = attributes.object.as_ref().map_or(attributes.name.as_str(), |object| object.name());
        let named = if attributes.name.is_empty() { named } else { &attributes.name };
        if named != node {
            let why = format!("node {node:?} is not allowed to modify node {named:?}");
            return Err(forbidden(attributes, why));
        }
        let Some(object) = &attributes.object else { return Ok(()) };
        let changed = changed_labels(object, attributes.old_object.as_ref());
        let mut refused: Vec<&str> = changed.into_iter().filter(|label| !may_label(label)).collect();
        if !refused.is_empty() {
            refused.sort_unstable();
            let why = format!("is not allowed to modify labels: {}", refused.join(", "));
            return Err(forbidden(attributes, why));
        }
        if attributes.operation == Operation::Update && attributes.subresource.is_empty() {
            let taints = |object: &Value| object.items(&["spec", "taints"]).to_vec();
            if attributes.old_object.as_ref().is_some_and(|old| taints(old) != taints(object)) {
                return Err(forbidden(attributes, format!("node {node:?} is not allowed to modify taints")));
            }
        }
        Ok(())
    }

    async fn pod(&self, attributes: &Attributes, node: &str) -> Result<(), ApiError> {
        match (attributes.operation, attributes.subresource.as_str()) {
            (Operation::Create, "") => {
                let Some(pod) = &attributes.object else { return Ok(()) };
                if pod.annotation(MIRROR).is_none() {
                    let why = format!(
                        "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
                    );
                    return Err(forbidden(attributes, why));
                }
                own_pod(attributes, pod, node)
            }
            (Operation::Delete, "") | (Operation::Update, "status") => match &attributes.old_object {
                Some(pod) => own_pod(attributes, pod, node),
                None => self.stored_pod(attributes, &attributes.name, node).await,
            },
            (Operation::Create, "eviction") => self.stored_pod(attributes, &attributes.name, node).await,
            _ => Err(forbidden(attributes, format!("node {node:?} may not change a pod this way"))),
        }
    }

    async fn stored_pod(&self, attributes: &Attributes, name: &str, node: &str) -> Result<(), ApiError> {
        match self.reader.get(&core("pods"), Some(&attributes.namespace), name).await? {
            Some(pod) => own_pod(attributes, &pod, node),
            None => Err(ApiError::not_found(&core("pods"), name)),
        }
    }

    async fn token(&self, attributes: &Attributes, node: &str) -> Result<(), ApiError> {
        let Some(request) = &attributes.object else { return Ok(()) };
        let bound = ["spec", "boundObjectRef"];
        let reference = request.at(&bound).filter(|value| !value.is_null());
        let Some(reference) = reference.filter(|reference| reference.text(&["kind"]) == "Pod") else {
            return Err(forbidden(attributes, "node requested token not bound to a pod"));
        };
        let (name, uid) = (reference.text(&["name"]), reference.text(&["uid"]));
        if uid.is_empty() {
            return Err(forbidden(attributes, "node requested token with a pod binding without a uid"));
        }
        let Some(pod) = self.reader.get(&core("pods"), Some(&attributes.namespace), name).await? else {
            return Err(ApiError::not_found(&core("pods"), name));
        };
        if pod.uid() != uid {
            let why =
                format!("the UID in the bound object reference ({uid}) does not match the UID in record");
            return Err(forbidden(attributes, why));
        }
        if pod.text(&["spec", "nodeName"]) != node {
            return Err(forbidden(
                attributes,
                "node requested token bound to a pod scheduled on a different node",
            ));
        }
        if pod.text(&["spec", "serviceAccountName"]) != attributes.name {
            return Err(forbidden(
                attributes,
                "node requested token for a service account the pod does not use",
            ));
        }
        Ok(())
    }
}

#[async_trait]
impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, operation: Operation, gvr: &GroupVersionResource, _: &str) -> bool {
        operation != Operation::Connect
            && matches!(
                (gvr.group.as_str(), gvr.resource.as_str()),
                ("", "nodes" | "pods" | "serviceaccounts")
                    | ("coordination.k8s.io", "leases")
                    | ("storage.k8s.io", "csinodes")
                    | ("discovery.k8s.io", "endpointslices")
            )
    }

    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        if !attributes.user.groups.iter().any(|group| group == "system:nodes") {
            return Ok(());
        }
        let Some(node) = attributes.user.name.strip_prefix("system:node:").filter(|node| !node.is_empty())
        else {
            return Err(forbidden(attributes, "could not determine node identity from user"));
        };
        match (attributes.gvr.resource.as_str(), attributes.subresource.as_str()) {
            ("nodes", _) => self.node(attributes, node),
            ("pods", _) => self.pod(attributes, node).await,
            ("serviceaccounts", "token") => self.token(attributes, node).await,
            ("leases", _) if attributes.namespace == "kube-node-lease" => own_name(attributes, node, "lease"),
            ("leases", _) => Err(forbidden(
                attributes,
                "can only access leases in the \"kube-node-lease\" system namespace",
            )),
            ("endpointslices", _) => dns_slice(attributes, node),
            ("csinodes", _) => own_name(attributes, node, "CSINode"),
            _ => Ok(()),
        }
    }
}

fn own_name(attributes: &Attributes, node: &str, what: &str) -> Result<(), ApiError> {
    let named = attributes.object.as_ref().map_or(attributes.name.as_str(), |object| object.name());
    if named == node {
        Ok(())
    } else {
        Err(forbidden(
            attributes,
            format!("can only access {what} with the same name as the requesting node"),
        ))
    }
}

/// A node announces its own part of the cluster DNS, and no other service or node.
fn dns_slice(attributes: &Attributes, node: &str) -> Result<(), ApiError> {
    let Some(slice) = attributes.object.as_ref().or(attributes.old_object.as_ref()) else { return Ok(()) };
    let family = slice.name().strip_prefix("kube-dns-").and_then(|rest| rest.strip_prefix(node));
    let own = matches!(family, Some("-ipv4" | "-ipv6"))
        && attributes.namespace == "kube-system"
        && slice.label("kubernetes.io/service-name") == Some("kube-dns")
        && slice.items(&["endpoints"]).iter().all(|endpoint| endpoint.text(&["nodeName"]) == node);
    if own {
        Ok(())
    } else {
        Err(forbidden(
            attributes,
            format!("node {node:?} can only write its own endpoint slices of kube-dns"),
        ))
    }
}

fn own_pod(attributes: &Attributes, pod: &Value, node: &str) -> Result<(), ApiError> {
    if pod.text(&["spec", "nodeName"]) == node {
        Ok(())
    } else {
        Err(forbidden(
            attributes,
            format!("node {node:?} can only act on pods with spec.nodeName set to itself"),
        ))
    }
}

fn changed_labels<'a>(new: &'a Value, old: Option<&'a Value>) -> Vec<&'a str> {
    let label = |object: Option<&'a Value>, key: &str| object.and_then(|object| object.label(key));
    let keys = |object: Option<&'a Value>| {
        object.and_then(ObjectExt::labels).into_iter().flatten().map(|(key, _)| key.as_str())
    };
    let mut changed: Vec<&str> =
        keys(Some(new)).chain(keys(old)).filter(|key| label(Some(new), key) != label(old, key)).collect();
    changed.sort_unstable();
    changed.dedup();
    changed
}

/// Outside the `kubernetes.io` and `k8s.io` domains a node may label itself as it likes.
fn may_label(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return true };
    let within = |parent: &str| {
        domain == parent || domain.strip_suffix(parent).is_some_and(|front| front.ends_with('.'))
    };
    if within("node-restriction.kubernetes.io") {
        return false;
    }
    if !within("kubernetes.io") && !within("k8s.io") {
        return true;
    }
    OWN_LABELS.contains(&label) || within("kubelet.kubernetes.io") || within("node.kubernetes.io")
}
