//! Which paths the kinds make and what can be done on each, before either version of OpenAPI words it.

use super::schemas::{definition_name, list_name};
use crate::kind::KindInfo;
use crate::schema::Schema;
use serde_json::{Value, json};
use skep_api::resource::GroupVersionKind;

/// One path.
pub(super) struct Endpoint {
    pub(super) path: String,
    pub(super) tag: String,
    /// Parameters inside the path.
    pub(super) parameters: Vec<&'static str>,
    pub(super) operations: Vec<Operation>,
}

/// One method on a path.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) action: &'static str,
    pub(super) id: String,
    pub(super) gvk: Value,
    pub(super) query: Vec<(&'static str, &'static str)>,
    /// Definition of the body.
    pub(super) body: Option<String>,
    pub(super) body_required: bool,
    pub(super) consumes: Vec<&'static str>,
    /// Definition of the answer.
    pub(super) response: String,
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

const WRITE: [(&str, &str); 3] =
    [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const FORCE: (&str, &str) = ("force", "boolean");
const LIST: [(&str, &str); 10] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const DELETE: [(&str, &str); 4] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

const ANY: [&str; 1] = ["*/*"];
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// All paths of the kinds.
pub(super) fn endpoints(kinds: &[KindInfo]) -> Vec<Endpoint> {
    kinds.iter().flat_map(of_kind).filter(|endpoint| !endpoint.operations.is_empty()).collect()
}

fn of_kind(kind: &KindInfo) -> Vec<Endpoint> {
    let root = format!("/{}", super::v3_path(&kind.gvk.group, &kind.gvk.version));
    let (collection, scope) = if kind.namespaced {
        (format!("{root}/namespaces/{{namespace}}/{}", kind.plural), vec!["namespace"])
    } else {
        (format!("{root}/{}", kind.plural), Vec::new())
    };
    let item_scope: Vec<&str> = std::iter::once("name").chain(scope.iter().copied()).collect();
    let tag = tag(&kind.gvk);
    let endpoint = |path: String, parameters: &[&'static str], operations: Vec<Operation>| Endpoint {
        path,
        tag: tag.clone(),
        parameters: parameters.to_vec(),
        operations,
    };
    let mut out = vec![
        endpoint(collection.clone(), &scope, on_collection(kind)),
        endpoint(format!("{collection}/{{name}}"), &item_scope, on_item(kind)),
    ];
    if kind.namespaced && kind.has_verb("list") {
        let mut list = list_operation(kind, "ForAllNamespaces");
        list.id = format!("list{}{}ForAllNamespaces", prefix(&kind.gvk), kind.gvk.kind);
        out.push(endpoint(format!("{root}/{}", kind.plural), &[], vec![list]));
    }
    for sub in &kind.subresources {
        // A subresource that streams has no schema to describe.
        let Some(schema) = definition_of(&sub.gvk, kind) else { continue };
        let suffix = capital(&sub.name);
        let has = |verb: &str| sub.verbs.iter().any(|other| other == verb);
        let mut operations = Vec::new();
        if has("get") {
            operations.push(operation(kind, &sub.gvk, ("get", "get", "read"), &suffix, schema.clone()));
        }
        if has("update") {
            operations.push(write(operation(
                kind,
                &sub.gvk,
                ("put", "put", "replace"),
                &suffix,
                schema.clone(),
            )));
        }
        if has("create") {
            operations.push(write(operation(
                kind,
                &sub.gvk,
                ("post", "post", "create"),
                &suffix,
                schema.clone(),
            )));
        }
        if has("patch") {
            operations.push(patch(operation(kind, &sub.gvk, ("patch", "patch", "patch"), &suffix, schema)));
        }
        out.push(endpoint(format!("{collection}/{{name}}/{}", sub.name), &item_scope, operations));
    }
    out
}

fn definition_of(gvk: &GroupVersionKind, kind: &KindInfo) -> Option<String> {
    if *gvk == kind.gvk {
        return Some(definition_name(kind));
    }
    Schema::of(gvk).map(crate::schema::Message::openapi_name)
}

fn on_collection(kind: &KindInfo) -> Vec<Operation> {
    let mut out = Vec::new();
    if kind.has_verb("list") {
        out.push(list_operation(kind, ""));
    }
    if kind.has_verb("create") {
        out.push(write(operation(kind, &kind.gvk, ("post", "post", "create"), "", definition_name(kind))));
    }
    if kind.has_verb("deletecollection") {
        let verb = ("delete", "deletecollection", "deleteCollection");
        let mut operation = delete(operation(kind, &kind.gvk, verb, "", format!("{META}.Status")));
        operation.query.extend(LIST);
        out.push(operation);
    }
    out
}

fn list_operation(kind: &KindInfo, suffix: &str) -> Operation {
    let mut operation = operation(kind, &kind.gvk, ("get", "list", "list"), suffix, list_name(kind));
    operation.query.extend(LIST);
    operation
}

fn on_item(kind: &KindInfo) -> Vec<Operation> {
    let mut out = Vec::new();
    let name = definition_name(kind);
    if kind.has_verb("get") {
        out.push(operation(kind, &kind.gvk, ("get", "get", "read"), "", name.clone()));
    }
    if kind.has_verb("update") {
        out.push(write(operation(kind, &kind.gvk, ("put", "put", "replace"), "", name.clone())));
    }
    if kind.has_verb("patch") {
        out.push(patch(operation(kind, &kind.gvk, ("patch", "patch", "patch"), "", name)));
    }
    if kind.has_verb("delete") {
        out.push(delete(operation(
            kind,
            &kind.gvk,
            ("delete", "delete", "delete"),
            "",
            format!("{META}.Status"),
        )));
    }
    out
}

fn operation(
    kind: &KindInfo,
    gvk: &GroupVersionKind,
    (method, action, verb): (&'static str, &'static str, &str),
    suffix: &str,
    response: String,
) -> Operation {
    let scope = if kind.namespaced { "Namespaced" } else { "" };
    Operation {
        method,
        action,
        id: format!("{verb}{}{scope}{}{suffix}", prefix(&kind.gvk), kind.gvk.kind),
        gvk: json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind}),
        query: Vec::new(),
        body: None,
        body_required: false,
        consumes: ANY.to_vec(),
        response,
    }
}

fn write(mut operation: Operation) -> Operation {
    operation.query.extend(WRITE);
    operation.body = Some(operation.response.clone());
    operation.body_required = true;
    operation
}

fn patch(mut operation: Operation) -> Operation {
    operation.query.extend(WRITE);
    operation.query.push(FORCE);
    operation.body = Some(format!("{META}.Patch"));
    operation.body_required = true;
    operation.consumes = PATCHES.to_vec();
    operation
}

fn delete(mut operation: Operation) -> Operation {
    operation.query.extend(DELETE);
    operation.body = Some(format!("{META}.DeleteOptions"));
    operation
}

/// `AppsV1`, `CoreV1`, `RbacAuthorizationV1`.
fn prefix(gvk: &GroupVersionKind) -> String {
    let group = if gvk.group.is_empty() { "core" } else { gvk.group.trim_end_matches(".k8s.io") };
    let group: String = group.split(['.', '-']).map(capital).collect();
    format!("{group}{}", capital(&gvk.version))
}

/// `apps_v1`, `core_v1`.
fn tag(gvk: &GroupVersionKind) -> String {
    let text = prefix(gvk);
    let version = capital(&gvk.version);
    let group = text.strip_suffix(&version).unwrap_or(&text);
    let mut letters = group.chars();
    let group: String =
        letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect();
    format!("{group}_{}", gvk.version)
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}
