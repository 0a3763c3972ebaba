//! May this user do this? Authorizers and their union.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use skep_api::selector::{FieldRequirement, Requirement};
use skep_api::user::UserInfo;

pub mod abac;
pub mod node;
pub mod rbac;
pub mod webhook;

/// What a request wants to do.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: &'a UserInfo,
    /// `get`, `list`, `create`, ...; the lower-case HTTP method for paths.
    pub verb: &'a str,
    /// API group, empty for core.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Plural resource name.
    pub resource: &'a str,
    /// Subresource, empty for none.
    pub subresource: &'a str,
    /// Namespace, empty for cluster scope and across all namespaces.
    pub namespace: &'a str,
    /// Object name, empty when the request names none.
    pub name: &'a str,
    /// URL path of a request that is not for a resource.
    pub path: &'a str,
    /// Is it for a resource (or for a path).
    pub is_resource: bool,
    /// What the fields of the objects it lists, watches or deletes are limited to (KEP-4601). They only
    /// narrow a request, so that an authorizer may look past them.
    pub fields: &'a [FieldRequirement],
    /// The same of labels.
    pub labels: &'a [Requirement],
}

impl<'a> Attributes<'a> {
    /// A request for a path outside the resources.
    pub fn for_path(user: &'a UserInfo, verb: &'a str, path: &'a str) -> Self {
        Self {
            user,
            verb,
            group: "",
            version: "",
            resource: "",
            subresource: "",
            namespace: "",
            name: "",
            path,
            is_resource: false,
            fields: &[],
            labels: &[],
        }
    }

    /// A request for a resource of a group; narrow it with struct update.
    pub fn for_resource(user: &'a UserInfo, verb: &'a str, group: &'a str, resource: &'a str) -> Self {
        Self { group, resource, is_resource: true, ..Self::for_path(user, verb, "") }
    }
}

/// What an authorizer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, and why.
    Allow(String),
    /// No, whatever others say.
    Deny(String),
    /// This authorizer has nothing to say; the next one is asked. After the last one it means no.
    NoOpinion(String),
}

impl Decision {
    /// Is it a yes.
    pub fn allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }

    /// The words that go with it.
    pub fn reason(&self) -> &str {
        match self {
            Self::Allow(reason) | Self::Deny(reason) | Self::NoOpinion(reason) => reason,
        }
    }
}

/// Decides about requests.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// Decides about one request.
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision;
}

/// Asks several in turn; the first that has an opinion decides. Members of `system:masters` are always
/// allowed, so that a broken policy can be repaired.
pub struct Union(Vec<Box<dyn Authorizer>>);

impl Union {
    /// Asks these, in this order.
    pub fn new(authorizers: Vec<Box<dyn Authorizer>>) -> Self {
        Self(authorizers)
    }
}

/// The group no authorizer restricts.
pub const MASTERS: &str = "system:masters";

#[async_trait]
impl Authorizer for Union {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.groups.iter().any(|group| group == MASTERS) {
            return Decision::Allow(format!("member of {MASTERS}"));
        }
        let mut reasons = Vec::new();
        for authorizer in &self.0 {
            match authorizer.authorize(attributes).await {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decision => return decision,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }
}

/// A union that can be exchanged while requests are decided: each is decided by one of them as a whole.
pub struct Live(ArcSwap<Union>);

impl Live {
    /// Begins with this one.
    pub fn new(union: Union) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(union)))
    }

    /// Decides by this one from now on.
    pub fn replace(&self, union: Union) {
        self.0.store(Arc::new(union));
    }
}

#[async_trait]
impl Authorizer for Live {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let union = self.0.load_full();
        union.authorize(attributes).await
    }
}

/// Allows everything: for a plain loopback port and for tests.
pub struct AlwaysAllow;

#[async_trait]
impl Authorizer for AlwaysAllow {
    async fn authorize(&self, _: &Attributes<'_>) -> Decision {
        Decision::Allow(String::new())
    }
}

/// Refuses everything that nobody before it has allowed.
pub struct AlwaysDeny;

#[async_trait]
impl Authorizer for AlwaysDeny {
    async fn authorize(&self, _: &Attributes<'_>) -> Decision {
        Decision::NoOpinion("Everything is forbidden.".to_owned())
    }
}
