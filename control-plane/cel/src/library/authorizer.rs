//! Questions to the authorizer: `authorizer.group('apps').resource('deployments').check('create').allowed()`.
//!
//! Evaluation asks nobody: an answer that is not yet known ends it with
//! [`EvalError::Pending`]; the caller asks, adds the answer to [`Decisions`] and evaluates again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use skep_api::names;
use skep_api::user::UserInfo;

use super::{Outcome, fail, mismatch};
use crate::eval::EvalError;
use crate::functions::{Body, Declare};
use crate::value::{Library, Value};

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Check {
    /// About this service account (namespace, name) instead of the user of the request.
    pub service_account: Option<(String, String)>,
    /// The verb.
    pub verb: String,
    /// A path that is no resource; then the rest is empty.
    pub path: Option<String>,
    /// The API group.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// The subresource.
    pub subresource: String,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// A field selector, as it was written.
    pub fields: String,
    /// A label selector, as it was written.
    pub labels: String,
}

impl Check {
    /// Who the question is about.
    pub fn user(&self, request: &UserInfo) -> UserInfo {
        match &self.service_account {
            None => request.clone(),
            Some((namespace, name)) => UserInfo::new(
                format!("system:serviceaccount:{namespace}:{name}"),
                ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")],
            ),
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Yes.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// What went wrong while deciding.
    pub error: Option<String>,
}

/// The answers known so far, of one request.
#[derive(Clone, Debug, Default)]
pub struct Decisions(Arc<Mutex<HashMap<Check, Decision>>>);

impl Decisions {
    /// Adds an answer.
    pub fn add(&self, check: Check, decision: Decision) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(check, decision);
    }

    fn get(&self, check: &Check) -> Option<Decision> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(check).cloned()
    }

    /// The value of the variable `authorizer`.
    pub fn authorizer(&self) -> Value<'static> {
        value(Authorization::Asking {
            step: Step::Authorizer,
            check: Box::default(),
            decisions: self.clone(),
        })
    }

    /// The value of the variable `authorizer.requestResource`.
    pub fn resource(&self, check: Check) -> Value<'static> {
        value(Authorization::Asking { step: Step::Resource, check: Box::new(check), decisions: self.clone() })
    }
}

/// Part of a question, or its answer.
#[derive(Clone, Debug)]
pub enum Authorization {
    /// A question so far.
    Asking {
        /// What it is about so far.
        step: Step,
        /// The question.
        check: Box<Check>,
        /// Where answers are.
        decisions: Decisions,
    },
    /// The answer.
    Answer(Decision),
}

/// How far a question is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet.
    Authorizer,
    /// A path.
    Path,
    /// A group.
    Group,
    /// A resource.
    Resource,
}

impl PartialEq for Authorization {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Asking { step: a, check: x, .. }, Self::Asking { step: b, check: y, .. }) => {
                a == b && x == y
            }
            (Self::Answer(a), Self::Answer(b)) => a == b,
            _ => false,
        }
    }
}

impl Authorization {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Asking { step: Step::Authorizer, .. } => "kubernetes.authorization.Authorizer",
            Self::Asking { step: Step::Path, .. } => "kubernetes.authorization.PathCheck",
            Self::Asking { step: Step::Group, .. } => "kubernetes.authorization.GroupCheck",
            Self::Asking { step: Step::Resource, .. } => "kubernetes.authorization.ResourceCheck",
            Self::Answer(_) => "kubernetes.authorization.Decision",
        }
    }
}

fn value(part: Authorization) -> Value<'static> {
    Value::Library(Library::Authorization(Arc::new(part)))
}

pub(super) fn declare(declare: Declare<'_>) {
    let steps: [(&str, &str, &str, &str, Body); 7] = [
        ("authorizer_path", "Authorizer", "path(string)", "PathCheck", |args| {
            next(args, Step::Path, |check, path| {
                if path.trim().is_empty() {
                    return fail("path must not be empty");
                }
                check.path = Some(path);
                Ok(())
            })
        }),
        ("authorizer_group", "Authorizer", "group(string)", "GroupCheck", |args| {
            next(args, Step::Group, |check, group| set(&mut check.group, group))
        }),
        ("groupcheck_resource", "GroupCheck", "resource(string)", "ResourceCheck", |args| {
            next(args, Step::Resource, |check, resource| {
                if resource.trim().is_empty() {
                    return fail("resource must not be empty");
                }
                set(&mut check.resource, resource)
            })
        }),
        ("resourcecheck_subresource", "ResourceCheck", "subresource(string)", "ResourceCheck", |args| {
            next(args, Step::Resource, |check, subresource| set(&mut check.subresource, subresource))
        }),
        ("resourcecheck_namespace", "ResourceCheck", "namespace(string)", "ResourceCheck", |args| {
            next(args, Step::Resource, |check, namespace| set(&mut check.namespace, namespace))
        }),
        ("resourcecheck_name", "ResourceCheck", "name(string)", "ResourceCheck", |args| {
            next(args, Step::Resource, |check, name| set(&mut check.name, name))
        }),
        ("authorizer_fieldselector", "ResourceCheck", "fieldSelector(string)", "ResourceCheck", |args| {
            next(args, Step::Resource, |check, selector| set(&mut check.fields, selector))
        }),
    ];
    for (id, from, call, to, body) in steps {
        let prefix = "kubernetes.authorization.";
        declare(id, &format!("({prefix}{from}).{call} -> {prefix}{to}"), body);
    }
    let resource = "kubernetes.authorization.ResourceCheck";
    declare(
        "authorizer_labelselector",
        &format!("({resource}).labelSelector(string) -> {resource}"),
        |args| next(args, Step::Resource, |check, selector| set(&mut check.labels, selector)),
    );
    let authorizer = "kubernetes.authorization.Authorizer";
    let account = format!("({authorizer}).serviceAccount(string, string) -> {authorizer}");
    declare("authorizer_serviceaccount", &account, service_account);
    let decision = "kubernetes.authorization.Decision";
    for (id, from) in [("pathcheck_check", "PathCheck"), ("resourcecheck_check", "ResourceCheck")] {
        declare(id, &format!("(kubernetes.authorization.{from}).check(string) -> {decision}"), check);
    }
    let answers: [(&str, &str, Body); 4] = [
        ("allowed", "bool", |args| answer(args, |decision| decision.allowed.into())),
        ("reason", "string", |args| answer(args, |decision| decision.reason.clone().into())),
        ("errored", "bool", |args| answer(args, |decision| decision.error.is_some().into())),
        ("error", "string", |args| {
            answer(args, |decision| decision.error.clone().unwrap_or_default().into())
        }),
    ];
    for (name, kind, body) in answers {
        declare(&format!("decision_{name}"), &format!("({decision}).{name}() -> {kind}"), body);
    }
}

fn set(field: &mut String, to: String) -> Result<(), EvalError> {
    *field = to;
    Ok(())
}

fn next<'a>(
    args: &[Value<'a>],
    to: Step,
    change: fn(&mut Check, String) -> Result<(), EvalError>,
) -> Outcome<'a> {
    let [Value::Library(Library::Authorization(part)), Value::String(text)] = args else { return mismatch() };
    let Authorization::Asking { check, decisions, .. } = &**part else { return mismatch() };
    let mut check = check.clone();
    change(&mut check, text.to_string())?;
    Ok(value(Authorization::Asking { step: to, check, decisions: decisions.clone() }))
}

fn service_account<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Library(Library::Authorization(part)), Value::String(namespace), Value::String(name)] = args
    else {
        return mismatch();
    };
    let Authorization::Asking { check, decisions, .. } = &**part else { return mismatch() };
    if !names::dns1123_subdomain(name).is_empty() {
        return fail("Invalid service account name");
    }
    if !names::dns1123_label(namespace).is_empty() {
        return fail("Invalid service account namespace");
    }
    let service_account = Some((namespace.to_string(), name.to_string()));
    let check = Box::new(Check { service_account, ..(**check).clone() });
    Ok(value(Authorization::Asking { step: Step::Authorizer, check, decisions: decisions.clone() }))
}

fn check<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Library(Library::Authorization(part)), Value::String(verb)] = args else { return mismatch() };
    let Authorization::Asking { check, decisions, .. } = &**part else { return mismatch() };
    let check = Check { verb: verb.to_string(), ..(**check).clone() };
    match decisions.get(&check) {
        Some(decision) => Ok(value(Authorization::Answer(decision))),
        None => Err(EvalError::Pending(Box::new(check))),
    }
}

fn answer<'a>(args: &[Value<'a>], of: fn(&Decision) -> Value<'static>) -> Outcome<'a> {
    match args {
        [Value::Library(Library::Authorization(part))] => match &**part {
            Authorization::Answer(decision) => Ok(of(decision)),
            Authorization::Asking { .. } => mismatch(),
        },
        _ => mismatch(),
    }
}
