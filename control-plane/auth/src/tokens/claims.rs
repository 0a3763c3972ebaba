//! What a service-account token says.

use serde::{Deserialize, Serialize};

use super::TokenSpec;

/// An object by name and uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its uid.
    #[serde(default)]
    pub uid: String,
}

/// What a token lives with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A pod.
    Pod(Reference),
    /// A secret.
    Secret(Reference),
    /// A node.
    Node(Reference),
}

/// The claims.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// Audiences.
    #[serde(default)]
    pub aud: Vec<String>,
    /// Good before this.
    pub exp: u64,
    /// Made at.
    #[serde(default)]
    pub iat: u64,
    /// Issuer.
    pub iss: String,
    /// The token's own id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// The Kubernetes part.
    #[serde(rename = "kubernetes.io", default)]
    pub kubernetes: Kubernetes,
    /// Good from this.
    #[serde(default)]
    pub nbf: u64,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub sub: String,
}

/// The claim `kubernetes.io`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Kubernetes {
    /// Namespace of the account and of what it is bound to.
    pub namespace: String,
    /// The node of the pod, or the node bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// The pod bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// The secret bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// The account.
    pub serviceaccount: Reference,
}

impl Claims {
    pub(super) fn new(issuer: &str, aud: Vec<String>, now: u64, spec: &TokenSpec) -> Self {
        let mut kubernetes = Kubernetes {
            namespace: spec.namespace.clone(),
            serviceaccount: spec.account.clone(),
            node: spec.node.clone(),
            ..Kubernetes::default()
        };
        match spec.bound.clone() {
            Some(Bound::Pod(pod)) => kubernetes.pod = Some(pod),
            Some(Bound::Secret(secret)) => kubernetes.secret = Some(secret),
            Some(Bound::Node(node)) => kubernetes.node = Some(node),
            None => {}
        }
        Self {
            aud,
            exp: now + spec.life.as_secs(),
            iat: now,
            iss: issuer.to_owned(),
            jti: unique_id(),
            nbf: now,
            sub: format!("system:serviceaccount:{}:{}", spec.namespace, spec.account.name),
            kubernetes,
        }
    }
}

/// A random UUID.
fn unique_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
