//! Bearer tokens: several verifiers behind one authenticator, with a short memory of what was verified.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use skep_api::user::UserInfo;
use tokio::time::Instant;

use super::{Authenticator, Credentials, Error};

/// How long a verified token is believed without looking again.
const MEMORY: Duration = Duration::from_secs(10);
/// No more tokens than this are remembered.
const REMEMBERED: usize = 4096;
/// Tokens longer than this are refused unread.
const MAX_TOKEN: usize = 16 << 10;

/// A token that proved good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Whose it is.
    pub user: UserInfo,
    /// For which of the wanted audiences it is good.
    pub audiences: Vec<String>,
}

/// Verifies one kind of token.
#[async_trait]
pub trait TokenVerifier: Send + Sync + 'static {
    /// `None`: not a token of this kind. `audiences`: it must be meant for one of these.
    async fn verify(&self, token: &str, audiences: &[String]) -> Result<Option<Verified>, Error>;

    /// Do its tokens say whom they are for. Others are for the API server, whatever they are asked.
    fn knows_audiences(&self) -> bool {
        true
    }
}

/// Authenticates by bearer token.
pub struct Bearer {
    verifiers: Vec<Arc<dyn TokenVerifier>>,
    audiences: Vec<String>,
    // Held for map operations only, never across an await.
    memory: Mutex<HashMap<[u8; 32], (Instant, Verified)>>,
}

impl Bearer {
    /// Asks these verifiers in turn; `audiences` are those of the API server itself.
    pub fn new(verifiers: Vec<Arc<dyn TokenVerifier>>, audiences: Vec<String>) -> Self {
        Self { verifiers, audiences, memory: Mutex::new(HashMap::new()) }
    }

    /// Looks at every token anew from now on.
    pub fn forget(&self) {
        self.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
    }

    /// The API server's audiences.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Verifies a token for audiences; empty ones mean the API server's.
    pub async fn verify(&self, token: &str, audiences: &[String]) -> Result<Option<Verified>, Error> {
        if token.len() > MAX_TOKEN {
            return Err(Error::Invalid("the token is too long".into()));
        }
        let audiences = if audiences.is_empty() { &self.audiences } else { audiences };
        let id = fingerprint(token, audiences);
        if let Some(verified) = self.remembered(&id) {
            return Ok(Some(verified));
        }
        let mut failure = None;
        for verifier in &self.verifiers {
            match verifier.verify(token, audiences).await {
                Ok(Some(mut verified)) => {
                    if !verifier.knows_audiences() {
                        verified.audiences =
                            audiences.iter().filter(|a| self.audiences.contains(a)).cloned().collect();
                        if verified.audiences.is_empty() && !self.audiences.is_empty() {
                            continue;
                        }
                    }
                    self.remember(id, &verified);
                    return Ok(Some(verified));
                }
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(None), Err)
    }

    fn remembered(&self, id: &[u8; 32]) -> Option<Verified> {
        let memory = self.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        memory.get(id).filter(|(since, _)| since.elapsed() < MEMORY).map(|(_, verified)| verified.clone())
    }

    fn remember(&self, id: [u8; 32], verified: &Verified) {
        let mut memory = self.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if memory.len() >= REMEMBERED {
            memory.retain(|_, (since, _)| since.elapsed() < MEMORY);
        }
        if memory.len() < REMEMBERED {
            memory.insert(id, (Instant::now(), verified.clone()));
        }
    }
}

/// Memory holds no token, only what can't be turned back into one.
fn fingerprint(token: &str, audiences: &[String]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(token.as_bytes());
    for audience in audiences {
        hash.update([0]);
        hash.update(audience.as_bytes());
    }
    hash.finalize().into()
}

#[async_trait]
impl Authenticator for Bearer {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<UserInfo>, Error> {
        let Some(token) = credentials.bearer() else { return Ok(None) };
        match self.verify(&token, &[]).await? {
            Some(verified) => Ok(Some(verified.user)),
            None => Err(Error::Invalid("no verifier knows the token".into())),
        }
    }
}

#[async_trait]
impl Authenticator for Arc<Bearer> {
    async fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Option<UserInfo>, Error> {
        self.as_ref().authenticate(credentials).await
    }
}
