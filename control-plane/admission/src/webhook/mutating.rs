//! MutatingAdmissionWebhook: webhooks that may change an object, one after the other.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use skep_api::error::ApiError;
use skep_api::resource::{GroupVersionKind, GroupVersionResource};
use skep_machinery::patch::json_patch;
use skep_webhook::Client;

use super::call::{Caller, Failure};
use super::hooks::{Hook, Hooks};
use super::metrics::Metrics;
use super::review::Objects;
use crate::matching::Match;
use crate::{Access, Attributes, Operation, Plugin, Reader};

const NAME: &str = "MutatingAdmissionWebhook";

/// The plug-in.
pub struct MutatingAdmissionWebhook {
    hooks: Hooks,
    caller: Caller,
}

impl MutatingAdmissionWebhook {
    /// Reads configurations through `reader` and calls webhooks through `client`; `access` answers what
    /// match conditions ask the authorizers; both plug-ins share `metrics`.
    pub fn new(reader: Arc<dyn Reader>, access: Arc<dyn Access>, client: Client, metrics: Metrics) -> Self {
        Self {
            hooks: Hooks::new(reader, access, "mutatingwebhookconfigurations"),
            caller: Caller { client, metrics, mutating: true },
        }
    }

    fn reader(&self) -> &dyn Reader {
        &*self.hooks.reader
    }

    async fn run(&self, attributes: &mut Attributes, hooks: &[Arc<Hook>]) -> Result<(), ApiError> {
        for (at, hook) in hooks.iter().enumerate() {
            let Some(seen) = hook.matches(attributes, self.reader(), &*self.hooks.access).await? else {
                continue;
            };
            if !attributes.reinvocation.is_due(NAME, &hook.id) {
                continue;
            }
            let round = attributes.reinvocation.round();
            let called = self.call(attributes, hook, &seen).await;
            let changed = *called.as_ref().unwrap_or(&false);
            note(attributes, hook, round, at, changed);
            attributes.reinvocation.called(NAME, &hook.id, changed, hook.again);
            if let Err(failure) = called {
                self.caller.judge(hook, failure)?;
                let key = format!("failed-open.mutation.webhook.admission.k8s.io/round_{round}_index_{at}");
                attributes.notes.annotate(key, hook.name.as_str());
            }
        }
        Ok(())
    }

    /// Asks one webhook and does what it says; returns whether that changed the object.
    async fn call(&self, attributes: &mut Attributes, hook: &Hook, seen: &Match) -> Result<bool, Failure> {
        let object = self.shown(attributes.object.as_ref(), attributes, seen).await?;
        let old = self.shown(attributes.old_object.as_ref(), attributes, seen).await?;
        let objects = Objects { object: object.as_deref(), old: old.as_deref() };
        let verdict = self.caller.call(hook, attributes, seen, objects).await?;
        let Some(patch) = verdict.patch.filter(|patch| !is_empty(patch)) else { return Ok(false) };
        let refused = |error: &dyn std::fmt::Display| Failure::Refused(ApiError::internal(error));
        let Some(object) = object else {
            return Err(refused(&format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                hook.name
            )));
        };
        let patched = json_patch(&object, &patch).map_err(|error| refused(&error))?;
        // Defaults and pruning at once: the next webhook sees an object as it would be stored.
        let patched = self.settle(attributes, &seen.gvk, patched).await?;
        let changed = patched != *object;
        let patched = if seen.differs(attributes) {
            let back = self.reader().convert(&patched, &attributes.gvk).await.map_err(Failure::Refused)?;
            self.settle(attributes, &attributes.gvk, back).await?
        } else {
            patched
        };
        attributes.object = Some(patched);
        Ok(changed)
    }

    async fn settle(
        &self,
        attributes: &Attributes,
        gvk: &GroupVersionKind,
        object: Value,
    ) -> Result<Value, Failure> {
        let settled = self.reader().settle(&attributes.gvr, gvk, object).await;
        settled.map_err(|error| Failure::Refused(ApiError::internal(error.message)))
    }

    /// An object in the version the webhook wants.
    async fn shown<'a>(
        &self,
        object: Option<&'a Value>,
        attributes: &Attributes,
        seen: &Match,
    ) -> Result<Option<Cow<'a, Value>>, Failure> {
        match object {
            Some(object) if seen.differs(attributes) => {
                let converted = self.reader().convert(object, &seen.gvk).await;
                let converted =
                    converted.map_err(|error| Failure::Refused(ApiError::internal(error.message)))?;
                Ok(Some(Cow::Owned(converted)))
            }
            other => Ok(other.map(Cow::Borrowed)),
        }
    }
}

/// `[]` and `null` change nothing.
fn is_empty(patch: &[u8]) -> bool {
    match serde_json::from_slice::<Value>(patch) {
        Ok(Value::Array(operations)) => operations.is_empty(),
        Ok(Value::Null) => true,
        _ => false,
    }
}

fn note(attributes: &Attributes, hook: &Hook, round: u8, at: usize, changed: bool) {
    let key = format!("mutation.webhook.admission.k8s.io/round_{round}_index_{at}");
    let value = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": changed});
    attributes.notes.annotate(key, value.to_string());
}

#[async_trait]
impl Plugin for MutatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, operation: Operation, _: &GroupVersionResource, _: &str) -> bool {
        self.hooks.may_match(operation)
    }

    async fn admit(&self, attributes: &mut Attributes) -> Result<(), ApiError> {
        let hooks = self.hooks.of(attributes);
        if hooks.is_empty() {
            return Ok(());
        }
        attributes.reinvocation.begin(NAME, attributes.object.as_ref());
        let outcome = self.run(attributes, &hooks).await;
        attributes.reinvocation.end(NAME, attributes.object.as_ref());
        outcome
    }

    fn metrics(&self, collection: &mut Registry) {
        self.caller.metrics.register(collection);
    }
}
