//! The environment of expressions in admission: match conditions of webhooks, and policies.

use std::sync::Arc;

use crate::env::{Env, Program};
use crate::schema::Schema;
use crate::types::Type;

/// Which variables there are, and what is known of them.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// The type of `object` and `oldObject`; unknown when policies are run, known when they are checked.
    pub object: Option<Arc<Schema>>,
    /// There is `params`.
    pub has_params: bool,
    /// Its type, where it is known.
    pub params: Option<Arc<Schema>>,
    /// There is `authorizer`.
    pub has_authorizer: bool,
    /// Objects of the types `Object` and `JSONPatch` can be made.
    pub has_patches: bool,
}

impl Setting {
    /// The environment, without `variables`.
    pub fn env(&self) -> Env {
        let mut env =
            Env::new().with_variable("request", request()).with_variable("namespaceObject", namespace());
        for name in ["object", "oldObject"] {
            env = match &self.object {
                Some(schema) => env.with_schema(name, Arc::clone(schema)),
                None => env.with_variable(name, Type::Dyn),
            };
        }
        if self.has_params {
            env = match &self.params {
                Some(schema) => env.with_schema("params", Arc::clone(schema)),
                None => env.with_variable("params", Type::Dyn),
            };
        }
        if self.has_authorizer {
            let library =
                |name: &str| Type::object::<String>(&format!("kubernetes.authorization.{name}"), []);
            env = env
                .with_variable("authorizer", library("Authorizer"))
                .with_variable("authorizer.requestResource", library("ResourceCheck"));
        }
        if self.has_patches {
            let patch =
                [("op", Type::String), ("path", Type::String), ("from", Type::String), ("value", Type::Dyn)];
            env = env
                .with_structure("JSONPatch", Type::object("JSONPatch", patch))
                .with_open_structure("Object");
        }
        env
    }
}

/// Variables of a policy, declared one after the other: each sees those before it.
#[derive(Clone, Debug, Default)]
pub struct Composition {
    fields: Vec<(String, Type)>,
}

impl Composition {
    /// No variables yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a variable with the type its expression has; one that does not compile is of no known type.
    pub fn declare(&mut self, name: &str, program: Option<&Program>) {
        let kind = program.map_or(Type::Dyn, |program| program.kind().clone());
        self.fields.push((name.to_owned(), kind));
    }

    /// The environment with the variables so far.
    pub fn extend(&self, env: Env) -> Env {
        let all = Type::object("kubernetes.variables", self.fields.iter().cloned());
        let env = env.with_variable("variables", all);
        self.fields
            .iter()
            .fold(env, |env, (name, kind)| env.with_variable(&format!("variables.{name}"), kind.clone()))
    }
}

fn texts(name: &str, fields: &[&str]) -> Type {
    Type::object(name, fields.iter().map(|field| (*field, Type::String)))
}

fn request() -> Type {
    let kind = texts("kubernetes.GroupVersionKind", &["group", "version", "kind"]);
    let resource = texts("kubernetes.GroupVersionResource", &["group", "version", "resource"]);
    let user = Type::object(
        "kubernetes.UserInfo",
        [
            ("username", Type::String),
            ("uid", Type::String),
            ("groups", Type::list(Type::String)),
            ("extra", Type::map(Type::String, Type::list(Type::String))),
        ],
    );
    Type::object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", Type::String),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", Type::String),
            ("name", Type::String),
            ("namespace", Type::String),
            ("operation", Type::String),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
}

fn namespace() -> Type {
    let condition = Type::object(
        "kubernetes.NamespaceCondition",
        [
            ("status", Type::String),
            ("type", Type::String),
            ("lastTransitionTime", Type::Timestamp),
            ("message", Type::String),
            ("reason", Type::String),
        ],
    );
    let status = Type::object(
        "kubernetes.NamespaceStatus",
        [("conditions", Type::list(condition)), ("phase", Type::String)],
    );
    let labels = Type::map(Type::String, Type::String);
    let metadata = Type::object(
        "kubernetes.NamespaceMetadata",
        [
            ("name", Type::String),
            ("generateName", Type::String),
            ("namespace", Type::String),
            ("labels", labels.clone()),
            ("annotations", labels),
            ("UID", Type::String),
            ("creationTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Timestamp),
            ("generation", Type::Int),
            ("resourceVersion", Type::String),
            ("finalizers", Type::list(Type::String)),
        ],
    );
    let spec = Type::object("kubernetes.NamespaceSpec", [("finalizers", Type::list(Type::String))]);
    Type::object("kubernetes.Namespace", [("metadata", metadata), ("spec", spec), ("status", status)])
}

/// The schema by which values of `namespaceObject` are read.
pub fn namespace_schema() -> Schema {
    let text = serde_json::json!({"type": "string"});
    let time = serde_json::json!({"type": "string", "format": "date-time"});
    let texts = serde_json::json!({"type": "array", "items": text});
    let map = serde_json::json!({"type": "object", "additionalProperties": text});
    let number = serde_json::json!({"type": "integer"});
    let structural = serde_json::json!({"type": "object", "properties": {
        "metadata": {"type": "object", "properties": {
            "name": text, "generateName": text, "labels": map, "annotations": map,
            "creationTimestamp": time, "deletionGracePeriodSeconds": number, "deletionTimestamp": time,
            "generation": number, "resourceVersion": text, "finalizers": texts,
        }},
        "spec": {"type": "object", "properties": {"finalizers": texts}},
        "status": {"type": "object", "properties": {
            "phase": text,
            "conditions": {"type": "array", "items": {"type": "object", "properties": {
                "status": text, "type": text, "lastTransitionTime": time, "message": text, "reason": text,
            }}},
        }},
    }});
    Schema::from_structural(&structural, "kubernetes.Namespace", crate::SchemaOptions::default())
        .unwrap_or_else(Schema::any)
}
