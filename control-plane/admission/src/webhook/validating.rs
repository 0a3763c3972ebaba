//! ValidatingAdmissionWebhook: webhooks that may refuse an object, all at once.

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;
use prometheus_client::registry::Registry;
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::resource::{GroupVersionKind, GroupVersionResource};
use skep_webhook::Client;

use super::call::Caller;
use super::hooks::{Hook, Hooks};
use super::metrics::Metrics;
use super::review::Objects;
use crate::matching::Match;
use crate::{Access, Attributes, Operation, Plugin, Reader};

/// The plug-in.
pub struct ValidatingAdmissionWebhook {
    hooks: Hooks,
    caller: Caller,
}

/// The objects of a request in one version.
struct Shown {
    gvk: GroupVersionKind,
    object: Option<Value>,
    old: Option<Value>,
}

impl ValidatingAdmissionWebhook {
    /// Reads configurations through `reader` and calls webhooks through `client`; `access` answers what
    /// match conditions ask the authorizers; both plug-ins share `metrics`.
    pub fn new(reader: Arc<dyn Reader>, access: Arc<dyn Access>, client: Client, metrics: Metrics) -> Self {
        Self {
            hooks: Hooks::new(reader, access, "validatingwebhookconfigurations"),
            caller: Caller { client, metrics, mutating: false },
        }
    }

    async fn convert(
        &self,
        object: Option<&Value>,
        gvk: &GroupVersionKind,
    ) -> Result<Option<Value>, ApiError> {
        let Some(object) = object else { return Ok(None) };
        let converted = self.hooks.reader.convert(object, gvk).await;
        converted.map(Some).map_err(|error| ApiError::internal(error.message))
    }

    async fn ask(
        &self,
        attributes: &Attributes,
        at: usize,
        hook: &Hook,
        seen: &Match,
        shown: &[Shown],
    ) -> Result<(), ApiError> {
        let objects = match shown.iter().find(|shown| shown.gvk == seen.gvk) {
            Some(shown) => Objects { object: shown.object.as_ref(), old: shown.old.as_ref() },
            None => Objects { object: attributes.object.as_ref(), old: attributes.old_object.as_ref() },
        };
        let Err(failure) = self.caller.call(hook, attributes, seen, objects).await else { return Ok(()) };
        self.caller.judge(hook, failure)?;
        let key = format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{at}");
        attributes.notes.annotate(key, hook.name.as_str());
        Ok(())
    }
}

#[async_trait]
impl Plugin for ValidatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn handles(&self, operation: Operation, _: &GroupVersionResource, _: &str) -> bool {
        self.hooks.may_match(operation)
    }

    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        let mut relevant = Vec::new();
        let mut shown: Vec<Shown> = Vec::new();
        for (at, hook) in self.hooks.of(attributes).into_iter().enumerate() {
            let Some(seen) = hook.matches(attributes, &*self.hooks.reader, &*self.hooks.access).await? else {
                continue;
            };
            if seen.differs(attributes) && !shown.iter().any(|shown| shown.gvk == seen.gvk) {
                shown.push(Shown {
                    gvk: seen.gvk.clone(),
                    object: self.convert(attributes.object.as_ref(), &seen.gvk).await?,
                    old: self.convert(attributes.old_object.as_ref(), &seen.gvk).await?,
                });
            }
            relevant.push((at, hook, seen));
        }
        let calls = relevant.iter().map(|(at, hook, seen)| self.ask(attributes, *at, hook, seen, &shown));
        // All are asked, whatever one says: their warnings and annotations count.
        join_all(calls).await.into_iter().collect()
    }

    fn metrics(&self, collection: &mut Registry) {
        self.caller.metrics.register(collection);
    }
}
