//! The schema of a custom resource, parsed once: a tree that pruning, defaulting and validation walk.
//!
//! Parsing is lenient, for what is stored may be older than today's rules: what can't be understood is
//! left out. The rules a new schema must keep are in `structural` and `rules`.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

use super::pattern;

/// Schemas nest no deeper; what lies below is not looked at.
const DEEPEST: usize = 256;

/// The `type` of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// How a list's elements are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ListType {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// What the keys of a map that are no properties may hold.
#[derive(Clone, Debug, Default)]
pub(crate) enum Additional {
    /// There is no such keyword: unknown keys are pruned.
    #[default]
    None,
    /// `true`: anything, `false`: nothing.
    Any(bool),
    /// Values of this schema.
    Of(Box<Schema>),
}

/// One node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schema {
    pub(crate) ty: Option<Type>,
    pub(crate) nullable: bool,
    pub(crate) default: Option<Value>,
    pub(crate) properties: BTreeMap<String, Schema>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<Box<Schema>>,
    pub(crate) preserve_unknown: bool,
    pub(crate) embedded: bool,
    pub(crate) int_or_string: bool,
    pub(crate) list_type: ListType,
    pub(crate) limits: Limits,
    pub(crate) all_of: Vec<Schema>,
    pub(crate) any_of: Vec<Schema>,
    pub(crate) one_of: Vec<Schema>,
    pub(crate) not: Option<Box<Schema>>,
}

/// What a value must satisfy beside its type.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) format: String,
    pub(crate) maximum: Option<(f64, bool)>,
    pub(crate) minimum: Option<(f64, bool)>,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) min_length: Option<u64>,
    pub(crate) pattern: Option<(String, Regex)>,
    pub(crate) max_items: Option<u64>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_properties: Option<u64>,
    pub(crate) min_properties: Option<u64>,
    pub(crate) required: Vec<String>,
    pub(crate) allowed: Option<Vec<Value>>,
}

impl Schema {
    /// Reads a JSON schema.
    pub(crate) fn parse(schema: &Value) -> Self {
        Self::parse_at(schema, 0)
    }

    fn parse_at(schema: &Value, depth: usize) -> Self {
        let Some(map) = schema.as_object().filter(|_| depth < DEEPEST) else { return Self::default() };
        let below = |schema: &Value| Self::parse_at(schema, depth + 1);
        let list = |name: &str| -> Vec<Self> {
            map.get(name).and_then(Value::as_array).into_iter().flatten().map(below).collect()
        };
        let one =
            |name: &str| map.get(name).filter(|value| value.is_object()).map(|value| Box::new(below(value)));
        let properties = map.get("properties").and_then(Value::as_object).into_iter().flatten();
        Self {
            ty: text(map, "type").and_then(Type::parse),
            nullable: flag(map, "nullable"),
            default: map.get("default").filter(|value| !value.is_null()).cloned(),
            properties: properties.map(|(name, schema)| (name.clone(), below(schema))).collect(),
            additional: match map.get("additionalProperties") {
                Some(Value::Bool(allowed)) => Additional::Any(*allowed),
                Some(inner @ Value::Object(_)) => Additional::Of(Box::new(below(inner))),
                _ => Additional::None,
            },
            items: one("items"),
            preserve_unknown: flag(map, "x-kubernetes-preserve-unknown-fields"),
            embedded: flag(map, "x-kubernetes-embedded-resource"),
            int_or_string: flag(map, "x-kubernetes-int-or-string"),
            list_type: match text(map, "x-kubernetes-list-type") {
                Some("set") => ListType::Set,
                Some("map") => ListType::Map(texts(map, "x-kubernetes-list-map-keys")),
                _ => ListType::Atomic,
            },
            limits: Limits::parse(map),
            all_of: list("allOf"),
            any_of: list("anyOf"),
            one_of: list("oneOf"),
            not: one("not"),
        }
    }

    /// The schema of a field, declared or not.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or_else(|| self.of_additional())
    }

    /// The schema of what is no property.
    pub(crate) fn of_additional(&self) -> Option<&Self> {
        match &self.additional {
            Additional::Of(schema) => Some(schema),
            Additional::None | Additional::Any(_) => None,
        }
    }
}

impl Limits {
    fn parse(map: &Map<String, Value>) -> Self {
        let count = |name: &str| map.get(name).and_then(Value::as_u64);
        let bound = |name: &str, exclusive: &str| {
            map.get(name).and_then(Value::as_f64).map(|bound| (bound, flag(map, exclusive)))
        };
        Self {
            format: text(map, "format").unwrap_or_default().to_owned(),
            maximum: bound("maximum", "exclusiveMaximum"),
            minimum: bound("minimum", "exclusiveMinimum"),
            multiple_of: map.get("multipleOf").and_then(Value::as_f64),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            pattern: text(map, "pattern")
                .filter(|pattern| !pattern.is_empty())
                .and_then(|text| Some((text.to_owned(), pattern::compile(text).ok()?))),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            required: texts(map, "required"),
            allowed: map.get("enum").and_then(Value::as_array).filter(|list| !list.is_empty()).cloned(),
        }
    }
}

fn text<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    map.get(name).and_then(Value::as_str)
}

fn flag(map: &Map<String, Value>, name: &str) -> bool {
    map.get(name).and_then(Value::as_bool) == Some(true)
}

fn texts(map: &Map<String, Value>, name: &str) -> Vec<String> {
    let list = map.get(name).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}
