//! NodeRestriction: a node agent changes its own node and its own pods only. Which verbs a node has at
//! all is the authorizers' matter; here is what depends on the content of a request.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;

use super::forbidden;
use crate::{Access, Attributes, Operation, Plugin, Reader};

mod pod;
mod token;

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
    access: Arc<dyn Access>,
}

impl NodeRestriction {
    /// Reads pods through `reader`; `access` answers what a node may ask tokens for beyond its pods.
    pub fn new(reader: Arc<dyn Reader>, access: Arc<dyn Access>) -> Self {
        Self { reader, access }
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
        // An owner could be one that is gone: then the node would be collected, and made anew with other labels.
        for (what, path) in
            [("taints", &["spec", "taints"]), ("ownerReferences", &["metadata", "ownerReferences"])]
        {
            let list = |object: &Value| object.items(path).to_vec();
            let before = attributes.old_object.as_ref().map(list);
            let is_first = attributes.operation == Operation::Create;
            let same = match &before {
                Some(before) => *before == list(object),
                // A node begins with the taints it likes.
                None => is_first && (what == "taints" || list(object).is_empty()),
            };
            if !same && attributes.subresource.is_empty() {
                return Err(forbidden(attributes, format!("node {node:?} is not allowed to modify {what}")));
            }
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
                    | ("resource.k8s.io", "resourceslices")
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
            ("resourceslices", _) => resource_slice(attributes, node),
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

/// What a node offers is on itself.
fn resource_slice(attributes: &Attributes, node: &str) -> Result<(), ApiError> {
    let word = match attributes.operation {
        Operation::Create => "create",
        Operation::Update => "update",
        _ => "delete",
    };
    let mut objects = attributes.object.iter().chain(&attributes.old_object);
    if objects.all(|slice| slice.text(&["spec", "nodeName"]) == node) {
        return Ok(());
    }
    let why = format!("can only {word} ResourceSlice with the same NodeName as the requesting node");
    Err(forbidden(attributes, why))
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
