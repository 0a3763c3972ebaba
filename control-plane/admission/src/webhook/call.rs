//! One call of one webhook.

use bytes::Bytes;
use skep_api::error::ApiError;
use skep_webhook::{Client, DEFAULT_LIMIT};
use tokio::time::Instant;

use super::hooks::Hook;
use super::metrics::{Metrics, Outcome};
use super::review::{self, Objects, Verdict};
use crate::Attributes;
use crate::matching::Match;

/// Why a webhook does not let a request pass.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It could not be asked; its failure policy decides.
    #[error("failed calling webhook {webhook:?}: {reason}")]
    Call {
        /// Which.
        webhook: String,
        /// Why.
        reason: String,
    },
    /// It said no, or can't be asked for such a request.
    #[error("{0}")]
    Refused(ApiError),
}

/// How webhooks are called.
pub(super) struct Caller {
    pub(super) client: Client,
    pub(super) metrics: Metrics,
    /// Whether they may change objects.
    pub(super) mutating: bool,
}

impl Caller {
    /// Asks a webhook. Its warnings and annotations are noted; a denial is a failure.
    pub(super) async fn call(
        &self,
        hook: &Hook,
        attributes: &Attributes,
        seen: &Match,
        objects: Objects<'_>,
    ) -> Result<Verdict, Failure> {
        let start = Instant::now();
        let outcome = self.ask(hook, attributes, seen, objects).await;
        let how = match &outcome {
            Ok((_, code)) => Outcome::Allowed { code: *code },
            Err(Failure::Refused(error)) => Outcome::Denied { code: error.code },
            Err(Failure::Call { .. }) if hook.ignores => Outcome::FailedOpen,
            Err(Failure::Call { .. }) => Outcome::Failed,
        };
        self.metrics.called(&hook.name, self.mutating, attributes.operation, how, start.elapsed());
        outcome.map(|(verdict, _)| verdict)
    }

    async fn ask(
        &self,
        hook: &Hook,
        attributes: &Attributes,
        seen: &Match,
        objects: Objects<'_>,
    ) -> Result<(Verdict, u16), Failure> {
        let failed = |reason: String| Failure::Call { webhook: hook.name.clone(), reason };
        if attributes.dry_run && !hook.dry_run {
            let text = format!("admission webhook {:?} does not support dry run", hook.name);
            return Err(Failure::Refused(ApiError::bad_request(text)));
        }
        let Some(version) = hook.version else {
            let text = "could not create admission objects: webhook does not accept known AdmissionReview \
                        versions (v1, v1beta1)";
            return Err(failed(text.to_owned()));
        };
        let endpoint = hook.endpoint.as_ref();
        let endpoint = endpoint.map_err(|error| failed(format!("could not get REST client: {error}")))?;
        let endpoint = endpoint.clone().with_query(&format!("timeout={}s", hook.timeout.as_secs()));
        let uid = uuid::Uuid::new_v4().to_string();
        let request = review::request(version, &uid, attributes, seen, objects);
        let bytes = Bytes::from(request.to_string());
        let answer = self.client.call_raw(&endpoint, bytes, hook.timeout, DEFAULT_LIMIT).await;
        let answer = answer.map_err(|error| {
            failed(format!("failed to call webhook: {}", error.describe(&endpoint.to_url())))
        })?;
        let verdict = review::response(version, &uid, self.mutating, &answer)
            .map_err(|why| failed(format!("received invalid webhook response: {why}")))?;
        for (key, value) in &verdict.annotations {
            attributes.notes.annotate(format!("{}/{key}", hook.name), value.as_str());
        }
        for warning in &verdict.warnings {
            attributes.notes.warn(warning.as_str());
        }
        if verdict.allowed {
            Ok((verdict, 200))
        } else {
            Err(Failure::Refused(review::denial(&hook.name, verdict.status)))
        }
    }

    /// What a failure means for the request: the error, or nothing where the policy is to go on.
    pub(super) fn judge(&self, hook: &Hook, failure: Failure) -> Result<(), ApiError> {
        match failure {
            Failure::Refused(error) => Err(error),
            Failure::Call { .. } if hook.ignores => {
                tracing::warn!(error = %failure, configuration = hook.configuration, "failing open");
                Ok(())
            }
            Failure::Call { .. } => {
                tracing::warn!(error = %failure, configuration = hook.configuration, "failing closed");
                Err(ApiError::internal(failure))
            }
        }
    }
}
