//! Decisions that somebody else makes: a SubjectAccessReview is sent out, and its answer remembered.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use skep_api::object::ObjectExt;
use skep_webhook::{Client, Endpoint};

use super::{Attributes, Authorizer, Decision};
use crate::memory::Memory;

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

/// The `spec` of a SubjectAccessReview.
fn spec(attributes: &Attributes<'_>) -> Value {
    let user = attributes.user;
    let mut spec = json!({});
    let mut put = |key: &str, value: Value, empty: bool| {
        if !empty {
            spec[key] = value;
        }
    };
    put("user", json!(user.name), user.name.is_empty());
    put("uid", json!(user.uid), user.uid.is_empty());
    put("groups", json!(user.groups), user.groups.is_empty());
    put("extra", json!(user.extra), user.extra.is_empty());
    if !attributes.is_resource {
        spec["nonResourceAttributes"] = json!({"path": attributes.path, "verb": attributes.verb});
        return spec;
    }
    let mut resource = json!({"verb": attributes.verb, "resource": attributes.resource});
    for (key, text) in [
        ("group", attributes.group),
        ("version", attributes.version),
        ("subresource", attributes.subresource),
        ("namespace", attributes.namespace),
        ("name", attributes.name),
    ] {
        if !text.is_empty() {
            resource[key] = text.into();
        }
    }
    spec["resourceAttributes"] = resource;
    spec
}

impl Webhook {
    /// Asks `endpoint`.
    pub fn new(client: Client, endpoint: Endpoint, options: WebhookOptions) -> Self {
        Self { client, endpoint, options, memory: Memory::default() }
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
        let spec = spec(attributes);
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
                let reason = format!("the authorization webhook {:?} can't be asked", self.options.name);
                if self.options.deny_on_failure {
                    Decision::Deny(reason)
                } else {
                    Decision::NoOpinion(reason)
                }
            }
        }
    }
}
