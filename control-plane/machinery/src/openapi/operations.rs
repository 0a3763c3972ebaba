//! Which paths the kinds make and what can be done on each, before either version of OpenAPI words it.

use super::schemas::{definition_name, list_name};
use crate::kind::{KindInfo, SubresourceInfo, returns_deleted};
use crate::schema::{Schema, Type};
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
    pub(super) description: String,
    pub(super) gvk: Value,
    pub(super) query: Vec<(&'static str, &'static str)>,
    /// Definition of the body.
    pub(super) body: Option<String>,
    pub(super) body_required: bool,
    pub(super) consumes: &'static [&'static str],
    pub(super) produces: &'static [&'static str],
    /// Definition of the answer; none when it is text or a stream.
    pub(super) response: Option<String>,
    /// Codes of success, with what they say.
    pub(super) codes: &'static [(&'static str, &'static str)],
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
const DELETE: [(&str, &str); 5] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

const ANY: &[&str] = &["*/*"];
const OBJECTS: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const LISTS: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const LOG: &[&str] =
    &["text/plain", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const READ: &[(&str, &str)] = &[("200", "OK")];
const REPLACED: &[(&str, &str)] = &[("200", "OK"), ("201", "Created")];
const CREATED: &[(&str, &str)] = &[("200", "OK"), ("201", "Created"), ("202", "Accepted")];
const DELETED: &[(&str, &str)] = &[("200", "OK"), ("202", "Accepted")];
const STREAM_METHODS: &[&str] = &["get", "post"];
const PROXY_METHODS: &[&str] = &["delete", "get", "head", "options", "patch", "post", "put"];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Custom resources know no strategic merge: clients choose the kind of a patch by this list.
const CUSTOM_PATCHES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

/// All paths of the kinds.
pub(super) fn endpoints(kinds: &[KindInfo]) -> Vec<Endpoint> {
    let patched = |(kind, mut endpoint): (&KindInfo, Endpoint)| {
        for operation in &mut endpoint.operations {
            if kind.schema.is_some() && operation.consumes == PATCHES {
                operation.consumes = CUSTOM_PATCHES;
            }
        }
        endpoint
    };
    let all = kinds.iter().flat_map(|kind| of_kind(kind).into_iter().map(move |endpoint| (kind, endpoint)));
    all.map(patched).filter(|endpoint| !endpoint.operations.is_empty()).collect()
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
        let path = format!("{collection}/{{name}}/{}", sub.name);
        if sub.gvk.kind.ends_with("Options") {
            let methods = if sub.name == "proxy" { PROXY_METHODS } else { STREAM_METHODS };
            out.push(endpoint(path.clone(), &item_scope, connect(kind, sub, methods, "")));
            if sub.name == "proxy" {
                let scope: Vec<&str> = item_scope.iter().copied().chain(["path"]).collect();
                let operations = connect(kind, sub, methods, "WithPath");
                out.push(endpoint(format!("{path}/{{path}}"), &scope, operations));
            }
        } else {
            out.push(endpoint(path, &item_scope, on_subresource(kind, sub)));
        }
    }
    out
}

/// Methods that open a stream or pass a request on; the query is the options' fields.
fn connect(kind: &KindInfo, sub: &SubresourceInfo, methods: &[&'static str], suffix: &str) -> Vec<Operation> {
    let one = |method: &&'static str| {
        let mut operation = operation(kind, &sub.gvk, (method, "connect", "connect"), "", String::new());
        let scope = if kind.namespaced { "Namespaced" } else { "" };
        operation.id = format!(
            "connect{}{}{scope}{}{}{suffix}",
            prefix(&kind.gvk),
            capital(method),
            kind.gvk.kind,
            capital(&sub.name)
        );
        operation.description =
            format!("connect {} requests to {} of {}", method.to_uppercase(), sub.name, kind.gvk.kind);
        operation.query = options(&sub.gvk);
        operation.produces = ANY;
        operation.response = None;
        operation
    };
    methods.iter().map(one).collect()
}

/// The fields of an options message as query parameters.
fn options(gvk: &GroupVersionKind) -> Vec<(&'static str, &'static str)> {
    let fields = Schema::of(gvk).into_iter().flat_map(crate::schema::Message::json_fields);
    fields
        .filter_map(|field| {
            let ty = match field.ty.leaf() {
                Type::Bool => "boolean",
                Type::Int32 | Type::Int64 => "integer",
                Type::String | Type::Time => "string",
                _ => return None,
            };
            Some((field.json, ty))
        })
        .collect()
}

fn on_subresource(kind: &KindInfo, sub: &SubresourceInfo) -> Vec<Operation> {
    let Some(schema) = definition_of(&sub.gvk, kind) else { return Vec::new() };
    let suffix = capital(&sub.name);
    let has = |verb: &str| sub.verbs.iter().any(|other| other == verb);
    let of = |words: (&'static str, &'static str, &str), what: &str| {
        let mut operation = operation(kind, &sub.gvk, words, &suffix, schema.clone());
        operation.description = what.to_owned();
        operation
    };
    let the = format!("{} of the specified {}", sub.name, kind.gvk.kind);
    let mut out = Vec::new();
    if has("get") {
        let mut get = of(("get", "get", "read"), &format!("read {the}"));
        if sub.name == "log" {
            get.produces = LOG;
            get.response = None;
            get.query = options(&GroupVersionKind { kind: "PodLogOptions".to_owned(), ..kind.gvk.clone() });
        }
        out.push(get);
    }
    if has("update") {
        out.push(write(of(("put", "put", "replace"), &format!("replace {the}")), REPLACED));
    }
    if has("create") {
        let text = format!("create {} of {}", sub.name, one(&kind.gvk.kind));
        out.push(write(of(("post", "post", "create"), &text), CREATED));
    }
    if has("patch") {
        out.push(patch(of(("patch", "patch", "patch"), &format!("partially update {the}"))));
    }
    out
}

/// A kind with its article; one that is a plural has none.
fn one(kind: &str) -> String {
    match kind {
        kind if kind == "Endpoints" => kind.to_owned(),
        kind if kind.starts_with(['A', 'E', 'I', 'O', 'U']) => format!("an {kind}"),
        kind => format!("a {kind}"),
    }
}

fn definition_of(gvk: &GroupVersionKind, kind: &KindInfo) -> Option<String> {
    if *gvk == kind.gvk {
        return Some(definition_name(kind));
    }
    Schema::of(gvk).map(crate::schema::Message::openapi_name)
}

fn on_collection(kind: &KindInfo) -> Vec<Operation> {
    let mut out = Vec::new();
    let name = &kind.gvk.kind;
    if kind.has_verb("list") {
        out.push(list_operation(kind, ""));
    }
    if kind.has_verb("create") {
        let mut create =
            write(operation(kind, &kind.gvk, ("post", "post", "create"), "", definition_name(kind)), CREATED);
        create.description = format!("create {}", one(name));
        out.push(create);
    }
    if kind.has_verb("deletecollection") {
        let verb = ("delete", "deletecollection", "delete");
        let mut operation = delete(operation(kind, &kind.gvk, verb, "", format!("{META}.Status")), READ);
        let scope = if kind.namespaced { "Namespaced" } else { "" };
        operation.id = format!("delete{}Collection{scope}{name}", prefix(&kind.gvk));
        operation.description = format!("delete collection of {name}");
        operation
            .query
            .extend(LIST.into_iter().filter(|(name, _)| !["watch", "allowWatchBookmarks"].contains(name)));
        out.push(operation);
    }
    out
}

fn list_operation(kind: &KindInfo, suffix: &str) -> Operation {
    let mut operation = operation(kind, &kind.gvk, ("get", "list", "list"), suffix, list_name(kind));
    operation.description = format!("list or watch objects of kind {}", kind.gvk.kind);
    operation.query.extend(LIST);
    if kind.has_verb("watch") {
        operation.produces = LISTS;
    }
    operation
}

fn on_item(kind: &KindInfo) -> Vec<Operation> {
    let mut out = Vec::new();
    let of = |words: (&'static str, &'static str, &str), what: &str| {
        let mut operation = operation(kind, &kind.gvk, words, "", definition_name(kind));
        operation.description = format!("{what} {}", kind.gvk.kind);
        operation
    };
    if kind.has_verb("get") {
        out.push(of(("get", "get", "read"), "read the specified"));
    }
    if kind.has_verb("update") {
        out.push(write(of(("put", "put", "replace"), "replace the specified"), REPLACED));
    }
    if kind.has_verb("patch") {
        out.push(patch(of(("patch", "patch", "patch"), "partially update the specified")));
    }
    if kind.has_verb("delete") {
        let mut operation = delete(of(("delete", "delete", "delete"), "delete"), DELETED);
        operation.description = format!("delete {}", one(&kind.gvk.kind));
        if !returns_deleted(&kind.gvk) {
            operation.response = Some(format!("{META}.Status"));
        }
        out.push(operation);
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
        description: String::new(),
        gvk: json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind}),
        query: Vec::new(),
        body: None,
        body_required: false,
        consumes: ANY,
        produces: OBJECTS,
        response: Some(response),
        codes: READ,
    }
}

fn write(mut operation: Operation, codes: &'static [(&'static str, &'static str)]) -> Operation {
    operation.query.extend(WRITE);
    operation.body.clone_from(&operation.response);
    operation.body_required = true;
    operation.codes = codes;
    operation
}

fn patch(mut operation: Operation) -> Operation {
    operation.query.extend(WRITE);
    operation.query.push(FORCE);
    operation.body = Some(format!("{META}.Patch"));
    operation.body_required = true;
    operation.consumes = PATCHES;
    operation.codes = REPLACED;
    operation
}

fn delete(mut operation: Operation, codes: &'static [(&'static str, &'static str)]) -> Operation {
    operation.query.extend(DELETE);
    operation.body = Some(format!("{META}.DeleteOptions"));
    operation.codes = codes;
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
