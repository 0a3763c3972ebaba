//! The webhooks of the cluster in the order they are called, compiled from their configurations.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;
use skep_webhook::Endpoint;

use super::review::Version;
use crate::matching::{Match, Matcher, is_exempt};
use crate::policy::MatchConditions;
use crate::{Access, Attributes, Operation, Reader};

/// What a webhook gets when its configuration does not say.
const TIMEOUT: u64 = 10;

/// One webhook.
#[derive(Debug)]
pub(super) struct Hook {
    /// The name of its configuration.
    pub(super) configuration: String,
    /// Its own name.
    pub(super) name: String,
    /// Tells it from every other.
    pub(super) id: String,
    /// Where it is.
    pub(super) endpoint: Result<Endpoint, skep_webhook::Error>,
    /// A failed call does not fail the request.
    pub(super) ignores: bool,
    /// How long a call may take.
    pub(super) timeout: Duration,
    /// It may be called although nothing will be stored.
    pub(super) dry_run: bool,
    /// The newest review it takes that we speak.
    pub(super) version: Option<Version>,
    /// It wants to be called again when others change the object.
    pub(super) again: bool,
    matcher: Result<Matcher, String>,
    conditions: MatchConditions,
}

impl Hook {
    fn new(configuration: &str, at: usize, webhook: &Value) -> Self {
        let name = webhook.text(&["name"]);
        let timeout = webhook.int(&["timeoutSeconds"]).and_then(|seconds| u64::try_from(seconds).ok());
        let versions = webhook.items(&["admissionReviewVersions"]).iter().filter_map(Value::as_str);
        let nothing = Value::Null;
        let config = webhook.at(&["clientConfig"]).unwrap_or(&nothing);
        Self {
            configuration: configuration.to_owned(),
            name: name.to_owned(),
            id: format!("{configuration}/{name}/{at}"),
            endpoint: Endpoint::from_client_config(config),
            ignores: webhook.text(&["failurePolicy"]) == "Ignore",
            timeout: Duration::from_secs(timeout.unwrap_or(TIMEOUT)),
            dry_run: matches!(webhook.text(&["sideEffects"]), "None" | "NoneOnDryRun"),
            version: versions.into_iter().find_map(Version::parse),
            again: webhook.text(&["reinvocationPolicy"]) == "IfNeeded",
            matcher: Matcher::from_webhook(webhook).map_err(|error| error.to_string()),
            conditions: MatchConditions::of_webhook(webhook),
        }
    }

    /// Is the request for it, and as what.
    pub(super) async fn matches(
        &self,
        attributes: &Attributes,
        reader: &dyn Reader,
        access: &dyn Access,
    ) -> Result<Option<Match>, ApiError> {
        let matcher = self.matcher.as_ref().map_err(ApiError::internal)?;
        let Some(seen) = matcher.matches(attributes, reader).await? else { return Ok(None) };
        let held = self.conditions.matches(attributes, &seen, reader, access).await?;
        Ok(held.then_some(seen))
    }

    fn may_match(&self, operation: Operation) -> bool {
        // One whose selectors can't be read must not be passed over in silence.
        self.matcher.as_ref().map_or(true, |matcher| matcher.may_match(operation))
    }
}

/// The webhooks of one configuration.
#[derive(Debug)]
struct Compiled {
    source: Arc<Value>,
    hooks: Vec<Arc<Hook>>,
}

impl Compiled {
    fn new(source: Arc<Value>) -> Self {
        let webhooks = source.items(&["webhooks"]).iter().enumerate();
        let hooks = webhooks.map(|(at, webhook)| Arc::new(Hook::new(source.name(), at, webhook))).collect();
        Self { source, hooks }
    }
}

#[derive(Debug, Default)]
struct Kept {
    version: Option<u64>,
    configurations: Vec<Arc<Compiled>>,
}

/// All webhooks of one kind of configuration.
pub(super) struct Hooks {
    pub(super) reader: Arc<dyn Reader>,
    pub(super) access: Arc<dyn Access>,
    resource: GroupVersionResource,
    kept: ArcSwap<Kept>,
}

impl Hooks {
    /// Those in the configurations stored as this resource.
    pub(super) fn new(reader: Arc<dyn Reader>, access: Arc<dyn Access>, resource: &str) -> Self {
        let resource = GroupVersionResource::new("admissionregistration.k8s.io", "v1", resource);
        Self { reader, access, resource, kept: ArcSwap::default() }
    }

    /// Could any webhook be for such a request: cheap, asked for every request.
    pub(super) fn may_match(&self, operation: Operation) -> bool {
        let kept = self.kept();
        kept.configurations.iter().any(|one| one.hooks.iter().any(|hook| hook.may_match(operation)))
    }

    /// The webhooks a request may concern, in order. Empty for what webhooks must not see.
    pub(super) fn of(&self, attributes: &Attributes) -> Vec<Arc<Hook>> {
        if is_exempt(attributes) {
            return Vec::new();
        }
        let kept = self.kept();
        kept.configurations.iter().flat_map(|one| one.hooks.iter().cloned()).collect()
    }

    /// What is compiled, brought up to date. Two requests may do so at once; both get the same.
    fn kept(&self) -> Arc<Kept> {
        let kept = self.kept.load_full();
        if kept.version == Some(self.reader.version(&self.resource)) {
            return kept;
        }
        let (mut sources, version) = self.reader.cached(&self.resource);
        sources.sort_by(|a, b| a.name().cmp(b.name()));
        let compile = |source: Arc<Value>| {
            let same = kept.configurations.iter().find(|one| Arc::ptr_eq(&one.source, &source));
            same.cloned().unwrap_or_else(|| Arc::new(Compiled::new(source)))
        };
        let fresh = Arc::new(Kept {
            version: Some(version),
            configurations: sources.into_iter().map(compile).collect(),
        });
        self.kept.store(fresh.clone());
        fresh
    }
}
