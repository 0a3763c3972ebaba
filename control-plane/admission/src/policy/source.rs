//! The policies of the cluster with their bindings, compiled and kept until one of them changes.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::{GroupVersionKind, GroupVersionResource};

use crate::matching::{Match, Matcher, is_exempt};
use crate::{Attributes, Operation, Reader};

/// What a kind of policy compiles to.
pub(super) trait Compiled: Send + Sync + 'static {
    /// Compiles a policy.
    fn compile(policy: &Value) -> Self;
}

/// One policy.
pub(super) struct Policy<C> {
    source: Arc<Value>,
    matcher: Result<Matcher, String>,
    /// An error lets the request pass.
    pub(super) ignores: bool,
    pub(super) param_kind: Option<GroupVersionKind>,
    pub(super) compiled: C,
}

impl<C: Compiled> Policy<C> {
    fn new(source: Arc<Value>) -> Self {
        let kind = source.at(&["spec", "paramKind"]);
        Self {
            matcher: Matcher::from_match_resources(source.at(&["spec", "matchConstraints"]))
                .map_err(|error| error.to_string()),
            ignores: source.text(&["spec", "failurePolicy"]) == "Ignore",
            param_kind: kind.map(ObjectExt::gvk),
            compiled: C::compile(&source),
            source,
        }
    }

    pub(super) fn name(&self) -> &str {
        self.source.name()
    }
}

impl<C> Policy<C> {
    /// Is the request for it, and as what.
    pub(super) async fn matches(
        &self,
        attributes: &Attributes,
        reader: &dyn Reader,
    ) -> Result<Option<Match>, ApiError> {
        let matcher = self.matcher.as_ref().map_err(ApiError::internal)?;
        matcher.matches(attributes, reader).await
    }
}

/// One binding.
pub(super) struct Binding {
    source: Arc<Value>,
    matcher: Result<Matcher, String>,
}

impl Binding {
    fn new(source: Arc<Value>) -> Self {
        let matcher = Matcher::from_match_resources(source.at(&["spec", "matchResources"]));
        Self { matcher: matcher.map_err(|error| error.to_string()), source }
    }

    pub(super) fn name(&self) -> &str {
        self.source.name()
    }

    pub(super) fn param_ref(&self) -> Option<&Value> {
        self.source.at(&["spec", "paramRef"])
    }

    /// `validationActions`.
    pub(super) fn actions(&self) -> impl Iterator<Item = &str> {
        self.source.items(&["spec", "validationActions"]).iter().filter_map(Value::as_str)
    }

    pub(super) async fn matches(
        &self,
        attributes: &Attributes,
        reader: &dyn Reader,
    ) -> Result<bool, ApiError> {
        let matcher = self.matcher.as_ref().map_err(ApiError::internal)?;
        Ok(matcher.matches(attributes, reader).await?.is_some())
    }
}

/// A policy that is bound.
pub(super) struct Hook<C> {
    pub(super) policy: Arc<Policy<C>>,
    pub(super) bindings: Vec<Arc<Binding>>,
}

struct Kept<C> {
    versions: Option<(u64, u64)>,
    policies: HashMap<String, Arc<Policy<C>>>,
    hooks: Vec<Arc<Hook<C>>>,
}

/// All policies of one kind.
pub(super) struct Source<C> {
    pub(super) reader: Arc<dyn Reader>,
    policies: GroupVersionResource,
    bindings: GroupVersionResource,
    kept: ArcSwap<Kept<C>>,
}

impl<C: Compiled> Source<C> {
    pub(super) fn new(reader: Arc<dyn Reader>, policies: &str, bindings: &str) -> Self {
        let resource = |name: &str| GroupVersionResource::new("admissionregistration.k8s.io", "v1", name);
        let kept = Kept { versions: None, policies: HashMap::new(), hooks: Vec::new() };
        Self {
            reader,
            policies: resource(policies),
            bindings: resource(bindings),
            kept: ArcSwap::from_pointee(kept),
        }
    }

    /// Could any policy be for such a request: cheap, asked for every request.
    pub(super) fn may_match(&self, operation: Operation) -> bool {
        self.kept().hooks.iter().any(|hook| {
            // One whose selectors can't be read must not be passed over in silence.
            hook.policy.matcher.as_ref().map_or(true, |matcher| matcher.may_match(operation))
        })
    }

    /// The bound policies, by name. Empty for what policies must not see.
    pub(super) fn of(&self, attributes: &Attributes) -> Vec<Arc<Hook<C>>> {
        if is_exempt(attributes) { Vec::new() } else { self.kept().hooks.clone() }
    }

    /// What is compiled, brought up to date. Two requests may do so at once; both get the same.
    fn kept(&self) -> Arc<Kept<C>> {
        let kept = self.kept.load_full();
        let now = (self.reader.version(&self.policies), self.reader.version(&self.bindings));
        if kept.versions == Some(now) {
            return kept;
        }
        let (policies, policies_version) = self.reader.cached(&self.policies);
        let (mut bindings, bindings_version) = self.reader.cached(&self.bindings);
        bindings.sort_by(|a, b| a.name().cmp(b.name()));
        let mut bound: HashMap<String, Vec<Arc<Binding>>> = HashMap::new();
        for binding in bindings {
            let policy = binding.text(&["spec", "policyName"]).to_owned();
            bound.entry(policy).or_default().push(Arc::new(Binding::new(binding)));
        }
        let mut compiled = HashMap::new();
        let mut hooks = Vec::new();
        for source in policies {
            let name = source.name().to_owned();
            let same = kept.policies.get(&name).filter(|policy| Arc::ptr_eq(&policy.source, &source));
            let policy = same.cloned().unwrap_or_else(|| Arc::new(Policy::new(source)));
            compiled.insert(name.clone(), policy.clone());
            if let Some(bindings) = bound.remove(&name) {
                hooks.push(Arc::new(Hook { policy, bindings }));
            }
        }
        hooks.sort_by(|a, b| a.policy.name().cmp(b.policy.name()));
        let versions = Some((policies_version, bindings_version));
        let fresh = Arc::new(Kept { versions, policies: compiled, hooks });
        self.kept.store(fresh.clone());
        fresh
    }

    /// The namespace of a request; a request for a namespace has none.
    pub(super) async fn namespace(&self, attributes: &Attributes) -> Result<Option<Arc<Value>>, ApiError> {
        let itself = attributes.gvk.group.is_empty() && attributes.gvk.kind == "Namespace";
        if attributes.namespace.is_empty() || itself {
            return Ok(None);
        }
        let gvr = GroupVersionResource::new("", "v1", "namespaces");
        match self.reader.get(&gvr, None, &attributes.namespace).await? {
            Some(namespace) => Ok(Some(namespace)),
            None => Err(ApiError::not_found(&gvr, &attributes.namespace)),
        }
    }
}
