//! Bearers of bootstrap tokens: machines that are about to join.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use skep_api::user::UserInfo;

use super::bearer::{TokenVerifier, Verified};
use super::{Error, secret};
use crate::bootstrap_token::{GROUP, SECRET_PREFIX, Stored, Token, is_bootstrap_group};

/// Reads Secrets. Implemented over the registry's cache.
#[async_trait]
pub trait Secrets: Send + Sync + 'static {
    /// A Secret, `None` when there is none. The error is for the log.
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Value>>, String>;
}

/// Verifies bootstrap tokens.
pub struct BootstrapTokens<S>(S);

impl<S: Secrets> BootstrapTokens<S> {
    /// Looks tokens up through `secrets`.
    pub fn new(secrets: S) -> Self {
        Self(secrets)
    }
}

#[async_trait]
impl<S: Secrets> TokenVerifier for BootstrapTokens<S> {
    async fn verify(&self, token: &str, audiences: &[String]) -> Result<Option<Verified>, Error> {
        let Some(given) = Token::parse(token) else { return Ok(None) };
        let name = format!("{SECRET_PREFIX}{}", given.id);
        let found = self.0.secret("kube-system", &name).await.map_err(Error::Unavailable)?;
        let Some(stored) = found.as_deref().and_then(Stored::read) else { return Ok(None) };
        if !secret::equal(&stored.token.secret, &given.secret) {
            return Ok(None);
        }
        let wrong = |why: &str| Error::Invalid(format!("bootstrap token {}: {why}", given.id));
        if stored.expired(jiff::Timestamp::now()) {
            return Err(wrong("it has expired"));
        }
        if !stored.authentication {
            return Err(wrong("it is not for authentication"));
        }
        if !stored.groups.iter().all(|group| group == GROUP || is_bootstrap_group(group)) {
            return Err(wrong("it names a group that is none of bootstrappers"));
        }
        let user = UserInfo::new(format!("system:bootstrap:{}", given.id), stored.groups);
        Ok(Some(Verified { user, audiences: audiences.to_vec() }))
    }

    fn knows_audiences(&self) -> bool {
        false
    }
}
