//! A schema from the JSON of an OpenAPI schema.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Field, Leaf, ListKind, Schema, Shape};
use crate::escaping::escape;
use crate::types::Type;

/// No request has more bytes: what sizes are estimated by where nothing bounds them.
pub(super) const MAX_REQUEST: u64 = 3 * 1024 * 1024;

/// No schema nests deeper; what lies below is of no known type.
const DEPTH: u16 = 100;

const TEXT: u64 = MAX_REQUEST - 2;

/// How a schema is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The object is a whole resource: `apiVersion`, `kind`, `metadata.name` and `metadata.generateName`
    /// are known even if the schema does not say so.
    pub resource: bool,
    /// What the schema does not know is of type `dyn` instead of hidden.
    pub open: bool,
}

impl Schema {
    /// From a structural schema. `name` begins the names of the object types. `None` when expressions
    /// cannot see such values: no type is given, or items of unknown type.
    pub fn from_structural(schema: &Value, name: &str, options: Options) -> Option<Self> {
        build(schema, name, options, DEPTH)
    }
}

fn number(schema: &Value, field: &str) -> Option<u64> {
    let value = schema.get(field)?;
    value.as_u64().or_else(|| value.as_f64().map(|double| double.max(0.0) as u64))
}

fn flag(schema: &Value, field: &str) -> bool {
    schema.get(field).and_then(Value::as_bool).unwrap_or(false)
}

fn build(schema: &Value, name: &str, options: Options, depth: u16) -> Option<Schema> {
    if depth == 0 {
        return Some(Schema::any());
    }
    let mut built = if flag(schema, "x-kubernetes-int-or-string") {
        let max = number(schema, "maxLength").map_or(TEXT, |length| length.saturating_mul(4));
        Schema::leaf_of(Leaf::Any, Type::Dyn, max, 1)
    } else {
        typed(schema, name, options, depth)?
    };
    built.nullable = flag(schema, "nullable");
    Some(built)
}

fn typed(schema: &Value, name: &str, options: Options, depth: u16) -> Option<Schema> {
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let kind = schema.get("type").and_then(Value::as_str).unwrap_or_default();
    let kind = if kind.is_empty() && (options.resource || embedded) { "object" } else { kind };
    match kind {
        "array" => {
            let items = match schema.get("items") {
                Some(items) => below(items, &format!("{name}.@idx"), options, depth)?,
                None if options.open => Schema::any(),
                None => return None,
            };
            let max = number(schema, "maxItems").unwrap_or((MAX_REQUEST - 2) / (items.min_size + 1));
            Some(Schema {
                kind: Type::list(items.kind.clone()),
                nullable: false,
                max_elements: max,
                min_size: 2,
                shape: Shape::List(Box::new(items), list_kind(schema)),
            })
        }
        "object" => {
            object(schema, name, Options { resource: options.resource || embedded, ..options }, depth)
        }
        "string" => Some(string(schema)),
        "boolean" => Some(Schema::leaf_of(Leaf::Bool, Type::Bool, 0, 4)),
        "number" => Some(Schema::leaf_of(Leaf::Double, Type::Double, 0, 1)),
        "integer" => Some(Schema::leaf_of(Leaf::Int, Type::Int, 0, 1)),
        _ if options.open => Some(Schema::any()),
        _ => None,
    }
}

fn below(schema: &Value, name: &str, options: Options, depth: u16) -> Option<Schema> {
    let resource = flag(schema, "x-kubernetes-embedded-resource");
    build(schema, name, Options { resource, ..options }, depth - 1)
}

fn list_kind(schema: &Value) -> ListKind {
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            let keys = keys.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
            ListKind::Map(keys.collect())
        }
        _ => ListKind::Atomic,
    }
}

fn object(schema: &Value, name: &str, options: Options, depth: u16) -> Option<Schema> {
    let additional = schema.get("additionalProperties").filter(|more| more.is_object());
    if let Some(values) = additional {
        let values = below(values, &format!("{name}.@elem"), options, depth)?;
        let max = number(schema, "maxProperties").unwrap_or((MAX_REQUEST - 2) / (values.min_size + 6));
        return Some(Schema {
            kind: Type::map(Type::String, values.kind.clone()),
            nullable: false,
            max_elements: max,
            min_size: 2,
            shape: Shape::Map(Box::new(values)),
        });
    }
    let none = Map::new();
    let mut properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none).clone();
    if properties.is_empty() && options.open && !options.resource {
        return Some(Schema::any());
    }
    if options.resource {
        add_resource_fields(&mut properties);
    }
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = |field: &str| required.is_some_and(|list| list.iter().any(|item| item == field));
    let mut fields = BTreeMap::new();
    let mut min_size = 2;
    for (json, property) in &properties {
        let identifier = escape(json);
        let path = format!("{name}.{}", identifier.as_deref().unwrap_or(json));
        let Some(field) = below(property, &path, options, depth) else { continue };
        if is_required(json) && property.get("default").is_none() {
            min_size += json.len() as u64 + field.min_size + 4;
        }
        let Some(identifier) = identifier else { continue };
        fields.insert(identifier, Field { json: json.clone(), schema: field });
    }
    let types = fields.iter().map(|(name, field)| (name.as_str(), field.schema.kind.clone()));
    Some(Schema {
        kind: Type::object(name, types),
        nullable: false,
        max_elements: 0,
        min_size,
        shape: Shape::Object(fields),
    })
}

/// What every resource has, whatever its schema says.
fn add_resource_fields(properties: &mut Map<String, Value>) {
    let text = serde_json::json!({"type": "string"});
    for field in ["apiVersion", "kind"] {
        properties.entry(field).or_insert_with(|| text.clone());
    }
    let known = properties.get("metadata").is_some_and(|metadata| {
        ["name", "generateName"].iter().all(|field| metadata["properties"][field]["type"] == "string")
    });
    if !known {
        let metadata = serde_json::json!({
            "type": "object", "properties": {"name": text, "generateName": text},
        });
        properties.insert("metadata".to_owned(), metadata);
    }
}

fn string(schema: &Value) -> Schema {
    let length = number(schema, "maxLength");
    match schema.get("format").and_then(Value::as_str).unwrap_or_default() {
        "byte" => Schema::leaf_of(Leaf::Bytes, Type::Bytes, length.unwrap_or(TEXT), 2),
        "duration" => Schema::leaf_of(Leaf::Duration, Type::Duration, 32, 3),
        "date" => Schema::leaf_of(Leaf::Date, Type::Timestamp, 12, 12),
        "date-time" => Schema::leaf_of(Leaf::Timestamp, Type::Timestamp, 32, 21),
        _ => {
            let words = schema.get("enum").and_then(Value::as_array).filter(|words| !words.is_empty());
            let max = match (length, words) {
                // A length counts characters, of which each may take four bytes.
                (Some(length), _) => length.saturating_mul(4),
                (None, Some(words)) => {
                    words.iter().filter_map(Value::as_str).map(str::len).max().unwrap_or(0) as u64
                }
                (None, None) => TEXT,
            };
            Schema::leaf_of(Leaf::Text, Type::String, max, 2)
        }
    }
}
