//! MutatingAdmissionPolicy: expressions that say how objects are to be changed.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::Value;
use skep_api::error::{ApiError, Reason};
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;
use skep_cel::admission::Setting;
use skep_cel::authorizer::Decisions;
use skep_cel::{Budget, OBJECT_BUDGET};
use skep_machinery::apply::Types;

use super::conditions::MatchConditions;
use super::expression::{Expression, Variables, Wanted};
use super::input::{Input, Seen, decide};
use super::source::{Binding, Compiled, Hook, Policy, Source};
use super::{params, patches};
use crate::matching::Match;
use crate::plugins::forbidden;
use crate::{Access, Attributes, Operation, Plugin, Reader};

const NAME: &str = "MutatingAdmissionPolicy";

/// One mutation.
struct Mutation {
    wanted: Wanted,
    expression: Expression,
}

/// A compiled policy.
struct Mutations {
    variables: Variables,
    conditions: MatchConditions,
    mutations: Vec<Mutation>,
    /// It wants to be asked again when others change the object.
    again: bool,
}

impl Compiled for Mutations {
    fn compile(policy: &Value) -> Self {
        let nothing = Value::Null;
        let spec = policy.at(&["spec"]).unwrap_or(&nothing);
        let setting = Setting {
            has_params: spec.at(&["paramKind"]).is_some(),
            has_authorizer: true,
            ..Setting::default()
        };
        let variables = Variables::compile(spec, &setting);
        let conditions = MatchConditions::compile(spec, &variables.env(&setting));
        let env = variables.env(&Setting { has_patches: true, ..setting });
        let mutation = |one: &Value| {
            let (wanted, field) = match one.text(&["patchType"]) {
                "JSONPatch" => (Wanted::Patch, "jsonPatch"),
                _ => (Wanted::Object, "applyConfiguration"),
            };
            let expression = Expression::compile(&env, one.text(&[field, "expression"]), wanted);
            Mutation { wanted, expression }
        };
        Self {
            conditions,
            mutations: spec.items(&["mutations"]).iter().map(mutation).collect(),
            again: spec.text(&["reinvocationPolicy"]) == "IfNeeded",
            variables,
        }
    }
}

/// The plug-in.
pub struct MutatingAdmissionPolicy {
    source: Source<Mutations>,
    access: Arc<dyn Access>,
}

/// Why a policy refuses a request.
struct Refusal {
    message: String,
    reason: Option<Reason>,
}

/// A policy, one of its bindings and one of the binding's parameters.
struct Invocation<'h> {
    policy: &'h Policy<Mutations>,
    binding: &'h Binding,
    param: Option<Arc<Value>>,
    seen: Match,
}

impl Invocation<'_> {
    fn id(&self) -> String {
        let param = self
            .param
            .as_ref()
            .map_or_else(String::new, |param| format!("{}/{}", param.namespace(), param.name()));
        format!("{}/{}/{param}", self.policy.name(), self.binding.name())
    }

    fn refusal(&self, error: &str) -> Option<Refusal> {
        refusal(self.policy, Some(self.binding), error, Some(Reason::Invalid))
    }
}

fn refusal(
    policy: &Policy<Mutations>,
    binding: Option<&Binding>,
    error: &str,
    reason: Option<Reason>,
) -> Option<Refusal> {
    if policy.ignores {
        tracing::warn!(policy = policy.name(), error, "failing open");
        return None;
    }
    let message = match binding {
        Some(binding) => {
            format!("policy '{}' with binding '{}' denied request: {error}", policy.name(), binding.name())
        }
        None => format!("policy {:?} denied request: {error}", policy.name()),
    };
    Some(Refusal { message, reason })
}

impl MutatingAdmissionPolicy {
    /// Reads policies through `reader`; `access` answers what expressions ask the authorizer.
    pub fn new(reader: Arc<dyn Reader>, access: Arc<dyn Access>) -> Self {
        let source = Source::new(reader, "mutatingadmissionpolicies", "mutatingadmissionpolicybindings");
        Self { source, access }
    }

    fn reader(&self) -> &dyn Reader {
        &*self.source.reader
    }

    /// What a policy is to do about a request, by binding and parameter.
    async fn invocations<'h>(
        &self,
        hook: &'h Hook<Mutations>,
        attributes: &Attributes,
        refusals: &mut Vec<Refusal>,
    ) -> Vec<Invocation<'h>> {
        let policy = &*hook.policy;
        let mut misconfigured = |binding: Option<&Binding>, error: &str| {
            let what = if binding.is_some() { "binding" } else { "policy" };
            refusals.extend(refusal(policy, binding, &format!("failed to configure {what}: {error}"), None));
        };
        let mut found = Vec::new();
        let seen = match policy.matches(attributes, self.reader()).await {
            Ok(Some(seen)) => seen,
            Ok(None) => return found,
            Err(error) => {
                misconfigured(None, &error.message);
                return found;
            }
        };
        for binding in &hook.bindings {
            match binding.matches(attributes, self.reader()).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    misconfigured(Some(binding), &error.message);
                    continue;
                }
            }
            let params = params::collect(
                self.reader(),
                policy.param_kind.as_ref(),
                binding.param_ref(),
                &attributes.namespace,
            );
            match params.await {
                Ok(params) => found.extend(params.into_iter().map(|param| Invocation {
                    policy,
                    binding,
                    param,
                    seen: seen.clone(),
                })),
                Err(error) => misconfigured(Some(binding), &error),
            }
        }
        found
    }

    /// Does one after the other; whether the object changed, and what went wrong.
    async fn invoke(
        &self,
        invocation: &Invocation<'_>,
        attributes: &mut Attributes,
        decisions: &Decisions,
    ) -> Result<Option<Refusal>, ApiError> {
        let compiled = &invocation.policy.compiled;
        let params = invocation.param.as_deref();
        let id = invocation.id();
        let objects = match Seen::new(attributes, &invocation.seen, self.reader()).await {
            Ok(objects) => objects,
            Err(error) => return Ok(invocation.refusal(&error.message)),
        };
        if !compiled.conditions.is_empty() {
            let held = decide(attributes, &*self.access, decisions, |decisions| {
                compiled.conditions.hold_with(attributes, &objects, decisions, params, &compiled.variables)
            });
            match held.await.and_then(|held| held) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) => return Ok(invocation.refusal(&error)),
            }
        }
        if !attributes.reinvocation.is_due(NAME, &id) {
            return Ok(None);
        }
        let namespace = self.source.namespace(attributes).await?;
        let before = attributes.object.clone();
        let mut refused = None;
        for mutation in &compiled.mutations {
            let Some(object) = &attributes.object else { break };
            let objects = match Seen::new(attributes, &invocation.seen, self.reader()).await {
                Ok(objects) => objects,
                Err(error) => return Ok(invocation.refusal(&error.message)),
            };
            let shown = objects.object.as_ref().unwrap_or(object);
            let schema = self.reader().structural(&invocation.seen.gvk);
            let types = match &schema {
                Some(schema) => Types::OpenApi(schema),
                None => Types::of(&invocation.seen.gvk),
            };
            let patched = decide(attributes, &*self.access, decisions, |decisions| {
                let input = Input::new(attributes, &objects, decisions)
                    .with_params(params)
                    .with_namespace(namespace.as_deref())
                    .with_variables(&compiled.variables);
                let value = mutation.expression.eval(&input, &mut Budget::new(OBJECT_BUDGET))?;
                Ok(value.and_then(|value| match mutation.wanted {
                    Wanted::Patch => patches::json_patch(shown, &value),
                    _ => patches::apply(shown, &value, types),
                }))
            });
            match patched.await.and_then(|patched| patched) {
                Ok(patched) => {
                    let patched = self.settled(attributes, &invocation.seen, patched).await?;
                    attributes.object = Some(patched);
                }
                Err(error) => refused = refused.or(invocation.refusal(&error)),
            }
        }
        let changed = attributes.object != before;
        attributes.reinvocation.called(NAME, &id, changed, compiled.again);
        Ok(refused)
    }

    /// The object as it would be stored, in the version of the request.
    async fn settled(&self, attributes: &Attributes, seen: &Match, object: Value) -> Result<Value, ApiError> {
        let object = self.reader().settle(&attributes.gvr, &seen.gvk, object).await?;
        if !seen.differs(attributes) {
            return Ok(object);
        }
        let object = self.reader().convert(&object, &attributes.gvk).await?;
        self.reader().settle(&attributes.gvr, &attributes.gvk, object).await
    }

    async fn run(&self, attributes: &mut Attributes, hooks: &[Arc<Hook<Mutations>>]) -> Result<(), ApiError> {
        let decisions = Decisions::default();
        let mut refusals = Vec::new();
        let mut invocations = Vec::new();
        for hook in hooks {
            invocations.extend(self.invocations(hook, attributes, &mut refusals).await);
        }
        for invocation in &invocations {
            refusals.extend(self.invoke(invocation, attributes, &decisions).await?);
        }
        let Some(first) = refusals.first() else { return Ok(()) };
        let mut error = forbidden(attributes, "admission request denied by policy");
        error.message = first.message.clone();
        if let Some(reason) = &first.reason {
            // Upstream changes the reason and leaves the code.
            error.reason = reason.clone();
        }
        let causes = error.details.get_or_insert_default().causes.get_or_insert_default();
        causes.extend(
            refusals
                .into_iter()
                .map(|refusal| StatusCause { message: Some(refusal.message), ..StatusCause::default() }),
        );
        Err(error)
    }
}

#[async_trait]
impl Plugin for MutatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, operation: Operation, _: &GroupVersionResource, _: &str) -> bool {
        self.source.may_match(operation)
    }

    async fn admit(&self, attributes: &mut Attributes) -> Result<(), ApiError> {
        let hooks = self.source.of(attributes);
        if hooks.is_empty() {
            return Ok(());
        }
        attributes.reinvocation.begin(NAME, attributes.object.as_ref());
        let outcome = self.run(attributes, &hooks).await;
        attributes.reinvocation.end(NAME, attributes.object.as_ref());
        outcome
    }
}
