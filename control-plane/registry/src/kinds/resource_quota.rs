//! ResourceQuota: how much a namespace may hold.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::{Error, ErrorList};
use skep_api::object::ObjectExt;
use skep_api::quantity::Quantity;

use super::pod::defaults::quantities;
use super::{namespaced, resource_name, status};
use crate::strategy::check::{At, check};
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["quota"],
    subresources: &[status("", "v1", "ResourceQuota")],
    ..namespaced("", "v1", "ResourceQuota", "resourcequotas", &ResourceQuota)
};

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

struct ResourceQuota;

/// Pairs of scopes that leave nothing between them.
const OPPOSITES: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
/// Scopes that are there or not, without a value.
const PLAIN: &str = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";

fn amounts(list: &At<'_>) {
    for (resource, amount) in list.entries() {
        resource_name::of_quota(&amount, resource);
        resource_name::amount(&amount, resource);
    }
}

/// Does a scope say anything of a resource?
fn applies(scope: &str, resource: &str) -> bool {
    let compute = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"]
        .contains(&resource);
    match scope {
        "CrossNamespacePodAffinity"
        | "NotBestEffort"
        | "NotTerminating"
        | "PriorityClass"
        | "Terminating" => resource == "pods" || compute,
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => ["persistentvolumeclaims", "requests.storage"].contains(&resource),
        _ => true,
    }
}

/// How many of the bounded resources a scope says nothing of.
fn misapplied(spec: &At<'_>, scope: &str) -> usize {
    let hard = spec.child("hard");
    let odd = |resource: &&str| resource_name::in_quota(resource) && !applies(scope, resource);
    hard.entries().iter().map(|(resource, _)| *resource).filter(odd).count()
}

fn opposites(at: &At<'_>, value: &At<'_>, scopes: &[&str]) {
    for pair in OPPOSITES {
        if pair.iter().all(|scope| scopes.contains(scope)) {
            value.told_at(at.path().clone()).invalid("conflicting scopes");
        }
    }
}

fn scopes(spec: &At<'_>) {
    let scopes = spec.child("scopes");
    let names: Vec<&str> = scopes.items().iter().map(At::text).collect();
    for scope in &names {
        if !SCOPES.contains(scope) {
            scopes.invalid("unsupported scope");
        }
        for _ in 0..misapplied(spec, scope) {
            scopes.invalid("unsupported scope applied to resource");
        }
    }
    opposites(&scopes, &scopes, &names);
}

fn scope_selector(spec: &At<'_>) {
    let selector = spec.child("scopeSelector");
    let list = selector.child("matchExpressions");
    let mut names = Vec::new();
    for expression in list.items() {
        // Upstream tells these of the list, not of its item.
        let at = |field: &str| expression.child(field).told_at(list.path().child(field));
        let (scope, operator, values) = (at("scopeName"), at("operator"), at("values"));
        if !SCOPES.contains(&scope.text()) {
            scope.error(Error::invalid(scope.path(), scope.text(), "unsupported scope"));
        }
        for _ in 0..misapplied(spec, scope.text()) {
            selector.told_at(list.path().clone()).invalid("unsupported scope applied to resource");
        }
        let valued = ["PriorityClass", "VolumeAttributesClass"].contains(&scope.text());
        if SCOPES.contains(&scope.text()) && !valued && operator.text() != "Exists" {
            operator.error(Error::invalid(operator.path(), operator.text(), PLAIN));
        }
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => values
                .required("must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"),
            "Exists" | "DoesNotExist" if !values.is_empty() => values
                .invalid("must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            text => operator.error(Error::invalid(operator.path(), text, "not a valid selector operator")),
        }
        names.push(scope.text());
    }
    opposites(&list, &spec.child("scopes"), &names);
}

/// Requests that could never be used up, as the limits of the same are lower.
fn reversed(quota: &Value) -> Vec<String> {
    let amount = |name: &str| quota.text(&["spec", "hard", name]).parse::<Quantity>().ok();
    let mut told = Vec::new();
    for resource in ["cpu", "memory", "storage", "ephemeral-storage"] {
        let mut name = format!("requests.{resource}");
        let mut request = amount(&name);
        if request.is_none() && ["cpu", "memory"].contains(&resource) {
            resource.clone_into(&mut name);
            request = amount(resource);
        }
        let most = format!("limits.{resource}");
        if let (Some(request), Some(limit)) = (request, amount(&most))
            && request > limit
        {
            told.push(format!("ResourceQuota {name} ({request}) should be less than {most} ({limit})"));
        }
    }
    told
}

/// `cpu: 1/2, memory: 0/1Gi` of the resources of one kind.
fn usage(object: &Value, limits: bool) -> String {
    let hard = object.map(&["status", "hard"]).cloned().unwrap_or_default();
    let mut parts: Vec<String> = hard
        .iter()
        .filter(|(name, _)| name.starts_with("limits") == limits)
        .map(|(name, most)| {
            let used = object.text(&["status", "used", name]);
            format!("{name}: {}/{}", printer::or(used, "0"), most.as_str().unwrap_or_default())
        })
        .collect();
    parts.sort();
    parts.join(", ")
}

impl Strategy for ResourceQuota {
    fn default(&self, object: &mut Value) {
        for path in [["spec", "hard"], ["status", "hard"], ["status", "used"]] {
            quantities(object, &path);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            amounts(&spec.child("hard"));
            scopes(&spec);
            scope_selector(&spec);
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(new);
        errors.extend(check(new, |root| {
            let scopes = root.child("spec").child("scopes");
            let set = |object: &Value| -> BTreeSet<String> {
                let texts = object.items(&["spec", "scopes"]).iter().filter_map(Value::as_str);
                texts.map(str::to_owned).collect()
            };
            if set(new) != set(old) {
                scopes.invalid("field is immutable");
            }
        }));
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> ErrorList {
        check(new, |root| {
            amounts(&root.down(&["status", "hard"]));
            amounts(&root.down(&["status", "used"]));
        })
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_none() { reversed(object) } else { Vec::new() }
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] =
            &[printer::NAME, printer::text("Request"), printer::text("Limit"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            usage(object, false).into(),
            usage(object, true).into(),
            printer::age(object, now),
        ]
    }
}
