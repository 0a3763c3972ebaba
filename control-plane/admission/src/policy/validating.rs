//! ValidatingAdmissionPolicy: expressions that must hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::{Value, json};
use skep_api::error::{ApiError, Reason};
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;
use skep_cel::admission::Setting;
use skep_cel::authorizer::Decisions;
use skep_cel::{Budget, MESSAGE_LIMIT, OBJECT_BUDGET};

use super::conditions::MatchConditions;
use super::expression::{Expression, Variables, Wanted};
use super::input::{Input, Seen, Stop, decide};
use super::params;
use super::source::{Binding, Compiled, Hook, Policy, Source};
use crate::plugins::forbidden;
use crate::{Access, Attributes, Operation, Plugin, Reader};

const NAME: &str = "ValidatingAdmissionPolicy";
/// No annotation is longer, in bytes.
const ANNOTATION: usize = 10 * 1024;
/// So many failures are told the audit log.
const FAILURES: usize = 50;

struct Validation {
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: String,
}

/// A compiled policy.
struct Validations {
    variables: Variables,
    conditions: MatchConditions,
    validations: Vec<Validation>,
    annotations: Vec<(String, Expression)>,
}

impl Compiled for Validations {
    fn compile(policy: &Value) -> Self {
        let nothing = Value::Null;
        let spec = policy.at(&["spec"]).unwrap_or(&nothing);
        let setting = Setting {
            has_params: spec.at(&["paramKind"]).is_some(),
            has_authorizer: true,
            ..Setting::default()
        };
        let variables = Variables::compile(spec, &setting);
        let env = variables.env(&setting);
        let messages = variables.env(&Setting { has_authorizer: false, ..setting });
        let validation = |one: &Value| {
            let text = one.text(&["messageExpression"]);
            Validation {
                expression: Expression::compile(&env, one.text(&["expression"]), Wanted::Bool),
                message: one.text(&["message"]).trim().to_owned(),
                message_expression: (!text.is_empty())
                    .then(|| Expression::compile(&messages, text, Wanted::Text)),
                reason: one.text(&["reason"]).to_owned(),
            }
        };
        let annotation = |one: &Value| {
            let expression = Expression::compile(&env, one.text(&["valueExpression"]), Wanted::TextOrNull);
            (one.text(&["key"]).to_owned(), expression)
        };
        Self {
            conditions: MatchConditions::compile(spec, &env),
            validations: spec.items(&["validations"]).iter().map(validation).collect(),
            annotations: spec.items(&["auditAnnotations"]).iter().map(annotation).collect(),
            variables,
        }
    }
}

/// A validation that does not hold, or failed.
#[derive(Clone, Debug, Default)]
struct Failure {
    index: usize,
    message: String,
    reason: String,
}

/// What came of one policy with one parameter.
#[derive(Debug, Default)]
struct Outcome {
    failures: Vec<Failure>,
    annotations: Vec<(String, String)>,
    /// Annotations that failed: they refuse the request whatever the actions of the binding are.
    refusals: Vec<String>,
}

impl Outcome {
    fn error(message: String, ignores: bool) -> Self {
        let failures = if ignores { Vec::new() } else { vec![Failure { message, ..Failure::default() }] };
        Self { failures, ..Self::default() }
    }
}

impl Validations {
    fn run(&self, input: &Input<'_>, ignores: bool) -> Result<Outcome, Stop> {
        let mut outcome = Outcome::default();
        let mut budget = Budget::new(OBJECT_BUDGET);
        let mut results = Vec::with_capacity(self.validations.len());
        for validation in &self.validations {
            results.push(validation.expression.eval(input, &mut budget)?);
        }
        for (index, (validation, result)) in self.validations.iter().zip(results).enumerate() {
            let failure = match result {
                Ok(skep_cel::Value::Bool(true)) => continue,
                Err(_) if ignores => continue,
                Err(message) => Failure { index, message, ..Failure::default() },
                Ok(_) => {
                    let message = match validation.message(input, &mut budget) {
                        Err(Stop::Budget(error)) if ignores => {
                            tracing::debug!(error, "a message was too dear");
                            continue;
                        }
                        Err(Stop::Budget(error)) => format!("failed messageExpression: {error}"),
                        other => other?,
                    };
                    Failure { index, message, reason: validation.reason.clone() }
                }
            };
            outcome.failures.push(failure);
        }
        let mut budget = Budget::new(OBJECT_BUDGET);
        for (key, expression) in &self.annotations {
            match expression.eval(input, &mut budget)? {
                Ok(skep_cel::Value::String(text)) if !text.trim().is_empty() => {
                    outcome.annotations.push((key.clone(), cut(text.trim(), ANNOTATION).to_owned()));
                }
                Ok(_) => {}
                Err(_) if ignores => {}
                Err(error) => outcome.refusals.push(error),
            }
        }
        Ok(outcome)
    }
}

impl Validation {
    fn message(&self, input: &Input<'_>, budget: &mut Budget) -> Result<String, Stop> {
        if let Some(expression) = &self.message_expression
            && let Ok(skep_cel::Value::String(text)) = expression.eval(input, budget)?
        {
            let text = text.trim();
            if !text.is_empty() && text.len() <= MESSAGE_LIMIT && !text.contains('\n') {
                return Ok(text.to_owned());
            }
        }
        if !self.message.is_empty() {
            return Ok(self.message.clone());
        }
        Ok(format!("failed expression: {}", self.expression.text.trim()))
    }
}

/// Text of at most so many bytes.
fn cut(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The plug-in.
pub struct ValidatingAdmissionPolicy {
    source: Source<Validations>,
    access: Arc<dyn Access>,
}

/// What all policies together have to say.
#[derive(Default)]
struct Verdict {
    denials: Vec<(String, String)>,
    audit: Vec<Value>,
}

impl ValidatingAdmissionPolicy {
    /// Reads policies through `reader`; `access` answers what expressions ask the authorizer.
    pub fn new(reader: Arc<dyn Reader>, access: Arc<dyn Access>) -> Self {
        let source = Source::new(reader, "validatingadmissionpolicies", "validatingadmissionpolicybindings");
        Self { source, access }
    }

    fn reader(&self) -> &dyn Reader {
        &*self.source.reader
    }

    async fn policy(
        &self,
        hook: &Hook<Validations>,
        attributes: &Attributes,
        decisions: &Decisions,
        verdict: &mut Verdict,
    ) -> Result<(), ApiError> {
        let policy = &hook.policy;
        let misconfigured = |verdict: &mut Verdict, binding: Option<&Binding>, error: &str| {
            if !policy.ignores {
                verdict.misconfigured(policy, binding, error);
            }
        };
        let seen = match policy.matches(attributes, self.reader()).await {
            Ok(Some(seen)) => seen,
            Ok(None) => return Ok(()),
            Err(error) => {
                misconfigured(verdict, None, &error.message);
                return Ok(());
            }
        };
        let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for binding in &hook.bindings {
            match binding.matches(attributes, self.reader()).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    misconfigured(verdict, Some(binding), &error.message);
                    continue;
                }
            }
            let params = params::collect(
                self.reader(),
                policy.param_kind.as_ref(),
                binding.param_ref(),
                &attributes.namespace,
            );
            let params = match params.await {
                Ok(params) => params,
                Err(error) => {
                    misconfigured(verdict, Some(binding), &error);
                    continue;
                }
            };
            let objects = match Seen::new(attributes, &seen, self.reader()).await {
                Ok(objects) => objects,
                Err(error) => {
                    let error = format!("failed to convert object version: {}", error.message);
                    misconfigured(verdict, Some(binding), &error);
                    continue;
                }
            };
            for param in params {
                let outcome =
                    self.evaluate(policy, attributes, &objects, param.as_deref(), decisions).await?;
                verdict.take(policy, binding, &outcome, attributes);
                for (key, value) in outcome.annotations {
                    let values = annotations.entry(key).or_default();
                    if !values.contains(&value) {
                        values.push(value);
                    }
                }
            }
        }
        for (key, values) in annotations {
            attributes.notes.annotate(format!("{}/{key}", policy.name()), values.join(", "));
        }
        Ok(())
    }

    async fn evaluate(
        &self,
        policy: &Policy<Validations>,
        attributes: &Attributes,
        objects: &Seen,
        params: Option<&Value>,
        decisions: &Decisions,
    ) -> Result<Outcome, ApiError> {
        let namespace = self.source.namespace(attributes).await?;
        let compiled = &policy.compiled;
        let outcome = decide(attributes, &*self.access, decisions, |decisions| {
            let conditions = &compiled.conditions;
            if !conditions.is_empty() {
                match conditions.hold_with(attributes, objects, decisions, params, &compiled.variables)? {
                    Ok(true) => {}
                    Ok(false) => return Ok(Outcome::default()),
                    Err(error) => return Ok(Outcome::error(error, policy.ignores)),
                }
            }
            let input = Input::new(attributes, objects, decisions)
                .with_params(params)
                .with_namespace(namespace.as_deref())
                .with_variables(&compiled.variables);
            compiled.run(&input, policy.ignores)
        });
        Ok(outcome.await.unwrap_or_else(|error| Outcome::error(error, policy.ignores)))
    }
}

impl Verdict {
    fn misconfigured(&mut self, policy: &Policy<Validations>, binding: Option<&Binding>, error: &str) {
        let what = if binding.is_some() { "binding" } else { "policy" };
        self.deny(policy, binding, &format!("failed to configure {what}: {error}"), "");
    }

    fn deny(&mut self, policy: &Policy<Validations>, binding: Option<&Binding>, message: &str, reason: &str) {
        let with = binding.map_or_else(String::new, |binding| format!(" with binding '{}'", binding.name()));
        let message =
            format!("ValidatingAdmissionPolicy '{}'{with} denied request: {message}", policy.name());
        self.denials.push((message, reason.to_owned()));
    }

    fn take(
        &mut self,
        policy: &Policy<Validations>,
        binding: &Binding,
        outcome: &Outcome,
        attributes: &Attributes,
    ) {
        for failure in &outcome.failures {
            for action in binding.actions() {
                match action {
                    "Deny" => self.deny(policy, Some(binding), &failure.message, &failure.reason),
                    "Warn" => attributes.notes.warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        policy.name(),
                        binding.name(),
                        failure.message
                    )),
                    "Audit" if self.audit.len() < FAILURES => self.audit.push(json!({
                        "message": failure.message,
                        "policy": policy.name(),
                        "binding": binding.name(),
                        "expressionIndex": failure.index,
                        "validationActions": binding.actions().collect::<Vec<_>>(),
                    })),
                    _ => {}
                }
            }
        }
        for error in &outcome.refusals {
            self.deny(policy, Some(binding), error, "");
        }
    }

    fn end(self, attributes: &Attributes) -> Result<(), ApiError> {
        if !self.audit.is_empty() {
            let key = "validation.policy.admission.k8s.io/validation_failure";
            attributes.notes.annotate(key, Value::Array(self.audit).to_string());
        }
        let Some((message, reason)) = self.denials.into_iter().next() else { return Ok(()) };
        let mut error = forbidden(attributes, &message);
        (error.reason, error.code) = match reason.as_str() {
            "Forbidden" => (Reason::Forbidden, 403),
            "Unauthorized" => (Reason::Unauthorized, 401),
            "RequestEntityTooLarge" => (Reason::RequestEntityTooLarge, 413),
            _ => (Reason::Invalid, 422),
        };
        let cause = StatusCause { message: Some(message), ..StatusCause::default() };
        error.details.get_or_insert_default().causes.get_or_insert_default().push(cause);
        Err(error)
    }
}

#[async_trait]
impl Plugin for ValidatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, operation: Operation, _: &GroupVersionResource, _: &str) -> bool {
        self.source.may_match(operation)
    }

    async fn validate(&self, attributes: &Attributes) -> Result<(), ApiError> {
        let (decisions, mut verdict) = (Decisions::default(), Verdict::default());
        for hook in self.source.of(attributes) {
            self.policy(&hook, attributes, &decisions, &mut verdict).await?;
        }
        verdict.end(attributes)
    }
}
