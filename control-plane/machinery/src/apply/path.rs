//! One step of a field path, as `FieldsV1` spells it: `f:name`, `k:{"key":"value"}`, `v:value`, `i:0`.

use serde_json::{Map, Value};
use std::fmt;

/// One step. Keys and values are held as canonical JSON text, so that steps compare and sort.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathElement {
    /// A field of an object or a key of a map.
    Field(String),
    /// An element of a list of objects, by the values of its keys.
    Key(String),
    /// An element of a set.
    Value(String),
    /// An element by its place.
    Index(usize),
}

impl PathElement {
    /// A field.
    pub fn field(name: impl Into<String>) -> Self {
        Self::Field(name.into())
    }

    /// An element by its keys.
    pub fn key(keys: &Map<String, Value>) -> Self {
        Self::Key(canonical_object(keys))
    }

    /// An element of a set.
    pub fn value(value: &Value) -> Self {
        Self::Value(canonical(value))
    }

    /// Reads the text of `FieldsV1`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_at_checked(2)?;
        match kind {
            "f:" => Some(Self::Field(rest.to_owned())),
            "k:" => match serde_json::from_str(rest).ok()? {
                Value::Object(keys) => Some(Self::key(&keys)),
                _ => None,
            },
            "v:" => Some(Self::value(&serde_json::from_str(rest).ok()?)),
            "i:" => rest.parse().ok().map(Self::Index),
            _ => None,
        }
    }

    /// The text of `FieldsV1`.
    pub fn encode(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => format!("k:{keys}"),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(at) => format!("i:{at}"),
        }
    }
}

/// JSON with sorted keys, whatever order the map keeps.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => canonical_object(map),
        other => other.to_string(),
    }
}

fn canonical_object(map: &Map<String, Value>) -> String {
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort();
    let parts: Vec<String> = keys
        .into_iter()
        .map(|key| format!("{}:{}", Value::String(key.clone()), canonical(&map[key])))
        .collect();
    format!("{{{}}}", parts.join(","))
}

impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(keys) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).map_err(|_| fmt::Error)?;
                let mut parts: Vec<String> =
                    keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                parts.sort();
                write!(f, "[{}]", parts.join(","))
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(at) => write!(f, "[{at}]"),
        }
    }
}

/// Prints a path, `.spec.containers[name="a"].image`.
pub fn print_path(path: &[PathElement]) -> String {
    path.iter().map(ToString::to_string).collect()
}
