//! What expressions see of a request, and the answers of the authorizers they ask for.

use std::cell::{Cell, RefCell};
use std::sync::LazyLock;

use serde_json::{Map, Value as Json, json};
use skep_api::error::ApiError;
use skep_api::resource::{GroupVersionKind, GroupVersionResource};
use skep_cel::authorizer::{Check, Decision, Decisions};
use skep_cel::{Activation, Budget, EvalError, Schema, Value};

use super::expression::Variables;
use crate::matching::Match;
use crate::{Access, Attributes, Question, Reader};

/// Variables that use variables nest no deeper.
const DEPTH: u8 = 32;
/// So many questions to the authorizers one evaluation may ask; costs allow fewer.
const QUESTIONS: usize = 100;

/// Why an evaluation ended before its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// All costs are used up.
    Budget(String),
    /// The authorizers must be asked.
    Pending(Box<Check>),
}

/// The objects of a request in the version a policy wants to see.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) object: Option<Json>,
    pub(super) old: Option<Json>,
    pub(super) request: Json,
}

impl Seen {
    /// Converts what must be.
    pub(super) async fn new(
        attributes: &Attributes,
        seen: &Match,
        reader: &dyn Reader,
    ) -> Result<Self, ApiError> {
        let shown = async |object: Option<&Json>| match object {
            Some(object) if seen.differs(attributes) => reader.convert(object, &seen.gvk).await.map(Some),
            other => Ok(other.cloned()),
        };
        Ok(Self {
            object: shown(attributes.object.as_ref()).await?,
            old: shown(attributes.old_object.as_ref()).await?,
            request: request(attributes, seen),
        })
    }
}

fn kind(gvk: &GroupVersionKind) -> Json {
    json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind})
}

fn resource(gvr: &GroupVersionResource) -> Json {
    json!({"group": gvr.group, "version": gvr.version, "resource": gvr.resource})
}

/// The variable `request`: an AdmissionRequest without the objects.
fn request(attributes: &Attributes, seen: &Match) -> Json {
    let user = &attributes.user;
    let mut info = Map::new();
    info.insert("username".to_owned(), json!(user.name));
    if !user.uid.is_empty() {
        info.insert("uid".to_owned(), json!(user.uid));
    }
    info.insert("groups".to_owned(), json!(user.groups));
    info.insert("extra".to_owned(), json!(user.extra));
    let mut request = json!({
        "kind": kind(&seen.gvk),
        "resource": resource(&seen.gvr),
        "requestKind": kind(&attributes.gvk),
        "requestResource": resource(&attributes.gvr),
        "operation": attributes.operation.as_str(),
        "userInfo": info,
        "dryRun": attributes.dry_run,
        "options": attributes.options,
    });
    let texts = [
        ("subResource", &attributes.subresource),
        ("requestSubResource", &attributes.subresource),
        ("name", &attributes.name),
        ("namespace", &attributes.namespace),
    ];
    for (field, text) in texts {
        if !text.is_empty() {
            request[field] = json!(text);
        }
    }
    request
}

static NAMESPACE: LazyLock<Schema> = LazyLock::new(skep_cel::admission::namespace_schema);

/// The values of the variables of one evaluation.
pub(super) struct Input<'a> {
    seen: &'a Seen,
    params: Option<&'a Json>,
    namespace: Option<&'a Json>,
    authorizer: Value<'static>,
    request_resource: Value<'static>,
    variables: Option<&'a Variables>,
    computed: RefCell<Vec<Option<Result<Value<'a>, EvalError>>>>,
    depth: Cell<u8>,
}

impl<'a> Input<'a> {
    pub(super) fn new(attributes: &Attributes, seen: &'a Seen, decisions: &Decisions) -> Self {
        let check = Check {
            group: attributes.gvr.group.clone(),
            resource: attributes.gvr.resource.clone(),
            subresource: attributes.subresource.clone(),
            namespace: attributes.namespace.clone(),
            name: attributes.name.clone(),
            ..Check::default()
        };
        Self {
            seen,
            params: None,
            namespace: None,
            authorizer: decisions.authorizer(),
            request_resource: decisions.resource(check),
            variables: None,
            computed: RefCell::default(),
            depth: Cell::new(0),
        }
    }

    pub(super) fn with_params(mut self, params: Option<&'a Json>) -> Self {
        self.params = params;
        self
    }

    pub(super) fn with_namespace(mut self, namespace: Option<&'a Json>) -> Self {
        self.namespace = namespace;
        self
    }

    pub(super) fn with_variables(mut self, variables: &'a Variables) -> Self {
        self.computed = RefCell::new(vec![None; variables.list.len()]);
        self.variables = Some(variables);
        self
    }

    /// A variable of the policy: computed when it is first needed.
    fn variable(&self, name: &str, budget: &mut Budget) -> Option<Result<Value<'a>, EvalError>> {
        let variables = self.variables?;
        let at = variables.list.iter().rposition(|(known, _)| known == name)?;
        if let Some(computed) = &self.computed.borrow()[at] {
            return Some(computed.clone());
        }
        if self.depth.get() >= DEPTH {
            return Some(Err(EvalError::failed("variables use each other too deeply")));
        }
        self.depth.set(self.depth.get() + 1);
        let value = match &variables.list[at].1.program {
            Err(error) => {
                Err(EvalError::failed(format!("composited variable {name:?} fails to compile: {error}")))
            }
            Ok(program) => program.eval(self, budget),
        };
        self.depth.set(self.depth.get() - 1);
        let value = match value {
            // These end the whole evaluation, so there is nothing to keep.
            Err(stop @ (EvalError::Pending(_) | EvalError::Budget)) => return Some(Err(stop)),
            Err(error) => {
                Err(EvalError::failed(format!("composited variable {name:?} fails to evaluate: {error}")))
            }
            Ok(value) => Ok(value),
        };
        self.computed.borrow_mut()[at] = Some(value.clone());
        Some(value)
    }
}

fn json<'a>(value: Option<&'a Json>) -> Value<'a> {
    value.map_or(Value::Null, |value| Value::from_json(value, None))
}

impl<'a> Activation<'a> for Input<'a> {
    fn resolve(&self, name: &str, budget: &mut Budget) -> Option<Result<Value<'a>, EvalError>> {
        if let Some(variable) = name.strip_prefix("variables.") {
            return self.variable(variable, budget);
        }
        Some(Ok(match name {
            "object" => json(self.seen.object.as_ref()),
            "oldObject" => json(self.seen.old.as_ref()),
            "request" => Value::from_json(&self.seen.request, None),
            "params" => json(self.params),
            "namespaceObject" => match self.namespace {
                Some(namespace) => Value::from_json(namespace, Some(&NAMESPACE)),
                None => Value::Null,
            },
            "authorizer" => self.authorizer.clone(),
            "authorizer.requestResource" => self.request_resource.clone(),
            // Only `has(variables.x)` gets here.
            "variables" => {
                let names = self.variables.map(|variables| variables.list.iter());
                Value::object(names.into_iter().flatten().map(|(name, _)| (name.as_str(), Value::Null)))
            }
            _ => return None,
        }))
    }
}

/// Runs an evaluation, asking the authorizers for what it needs and beginning anew with the answer.
pub(super) async fn decide<T>(
    attributes: &Attributes,
    access: &dyn Access,
    decisions: &Decisions,
    mut run: impl FnMut(&Decisions) -> Result<T, Stop>,
) -> Result<T, String> {
    for _ in 0..QUESTIONS {
        let check = match run(decisions) {
            Ok(done) => return Ok(done),
            Err(Stop::Budget(error)) => return Err(error),
            Err(Stop::Pending(check)) => check,
        };
        let user = check.user(&attributes.user);
        let question = Question {
            verb: &check.verb,
            group: &check.group,
            resource: &check.resource,
            subresource: &check.subresource,
            namespace: &check.namespace,
            name: &check.name,
            path: check.path.as_deref().unwrap_or_default(),
            fields: &check.fields,
            labels: &check.labels,
            ..Question::default()
        };
        let answer = access.may(&user, question).await;
        let decision = Decision { allowed: answer.allowed, reason: answer.reason, error: None };
        decisions.add(*check, decision);
    }
    Err("expressions ask for too many authorization decisions".to_owned())
}
