//! Asking the authorizers: for plug-ins that tie what an object says to what its author may do.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use skep_api::user::UserInfo;

/// What somebody wants to do: something to a resource, or to a path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Question<'a> {
    /// The verb.
    pub verb: &'a str,
    /// API group, empty for core.
    pub group: &'a str,
    /// API version; empty for any.
    pub version: &'a str,
    /// The resource; empty when it is about a path.
    pub resource: &'a str,
    /// The subresource, empty for none.
    pub subresource: &'a str,
    /// The namespace, empty for all or none.
    pub namespace: &'a str,
    /// The name, empty for all.
    pub name: &'a str,
    /// The path, where it is no resource.
    pub path: &'a str,
    /// A field selector that narrows it; empty for none. One that can't be read narrows nothing.
    pub fields: &'a str,
    /// A label selector that narrows it.
    pub labels: &'a str,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// They may.
    pub allowed: bool,
    /// Why, or why not; may be empty.
    pub reason: String,
}

/// Knows who may do what.
#[async_trait]
pub trait Access: Send + Sync + 'static {
    /// May the user do it?
    async fn may(&self, user: &UserInfo, question: Question<'_>) -> Answer;
}

/// An [`Access`] that is filled in later: authorizers read the registry, which is built with its plug-ins.
/// Until then nobody may do anything.
#[derive(Clone, Default)]
pub struct LateAccess(Arc<OnceLock<Arc<dyn Access>>>);

impl LateAccess {
    /// Fills it in; only the first counts.
    pub fn set(&self, access: Arc<dyn Access>) {
        if self.0.set(access).is_err() {
            tracing::warn!("the authorizers of admission were set twice");
        }
    }
}

#[async_trait]
impl Access for LateAccess {
    async fn may(&self, user: &UserInfo, question: Question<'_>) -> Answer {
        match self.0.get() {
            Some(access) => access.may(user, question).await,
            None => Answer { allowed: false, reason: "the authorizers are not ready".to_owned() },
        }
    }
}
