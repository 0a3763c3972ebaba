//! Admission that asks authorization: nobody hands out rights they do not have, and who approves or
//! signs a certificate must be allowed to for its signer. With them what asks for other objects before it lets in.
//!
//! The gates are part of the chain before the authorizer is there (it reads the registry, which the
//! chain belongs to), so that is given to them later, once.

use std::sync::{Arc, OnceLock};

use skep_admission::{Plugin, Reader};
use skep_api::error::ApiError;
use skep_api::user::UserInfo;
use skep_auth::authorization::rbac::Rbac;
use skep_auth::authorization::{Attributes, Authorizer, MASTERS};

mod certificates;
mod devices;
mod escalation;

/// What the gates share.
#[derive(Clone)]
pub struct Gates(Arc<Shared>);

struct Shared {
    rbac: Arc<Rbac>,
    authorizer: OnceLock<Arc<dyn Authorizer>>,
}

impl Gates {
    /// Gates that measure by these roles.
    pub fn new(rbac: Arc<Rbac>) -> Self {
        Self(Arc::new(Shared { rbac, authorizer: OnceLock::new() }))
    }

    /// Names the authorizer to ask; later calls change nothing.
    pub fn ask(&self, authorizer: Arc<dyn Authorizer>) {
        if self.0.authorizer.set(authorizer).is_err() {
            tracing::warn!("the gates' authorizer is set already");
        }
    }

    /// The plug-ins, for the end of the chain.
    pub fn plugins(&self, reader: &Arc<dyn Reader>) -> Vec<Box<dyn Plugin>> {
        vec![
            Box::new(escalation::Escalation::new(self.clone(), Arc::clone(reader))),
            Box::new(certificates::Requests),
            Box::new(certificates::Verdicts::new(self.clone())),
            Box::new(devices::AdminAccess::new(Arc::clone(reader))),
        ]
    }

    /// May the user do this; members of `system:masters` may all.
    async fn may(&self, attributes: &Attributes<'_>) -> Result<bool, ApiError> {
        if is_master(attributes.user) {
            return Ok(true);
        }
        match self.0.authorizer.get() {
            Some(authorizer) => Ok(authorizer.authorize(attributes).await.allowed()),
            None => Err(ApiError::internal("authorization is not ready")),
        }
    }
}

fn is_master(user: &UserInfo) -> bool {
    user.groups.iter().any(|group| group == MASTERS)
}
