//! Bearer tokens that somebody else judges: a TokenReview is sent out, and its answer remembered.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use skep_api::object::ObjectExt;
use skep_api::user::UserInfo;
use skep_webhook::{Client, Endpoint};

use super::Error;
use super::bearer::{TokenVerifier, Verified};
use crate::memory::Memory;

/// One call takes no longer.
const DEADLINE: Duration = Duration::from_secs(30);
/// A call that could not be made is made so often.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

/// Asks a webhook.
pub struct WebhookTokens {
    client: Client,
    endpoint: Endpoint,
    version: String,
    memory: Memory<Option<Verified>>,
    life: Duration,
}

impl WebhookTokens {
    /// Asks `endpoint` in this version of TokenReview (`v1`); believes an answer for `life`.
    pub fn new(client: Client, endpoint: Endpoint, version: &str, life: Duration) -> Self {
        Self { client, endpoint, version: version.to_owned(), memory: Memory::default(), life }
    }

    async fn ask(&self, token: &str, audiences: &[String]) -> Result<Option<Verified>, Error> {
        let review = json!({
            "apiVersion": format!("authentication.k8s.io/{}", self.version),
            "kind": "TokenReview",
            "metadata": {},
            "spec": {"token": token, "audiences": audiences},
        });
        let mut pause = PAUSE;
        let mut tried = 1;
        let answer = loop {
            match self.client.call(&self.endpoint, &review, DEADLINE).await {
                Ok(answer) => break answer,
                Err(error) if tried < TRIES => {
                    tracing::debug!(%error, "the token webhook will be asked again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                    tried += 1;
                }
                Err(error) => return Err(Error::Unavailable(format!("the token webhook: {error}"))),
            }
        };
        if !answer.flag(&["status", "authenticated"]) {
            return match answer.text(&["status", "error"]) {
                "" => Ok(None),
                why => Err(Error::Invalid(format!("the token webhook says: {why}"))),
            };
        }
        let told = texts(answer.items(&["status", "audiences"]));
        // One that names no audiences does not know them: its tokens are the API server's.
        let audiences: Vec<String> = if told.is_empty() {
            audiences.to_vec()
        } else {
            audiences.iter().filter(|audience| told.contains(audience)).cloned().collect()
        };
        if audiences.is_empty() {
            return Err(Error::Invalid("the token webhook says the token is for other audiences".into()));
        }
        Ok(Some(Verified { user: user(&answer), audiences }))
    }
}

fn texts(list: &[Value]) -> Vec<String> {
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn user(answer: &Value) -> UserInfo {
    let groups = texts(answer.items(&["status", "user", "groups"]));
    let extra: BTreeMap<String, Vec<String>> = answer
        .map(&["status", "user", "extra"])
        .into_iter()
        .flatten()
        .map(|(key, values)| (key.clone(), texts(values.as_array().map(Vec::as_slice).unwrap_or_default())))
        .collect();
    UserInfo {
        uid: answer.text(&["status", "user", "uid"]).to_owned(),
        extra,
        ..UserInfo::new(answer.text(&["status", "user", "username"]), groups)
    }
}

#[async_trait]
impl TokenVerifier for WebhookTokens {
    async fn verify(&self, token: &str, audiences: &[String]) -> Result<Option<Verified>, Error> {
        // The memory holds no token, only what can't be turned back into one.
        let mut hash = Sha256::new();
        hash.update(token.as_bytes());
        for audience in audiences {
            hash.update([0]);
            hash.update(audience.as_bytes());
        }
        let key = hash.finalize().into();
        if let Some(known) = self.memory.get(&key) {
            return Ok(known);
        }
        let found = self.ask(token, audiences).await?;
        self.memory.put(key, found.clone(), self.life);
        Ok(found)
    }
}
