//! Messages as JSON schemas, with the `x-kubernetes-*` facts.

use super::texts::Texts;
use crate::kind::KindInfo;
use crate::schema::{Field, ListType, Message, Schema, Type};
use serde_json::{Map, Value, json};
use skep_api::resource::GroupVersionKind;
use std::collections::{BTreeMap, BTreeSet};

/// Which OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    V2,
    V3,
}

impl Flavour {
    /// What references start with.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        }
    }

    fn reference(self, name: &str) -> Value {
        json!({"$ref": format!("{}{name}", self.prefix())})
    }
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";
const GVK: &str = "x-kubernetes-group-version-kind";

/// Name of a kind's definition.
pub(super) fn definition_name(kind: &KindInfo) -> String {
    match (&kind.schema, Schema::of(&kind.gvk)) {
        (None, Some(message)) => message.openapi_name(),
        _ => {
            let mut parts: Vec<&str> = kind.gvk.group.split('.').rev().collect();
            parts.extend([kind.gvk.version.as_str(), kind.gvk.kind.as_str()]);
            parts.join(".")
        }
    }
}

/// Name of the definition of a kind's list.
pub(super) fn list_name(kind: &KindInfo) -> String {
    format!("{}List", definition_name(kind))
}

/// Every definition the kinds need.
pub(super) fn definitions(kinds: &[KindInfo], flavour: Flavour, texts: &Texts) -> BTreeMap<String, Value> {
    let mut out = BTreeMap::new();
    let mut queue: Vec<&'static Message> = Vec::new();
    for name in ["DeleteOptions", "Status", "WatchEvent", "ObjectMeta", "ListMeta"] {
        queue.extend(Schema::named(&format!("{META}.{name}")));
    }
    for kind in kinds {
        if let Some(schema) = &kind.schema {
            custom(kind, schema, flavour, &mut out);
        } else {
            let list = GroupVersionKind { kind: format!("{}List", kind.gvk.kind), ..kind.gvk.clone() };
            queue.extend(Schema::of(&kind.gvk));
            queue.extend(Schema::of(&list));
        }
        // What opens a stream has options in the query, not a body.
        let bodies = kind.subresources.iter().filter(|sub| !sub.gvk.kind.ends_with("Options"));
        queue.extend(bodies.filter_map(|sub| Schema::of(&sub.gvk)));
    }
    let versions: BTreeSet<(&str, &str)> =
        kinds.iter().map(|kind| (kind.gvk.group.as_str(), kind.gvk.version.as_str())).collect();
    while let Some(message) = queue.pop() {
        let name = message.openapi_name();
        if out.contains_key(&name) {
            continue;
        }
        let mut schema = object(message, flavour, texts);
        if let Some(text) = texts.message(&name) {
            schema["description"] = text.into();
        }
        if let Some(gvks) = kinds_of(message, &versions) {
            schema[GVK] = gvks;
        }
        out.insert(name, schema);
        queue.extend(message.json_fields().filter_map(Field::message));
        let is_union = |field: &&Field| {
            matches!(field.ty.leaf(), Type::PropsOrArray | Type::PropsOrBool | Type::PropsOrStrings)
        };
        if message.json_fields().any(|field| is_union(&field)) {
            queue.push(crate::schema::schema_props());
        }
    }
    for (name, mut schema) in scalars(flavour) {
        if let Some(text) = texts.message(&name) {
            schema["description"] = text.into();
        }
        out.insert(name, schema);
    }
    out
}

/// The kinds a message stands for. Options are of every group and version.
fn kinds_of(message: &Message, versions: &BTreeSet<(&str, &str)>) -> Option<Value> {
    let gvk = |group: &str, version: &str| json!({"group": group, "version": version, "kind": message.name});
    match message.name {
        "DeleteOptions" | "WatchEvent" if message.package.group == "meta.k8s.io" => {
            Some(versions.iter().map(|(group, version)| gvk(group, version)).collect())
        }
        "Status" if message.package.group == "meta.k8s.io" => Some(json!([gvk("", "v1")])),
        _ => message.is_kind.then(|| json!([gvk(message.package.group, message.package.version)])),
    }
}

fn object(message: &Message, flavour: Flavour, texts: &Texts) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in message.json_fields() {
        let mut schema = self::field(field, flavour);
        if let Some(text) = texts.field(message, field) {
            schema["description"] = text.into();
        }
        properties.insert(field.json.to_owned(), beside(schema, flavour));
        if field.required {
            required.push(Value::from(field.json));
        }
    }
    if message.is_kind {
        for name in ["apiVersion", "kind"] {
            let text = texts.named(&message.openapi_name(), name);
            properties.insert(name.to_owned(), json!({"type": "string", "description": text}));
        }
    }
    let mut schema = json!({"type": "object"});
    if !properties.is_empty() {
        schema["properties"] = properties.into();
    }
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    if message.atomic {
        schema["x-kubernetes-map-type"] = "atomic".into();
    }
    schema
}

/// A reference may have no siblings in v3: what is said of the field stands beside it.
fn beside(mut schema: Value, flavour: Flavour) -> Value {
    if let (Flavour::V3, Value::Object(map)) = (flavour, &mut schema)
        && map.len() > 1
        && let Some(reference) = map.remove("$ref")
    {
        map.insert("allOf".to_owned(), json!([{"$ref": reference}]));
    }
    schema
}

fn field(field: &Field, flavour: Flavour) -> Value {
    let mut schema = ty(&field.ty, flavour);
    if !field.values.is_empty() {
        let of = if matches!(field.ty, Type::List(_)) { &mut schema["items"] } else { &mut schema };
        of["enum"] = json!(field.values);
    }
    if let (Type::List(_), true) = (&field.ty, field.list_declared) {
        let (name, keys) = match &field.list {
            ListType::Atomic => ("atomic", None),
            ListType::Set => ("set", None),
            ListType::Map(keys) => ("map", Some(keys)),
        };
        schema["x-kubernetes-list-type"] = name.into();
        if let Some(keys) = keys {
            schema["x-kubernetes-list-map-keys"] = json!(keys);
        }
    }
    if field.atomic {
        schema["x-kubernetes-map-type"] = "atomic".into();
    }
    let strategies: Vec<&str> = [
        (field.patch.merge, "merge"),
        (field.patch.replace, "replace"),
        (field.patch.retain_keys, "retainKeys"),
    ]
    .into_iter()
    .filter_map(|(set, name)| set.then_some(name))
    .collect();
    if !strategies.is_empty() {
        schema["x-kubernetes-patch-strategy"] = strategies.join(",").into();
    }
    if let Some(key) = field.patch.merge_key {
        schema["x-kubernetes-patch-merge-key"] = key.into();
    }
    if let (Flavour::V3, Some(text)) = (flavour, field.default) {
        schema["default"] = match field.ty {
            Type::String => Value::from(text),
            _ => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
        };
    } else if let (Flavour::V3, Some(zero)) = (flavour, zero(&field.ty)) {
        // What is always there has a default, though it be the empty one; version 2 leaves that out.
        let always = matches!(field.ty, Type::Message(_)) || !field.omit_empty;
        if !field.pointer && always {
            schema["default"] = zero;
        }
    }
    schema
}

/// The value of a field, element or entry that nobody set.
fn zero(ty: &Type) -> Option<Value> {
    match ty {
        Type::Bool => Some(false.into()),
        Type::Int32 | Type::Int64 | Type::Double => Some(0.into()),
        Type::String => Some("".into()),
        Type::Message(_) => Some(json!({})),
        _ => None,
    }
}

/// An element of a list or an entry of a map.
fn inner(inner: &Type, flavour: Flavour) -> Value {
    let mut schema = ty(inner, flavour);
    if let (Flavour::V3, Some(zero)) = (flavour, zero(inner)) {
        schema["default"] = zero;
    }
    beside(schema, flavour)
}

fn ty(ty: &Type, flavour: Flavour) -> Value {
    let reference = |name: String| flavour.reference(&name);
    match ty {
        Type::Bool => json!({"type": "boolean"}),
        Type::Int32 => json!({"type": "integer", "format": "int32"}),
        Type::Int64 => json!({"type": "integer", "format": "int64"}),
        Type::Double => json!({"type": "number", "format": "double"}),
        Type::String => json!({"type": "string"}),
        Type::Bytes => json!({"type": "string", "format": "byte"}),
        Type::Quantity => reference("io.k8s.apimachinery.pkg.api.resource.Quantity".to_owned()),
        Type::Time => reference(format!("{META}.Time")),
        Type::MicroTime => reference(format!("{META}.MicroTime")),
        Type::Duration => json!({"type": "string"}),
        Type::IntOrString => reference("io.k8s.apimachinery.pkg.util.intstr.IntOrString".to_owned()),
        Type::Raw => reference("io.k8s.apimachinery.pkg.runtime.RawExtension".to_owned()),
        Type::Fields => reference(format!("{META}.FieldsV1")),
        Type::Json => reference(format!("{EXTENSIONS}.JSON")),
        Type::PropsOrArray => reference(format!("{EXTENSIONS}.JSONSchemaPropsOrArray")),
        Type::PropsOrBool => reference(format!("{EXTENSIONS}.JSONSchemaPropsOrBool")),
        Type::PropsOrStrings => reference(format!("{EXTENSIONS}.JSONSchemaPropsOrStringArray")),
        Type::Items => json!({"type": "array", "items": inner(&Type::String, flavour)}),
        Type::Message(_) => {
            ty.as_message().map_or_else(|| json!({}), |message| reference(message.openapi_name()))
        }
        Type::List(inner) => json!({"type": "array", "items": self::inner(inner, flavour)}),
        Type::Map(inner) => json!({"type": "object", "additionalProperties": self::inner(inner, flavour)}),
    }
}

/// Definitions that are no messages.
fn scalars(flavour: Flavour) -> Vec<(String, Value)> {
    let either = |format: &str, ty: &str| match flavour {
        Flavour::V2 if format.is_empty() => json!({"type": ty}),
        Flavour::V2 => json!({"type": ty, "format": format}),
        Flavour::V3 => {
            json!({"oneOf": [{"type": "string"}, {"type": if format.is_empty() { "number" } else { "integer" }}]})
        }
    };
    let int_or_string = match flavour {
        Flavour::V2 => either("int-or-string", "string"),
        Flavour::V3 => {
            let mut schema = either("int-or-string", "string");
            schema["format"] = "int-or-string".into();
            schema
        }
    };
    vec![
        ("io.k8s.apimachinery.pkg.api.resource.Quantity".to_owned(), either("", "string")),
        ("io.k8s.apimachinery.pkg.util.intstr.IntOrString".to_owned(), int_or_string),
        ("io.k8s.apimachinery.pkg.runtime.RawExtension".to_owned(), json!({"type": "object"})),
        (format!("{META}.Time"), json!({"type": "string", "format": "date-time"})),
        (format!("{META}.MicroTime"), json!({"type": "string", "format": "date-time"})),
        (format!("{META}.FieldsV1"), json!({"type": "object"})),
        (format!("{META}.Patch"), json!({"type": "object"})),
        (format!("{EXTENSIONS}.JSON"), json!({})),
        (format!("{EXTENSIONS}.JSONSchemaPropsOrArray"), json!({})),
        (format!("{EXTENSIONS}.JSONSchemaPropsOrBool"), json!({})),
        (format!("{EXTENSIONS}.JSONSchemaPropsOrStringArray"), json!({})),
    ]
}

/// A custom kind and its list.
fn custom(kind: &KindInfo, schema: &Value, flavour: Flavour, out: &mut BTreeMap<String, Value>) {
    let gvk = |suffix: &str| json!([{"group": kind.gvk.group, "version": kind.gvk.version, "kind": format!("{}{suffix}", kind.gvk.kind)}]);
    let mut schema = match flavour {
        Flavour::V2 => for_v2(schema, 0),
        Flavour::V3 => schema.clone(),
    };
    if !schema.is_object() {
        schema = json!({"type": "object"});
    }
    if let Some(Value::Object(properties)) =
        schema.as_object_mut().map(|schema| schema.entry("properties").or_insert_with(|| json!({})))
    {
        properties.insert("apiVersion".to_owned(), json!({"type": "string"}));
        properties.insert("kind".to_owned(), json!({"type": "string"}));
        properties.insert("metadata".to_owned(), flavour.reference(&format!("{META}.ObjectMeta")));
    }
    schema[GVK] = gvk("");
    let name = definition_name(kind);
    let list = json!({
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": flavour.reference(&format!("{META}.ListMeta")),
            "items": {"type": "array", "items": flavour.reference(&name)},
        },
        GVK: gvk("List"),
    });
    out.insert(name, schema);
    out.insert(list_name(kind), list);
}

/// What v2 can say of a v3 schema; the rest would make its readers refuse valid objects.
fn for_v2(schema: &Value, depth: usize) -> Value {
    let Value::Object(schema) = schema else { return json!({}) };
    let open = ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string", "nullable"];
    if depth > 100 || open.iter().any(|flag| schema.get(*flag) == Some(&Value::Bool(true))) {
        // No type: clients accept whatever is there.
        return schema.get("description").map_or_else(|| json!({}), |text| json!({"description": text}));
    }
    let mut out = Map::new();
    for (key, value) in schema {
        let kept = match key.as_str() {
            "oneOf" | "anyOf" | "allOf" | "not" | "nullable" | "default" | "x-kubernetes-validations" => {
                continue;
            }
            "properties" => Value::Object(
                value
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(name, inner)| (name.clone(), for_v2(inner, depth + 1)))
                    .collect(),
            ),
            "items" | "additionalProperties" if value.is_object() => for_v2(value, depth + 1),
            _ => value.clone(),
        };
        out.insert(key.clone(), kept);
    }
    Value::Object(out)
}
