//! The Node authorizer: a node reads what its own pods need, and writes what is its own.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::Value;
use skep_api::user::UserInfo;

use super::rbac::is_allowed;
use super::{Attributes, Authorizer, Decision};

pub use refers::{Referred, refers};

mod refers;

/// The pods a node has been given. Implemented over the registry's cache.
#[async_trait]
pub trait NodePods: Send + Sync + 'static {
    /// Every pod whose `spec.nodeName` is this node; of one namespace, when that is not empty. The error
    /// is for the log.
    async fn pods(&self, node: &str, namespace: &str) -> Result<Vec<Arc<Value>>, String>;
}

/// The node name of a node's user.
pub fn node_of(user: &UserInfo) -> Option<&str> {
    let node = user.name.strip_prefix("system:node:").filter(|node| !node.is_empty())?;
    user.groups.iter().any(|group| group == "system:nodes").then_some(node)
}

/// The authorizer.
pub struct Node<P> {
    pods: P,
    rules: Vec<PolicyRule>,
}

impl<P: NodePods> Node<P> {
    /// Looks pods up through `pods`.
    pub fn new(pods: P) -> Self {
        let rules = crate::bootstrap::node_rules();
        Self { pods, rules }
    }

    async fn related(&self, node: &str, what: Referred, attributes: &Attributes<'_>) -> Decision {
        // Without a name the answer would hold what other nodes' pods need.
        if attributes.name.is_empty() {
            return no(format!("node {node:?} can only read named objects of this type"));
        }
        match self.pods.pods(node, attributes.namespace).await {
            Ok(pods) if pods.iter().any(|pod| refers(pod, what, attributes.name)) => {
                Decision::Allow(format!("a pod of node {node:?} needs it"))
            }
            Ok(_) => no(format!("no relationship found between node {node:?} and this object")),
            Err(error) => {
                tracing::warn!(%error, node, "the pods of a node can't be read");
                no("the node's pods can't be read now".into())
            }
        }
    }
}

fn no(reason: String) -> Decision {
    Decision::NoOpinion(reason)
}

/// Do the fields leave only what is on this node.
fn selects_own(attributes: &Attributes<'_>, node: &str) -> bool {
    attributes.fields.iter().any(|one| one.field == "spec.nodeName" && !one.negated && one.value == node)
}

/// The endpoint slices by which a node announces its part of the cluster DNS: one for each family.
fn is_dns_slice(name: &str, node: &str) -> bool {
    let family = name.strip_prefix("kube-dns-").and_then(|rest| rest.strip_prefix(node));
    matches!(family, Some("-ipv4" | "-ipv6"))
}

fn own(attributes: &Attributes<'_>, node: &str, what: &str) -> Decision {
    // A new object's name is in its body: admission checks that.
    if attributes.verb == "create" || attributes.name == node {
        Decision::Allow(format!("node {node:?} and its own {what}"))
    } else {
        no(format!("node {node:?} can only access the {what} of its own name"))
    }
}

#[async_trait]
impl<P: NodePods> Authorizer for Node<P> {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let Some(node) = node_of(attributes.user) else { return no(String::new()) };
        let read = matches!(attributes.verb, "get" | "list" | "watch");
        let by_rules = || {
            if is_allowed(&self.rules, attributes) {
                Decision::Allow(format!("the rules of nodes allow it to {node:?}"))
            } else {
                no(String::new())
            }
        };
        if !attributes.is_resource {
            return no(String::new());
        }
        match (attributes.group, attributes.resource, attributes.subresource) {
            ("", "secrets", "") if read => self.related(node, Referred::Secret, attributes).await,
            ("", "configmaps", "") if read => self.related(node, Referred::ConfigMap, attributes).await,
            ("", "persistentvolumeclaims", "" | "status") if attributes.verb == "get" => {
                self.related(node, Referred::Claim, attributes).await
            }
            ("", "persistentvolumes", "") if attributes.verb == "get" => {
                Decision::Allow("nodes mount persistent volumes".into())
            }
            ("", "serviceaccounts", "") if attributes.verb == "get" => {
                self.related(node, Referred::ServiceAccount, attributes).await
            }
            ("", "serviceaccounts", "token") if attributes.verb == "create" => {
                self.related(node, Referred::ServiceAccount, attributes).await
            }
            ("resource.k8s.io", "resourceclaims", "") if attributes.verb == "get" => {
                self.related(node, Referred::ResourceClaim, attributes).await
            }
            ("", "secrets" | "configmaps" | "serviceaccounts", _) => {
                no(format!("node {node:?} can't do this"))
            }
            ("", "nodes", _) if !read && attributes.verb != "create" => {
                if attributes.verb != "delete" && attributes.name == node {
                    by_rules()
                } else {
                    no(format!("node {node:?} can only change itself"))
                }
            }
            ("coordination.k8s.io", "leases", "") if attributes.namespace == "kube-node-lease" => {
                own(attributes, node, "lease")
            }
            ("coordination.k8s.io", "leases", _) => no("nodes have leases in kube-node-lease only".into()),
            ("storage.k8s.io", "csinodes", "") if !matches!(attributes.verb, "list" | "watch") => {
                own(attributes, node, "CSINode")
            }
            // What a node offers; whose a slice is admission knows.
            ("resource.k8s.io", "resourceslices", "") => match attributes.verb {
                "list" | "watch" | "deletecollection" if !selects_own(attributes, node) => no(format!(
                    "can only list/watch/deletecollection resourceslices with nodeName field selector {node:?}"
                )),
                _ => Decision::Allow(format!("node {node:?} and what it offers")),
            },
            // Each node announces its own cluster DNS; admission looks at what it announces.
            ("discovery.k8s.io", "endpointslices", "") if !read && attributes.namespace == "kube-system" => {
                if attributes.verb == "create" || is_dns_slice(attributes.name, node) {
                    Decision::Allow(format!("node {node:?} announces its DNS"))
                } else {
                    no(format!("node {node:?} can only write its own endpoint slices of kube-dns"))
                }
            }
            _ => by_rules(),
        }
    }
}
