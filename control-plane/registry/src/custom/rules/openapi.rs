//! The schema of a version: what is not supported, what contradicts itself, what defaults must be.

use serde_json::Value;
use skep_api::field::{Error, ErrorList, Path};
use skep_api::object::ObjectExt;
use skep_cel::{Budget, OBJECT_BUDGET};

use super::defaults::Defaults;
use super::validations;
use crate::custom::structural;
use crate::strategy::check;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Schemas nest no deeper.
const DEEPEST: usize = 256;

/// What may be said at the root where the status is written on its own.
const AT_ROOT: [(&str, &str); 22] = [
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
    ("x-kubernetes-validations", "XValidations"),
];

/// What was wrong with the definition before, and is waived for that.
pub(super) struct Before {
    /// The schema of the version is what it was.
    unchanged: bool,
    structural: bool,
    pruned_defaults: bool,
    atomic_sets: bool,
    keys: bool,
}

impl Before {
    /// Looks at the old definition.
    pub(super) fn new(old: &Value, version: &str, schema: &Value) -> Self {
        let mut versions = old.items(&["spec", "versions"]).iter();
        let same = versions.find(|before| before.text(&["name"]) == version);
        let same = same.and_then(|before| before.at(&["schema", "openAPIV3Schema"]));
        let schemas = || {
            let versions = old.items(&["spec", "versions"]).iter();
            versions.filter_map(|version| version.at(&["schema", "openAPIV3Schema"]))
        };
        let root = Path::root();
        let none = |test: &dyn Fn(&Value) -> bool| {
            schemas().all(|schema| {
                let mut found = false;
                each(schema, &mut |schema| found |= test(schema));
                !found
            })
        };
        Self {
            unchanged: same == Some(schema),
            structural: schemas().all(|schema| structural::validate(schema, &root).is_empty()),
            pruned_defaults: schemas().all(|schema| {
                let mut errors = ErrorList::new();
                let mut check =
                    Defaults { pruned: true, budget: Budget::new(OBJECT_BUDGET), errors: &mut errors };
                check.walk(schema, &root, true, 0);
                errors.is_empty()
            }),
            atomic_sets: none(&|schema| {
                let mut errors = ErrorList::new();
                atomic_set(schema, &root, &mut errors);
                !errors.is_empty()
            }),
            keys: none(&|schema| {
                let mut errors = ErrorList::new();
                map_keys(schema, &root, &mut errors);
                !errors.is_empty()
            }),
        }
    }
}

/// Visits a schema and all below it.
pub(super) fn each(schema: &Value, visit: &mut dyn FnMut(&Value)) {
    visit(schema);
    for name in ["items", "additionalProperties", "not"] {
        if let Some(inner) = schema.get(name).filter(|inner| inner.is_object()) {
            each(inner, visit);
        }
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        schema.items(&[name]).iter().for_each(|inner| each(inner, visit));
    }
    for (_, inner) in schema.map(&["properties"]).into_iter().flatten() {
        each(inner, visit);
    }
}

/// Every error of the schema of a version. `status`: its status is written on its own.
pub(super) fn validate(schema: &Value, path: &Path, status: bool, before: Option<&Before>) -> ErrorList {
    let mut errors = ErrorList::new();
    if status {
        at_root(schema, path, &mut errors);
    }
    if schema.flag(&["nullable"]) {
        errors.push(Error::forbidden(&path.child("nullable"), "nullable cannot be true at the root"));
    }
    if before.is_none_or(|before| before.structural) {
        let found = structural::validate(schema, path);
        if found.is_empty() {
            let pruned = before.is_none_or(|before| before.pruned_defaults);
            let mut check = Defaults { pruned, budget: Budget::new(OBJECT_BUDGET), errors: &mut errors };
            check.walk(schema, path, true, 0);
        }
        errors.extend(found);
    }
    let walk = Walk { before, meta: false, root: true, no_defaults: None };
    node(schema, path, &walk, 0, &mut errors);
    if errors.is_empty() {
        errors.extend(validations::validate(schema, path, before.is_some_and(|before| before.unchanged)));
    }
    errors
}

fn at_root(schema: &Value, path: &Path, errors: &mut ErrorList) {
    for (name, value) in schema.as_object().into_iter().flatten() {
        if check::is_empty(value) || *value == Value::Bool(false) {
            continue;
        }
        if name == "type" && value != "object" {
            let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource \
                          is enabled";
            return errors.push(Error::invalid(&path.child("type"), value.clone(), detail));
        }
        if !AT_ROOT.iter().any(|(known, _)| known == name) {
            let names: Vec<&str> = AT_ROOT.iter().map(|(_, name)| *name).collect();
            let detail = format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                names.join(" ")
            );
            return errors.push(Error::invalid(path, schema.clone(), detail));
        }
    }
}

/// Where in a schema the walk is.
#[derive(Clone, Copy)]
struct Walk<'b> {
    before: Option<&'b Before>,
    /// Below metadata, `apiVersion` or `kind` of a resource.
    meta: bool,
    root: bool,
    /// Why there may be no defaults here.
    no_defaults: Option<&'static str>,
}

fn node(schema: &Value, path: &Path, walk: &Walk<'_>, depth: usize, errors: &mut ErrorList) {
    if depth > DEEPEST || !schema.is_object() {
        return;
    }
    supported(schema, path, walk, errors);
    let inner = Walk { root: false, ..*walk };
    additional(schema, path, &inner, depth, errors);
    let resource = walk.root || schema.flag(&["x-kubernetes-embedded-resource"]);
    for (name, below) in schema.map(&["properties"]).into_iter().flatten() {
        let mut inner = inner;
        if resource && matches!(name.as_str(), "metadata" | "kind" | "apiVersion") {
            inner.meta = true;
            if walk.root {
                inner.no_defaults = Some(match name.as_str() {
                    "metadata" => "in top-level metadata",
                    "kind" => "in top-level kind",
                    _ => "in top-level apiVersion",
                });
            }
        }
        node(below, &path.child("properties").key(name), &inner, depth + 1, errors);
    }
    if let Some(not) = schema.get("not") {
        node(not, &path.child("not"), &inner, depth + 1, errors);
    }
    for name in ["allOf", "oneOf", "anyOf"] {
        for (index, below) in schema.items(&[name]).iter().enumerate() {
            node(below, &path.child(name).index(index), &inner, depth + 1, errors);
        }
    }
    if let Some(items) = schema.get("items") {
        node(items, &path.child("items"), &inner, depth + 1, errors);
    }
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        let here = path.child("x-kubernetes-preserve-unknown-fields");
        errors.push(Error::invalid(&here, false, "must be true or undefined"));
    }
    kinds_of_lists(schema, path, walk, errors);
}

fn supported(schema: &Value, path: &Path, walk: &Walk<'_>, errors: &mut ErrorList) {
    let ty = schema.text(&["type"]);
    if !ty.is_empty() && !TYPES.contains(&ty) {
        errors.push(Error::not_supported(&path.child("type"), ty, &TYPES));
    }
    if let (Some(reason), Some(_)) =
        (walk.no_defaults, schema.get("default").filter(|value| !value.is_null()))
    {
        errors.push(Error::forbidden(&path.child("default"), format!("must not be set {reason}")));
    }
    for name in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if schema.get(name).is_some_and(|value| !check::is_empty(value)) {
            errors.push(Error::forbidden(&path.child(name), format!("{name} is not supported")));
        }
    }
    if ty == "null" {
        let detail = "type cannot be set to null, use nullable as an alternative";
        errors.push(Error::forbidden(&path.child("type"), detail));
    }
    if schema.get("items").is_some_and(Value::is_array) {
        errors.push(Error::forbidden(&path.child("items"), "items must be a schema object and not an array"));
    }
    if walk.meta && schema.flag(&["x-kubernetes-embedded-resource"]) {
        let here = path.child("x-kubernetes-embedded-resource");
        errors.push(Error::forbidden(&here, "must not be used inside of resource meta"));
    }
    if schema.flag(&["uniqueItems"]) {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(Error::forbidden(&path.child("uniqueItems"), detail));
    }
}

fn additional(schema: &Value, path: &Path, walk: &Walk<'_>, depth: usize, errors: &mut ErrorList) {
    let Some(additional) = schema.get("additionalProperties").filter(|value| !value.is_null()) else {
        return;
    };
    let here = path.child("additionalProperties");
    let has_properties = schema.map(&["properties"]).is_some_and(|map| !map.is_empty());
    if has_properties && *additional != Value::Bool(true) {
        errors.push(Error::forbidden(&here, "additionalProperties and properties are mutual exclusive"));
    }
    let mut walk = *walk;
    if walk.meta {
        walk.no_defaults = Some("inside additionalProperties applying to object metadata");
    }
    node(additional, &here, &walk, depth + 1, errors);
}

fn kinds_of_lists(schema: &Value, path: &Path, walk: &Walk<'_>, errors: &mut ErrorList) {
    let ty = schema.text(&["type"]);
    let here = path.child("type");
    let must = |wanted: &str, extension: &str| {
        let detail = format!("must be {wanted} if {extension} is specified");
        if ty.is_empty() { Error::required(&here, detail) } else { Error::invalid(&here, ty, detail) }
    };
    if let Some(map_type) = schema.get("x-kubernetes-map-type").and_then(Value::as_str) {
        if ty != "object" {
            errors.push(must("object", "x-kubernetes-map-type"));
        }
        if !matches!(map_type, "atomic" | "granular") {
            let here = path.child("x-kubernetes-map-type");
            errors.push(Error::not_supported(&here, map_type, &["atomic", "granular"]));
        }
    }
    let list_type = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
    let type_path = path.child("x-kubernetes-list-type");
    if list_type.is_some() && ty != "array" {
        errors.push(must("array", "x-kubernetes-list-type"));
    } else if walk.before.is_none_or(|before| before.atomic_sets) {
        atomic_set(schema, path, errors);
    }
    if let Some(list_type) = list_type.filter(|text| !matches!(*text, "atomic" | "set" | "map")) {
        errors.push(Error::not_supported(&type_path, list_type, &["atomic", "set", "map"]));
    }
    if !schema.items(&["x-kubernetes-list-map-keys"]).is_empty() {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list_type {
            None => errors.push(Error::required(&type_path, detail)),
            Some("map") => {}
            Some(other) => errors.push(Error::invalid(&type_path, other, detail)),
        }
    }
    if list_type == Some("map") {
        keyed(schema, path, errors);
    }
    if walk.before.is_none_or(|before| before.keys) {
        map_keys(schema, path, errors);
    }
}

/// The elements of a set are compared as a whole.
fn atomic_set(schema: &Value, path: &Path, errors: &mut ErrorList) {
    if schema.text(&["x-kubernetes-list-type"]) != "set" {
        return;
    }
    let Some(items) = schema.get("items").filter(|items| items.is_object()) else { return };
    let (name, granular) = match items.text(&["type"]) {
        "array" => {
            let name = "x-kubernetes-list-type";
            (name, items.get(name).is_some_and(|list_type| list_type != "atomic"))
        }
        "object" => {
            let name = "x-kubernetes-map-type";
            (name, items.get(name).is_none_or(|map_type| map_type != "atomic"))
        }
        _ => return,
    };
    if granular {
        let given = items.get("x-kubernetes-list-type").cloned().unwrap_or(Value::Null);
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        errors.push(Error::invalid(&path.child("items").child(name), given, detail));
    }
}

fn keyed(schema: &Value, path: &Path, errors: &mut ErrorList) {
    let keys = schema.items(&["x-kubernetes-list-map-keys"]);
    let keys_path = path.child("x-kubernetes-list-map-keys");
    if keys.is_empty() {
        errors.push(Error::required(&keys_path, "must not be empty if x-kubernetes-list-type is map"));
    }
    let Some(items) = schema.get("items").filter(|items| items.is_object()) else {
        let detail = "must have a schema if x-kubernetes-list-type is map";
        return errors.push(Error::required(&path.child("items"), detail));
    };
    let ty = items.text(&["type"]);
    if ty != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        return errors.push(Error::invalid(&path.child("items").child("type"), ty, detail));
    }
    let list = || schema["x-kubernetes-list-map-keys"].clone();
    for (at, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        match items.at(&["properties", name]) {
            Some(property) if matches!(property.text(&["type"]), "array" | "object") => {
                let here = path.child("items").child("properties").key(name).child("type");
                let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                errors.push(Error::invalid(&here, ty, detail));
            }
            Some(_) => {}
            None => errors.push(Error::invalid(
                &keys_path,
                list(),
                "entries must all be names of item properties",
            )),
        }
        if keys[..at].contains(key) {
            errors.push(Error::invalid(&keys_path, list(), "must not contain duplicate entries"));
        }
    }
}

/// Keys are always there; elements are never null.
fn map_keys(schema: &Value, path: &Path, errors: &mut ErrorList) {
    let list_type = schema.text(&["x-kubernetes-list-type"]);
    let Some(items) = schema.get("items").filter(|items| items.is_object()) else { return };
    if !matches!(list_type, "set" | "map") {
        return;
    }
    let here = path.child("items");
    if items.flag(&["nullable"]) {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        errors.push(Error::forbidden(&here.child("nullable"), detail));
    }
    if list_type != "map" {
        return;
    }
    for key in schema.items(&["x-kubernetes-list-map-keys"]).iter().filter_map(Value::as_str) {
        let Some(property) = items.at(&["properties", key]) else { continue };
        let here = here.child("properties").key(key);
        let required = items.items(&["required"]).iter().any(|name| name == key);
        if !required && property.get("default").is_none_or(Value::is_null) {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required \
                          property";
            errors.push(Error::required(&here.child("default"), detail));
        }
        if property.flag(&["nullable"]) {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(Error::forbidden(&here.child("nullable"), detail));
        }
    }
}
