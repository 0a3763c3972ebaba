//! Decisions that somebody else makes: a SubjectAccessReview is sent out, and its answer remembered.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use skep_api::object::ObjectExt;
use skep_webhook::{Client, Endpoint};

use super::{Attributes, Authorizer, Decision};
use crate::memory::Memory;

pub use conditions::MatchConditions;

mod conditions;
mod review;

/// A call that could not be made is made so often.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(250);

/// How a webhook is asked.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// Its name, for messages.
    pub name: String,
    /// The version of SubjectAccessReview: `v1`.
    pub version: String,
    /// A yes is believed for so long.
    pub allowed_life: Duration,
    /// Anything else is believed for so long.
    pub refused_life: Duration,
    /// One call takes no longer.
    pub deadline: Duration,
    /// Refuse when it can't be asked; otherwise others decide.
    pub deny_on_failure: bool,
    /// It is asked only about requests for which these hold.
    pub conditions: MatchConditions,
}

impl Default for WebhookOptions {
    fn default() -> Self {
        Self {
            name: "webhook".to_owned(),
            version: "v1".to_owned(),
            allowed_life: Duration::from_secs(300),
            refused_life: Duration::from_secs(30),
            deadline: Duration::from_secs(30),
            deny_on_failure: false,
            conditions: MatchConditions::default(),
        }
    }
}

/// Asks a webhook.
pub struct Webhook {
    client: Client,
    endpoint: Endpoint,
    options: WebhookOptions,
    memory: Memory<Decision>,
}

impl Webhook {
    /// Asks `endpoint`.
    pub fn new(client: Client, endpoint: Endpoint, options: WebhookOptions) -> Self {
        Self { client, endpoint, options, memory: Memory::default() }
    }

    /// When no answer is to be had.
    fn on_failure(&self, reason: String) -> Decision {
        if self.options.deny_on_failure { Decision::Deny(reason) } else { Decision::NoOpinion(reason) }
    }

    async fn ask(&self, spec: &Value) -> Result<Decision, skep_webhook::Error> {
        let review = json!({
            "apiVersion": format!("authorization.k8s.io/{}", self.options.version),
            "kind": "SubjectAccessReview",
            "metadata": {},
            "spec": spec,
        });
        let mut pause = PAUSE;
        let mut tried = 1;
        let answer = loop {
            match self.client.call(&self.endpoint, &review, self.options.deadline).await {
                Ok(answer) => break answer,
                Err(error) if tried < TRIES => {
                    tracing::debug!(%error, webhook = self.options.name, "it will be asked again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                    tried += 1;
                }
                Err(error) => return Err(error),
            }
        };
        let reason = answer.text(&["status", "reason"]).to_owned();
        Ok(match (answer.flag(&["status", "allowed"]), answer.flag(&["status", "denied"])) {
            (true, true) => Decision::Deny("the webhook both allows and denies".to_owned()),
            (true, false) => Decision::Allow(reason),
            (false, true) => Decision::Deny(reason),
            (false, false) => Decision::NoOpinion(reason),
        })
    }
}

#[async_trait]
impl Authorizer for Webhook {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        match self.options.conditions.hold(attributes) {
            Ok(true) => {}
            Ok(false) => return Decision::NoOpinion(String::new()),
            Err(error) => {
                let name = &self.options.name;
                tracing::warn!(error, webhook = name, "match conditions of an authorization webhook failed");
                return self
                    .on_failure(format!("match conditions of the authorization webhook {name:?} failed"));
            }
        }
        let spec = review::spec(attributes, &self.options.version);
        let key = Sha256::digest(spec.to_string()).into();
        if let Some(decision) = self.memory.get(&key) {
            return decision;
        }
        match self.ask(&spec).await {
            Ok(decision) => {
                let options = &self.options;
                let life = if decision.allowed() { options.allowed_life } else { options.refused_life };
                self.memory.put(key, decision.clone(), life);
                decision
            }
            Err(error) => {
                tracing::warn!(%error, webhook = self.options.name, "the authorization webhook can't be asked");
                self.on_failure(format!("the authorization webhook {:?} can't be asked", self.options.name))
            }
        }
    }
}
