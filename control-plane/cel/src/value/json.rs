//! JSON to values and back.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::{Key, List, Map, Text, Value, number, time};
use crate::eval::EvalError;
use crate::schema::{Leaf, Schema};

/// Values nested deeper than this, or of more parts, are not turned into JSON: sharing makes it cheap to
/// build what is huge when it is written out.
const DEPTH: usize = 100;
const PARTS: usize = 1_000_000;

impl<'a> Value<'a> {
    /// A value of JSON. With a schema strings of known formats become times and bytes, and objects have
    /// the fields of the schema under the names expressions use.
    pub fn from_json(json: &'a Json, schema: Option<&'a Schema>) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => {
                let whole = number.as_i64();
                match (whole, schema.map(Schema::leaf)) {
                    (Some(whole), Some(Leaf::Double | Leaf::Claims)) => Self::Double(whole as f64),
                    (Some(whole), _) => Self::Int(whole),
                    (None, leaf) => {
                        let double = number.as_f64().unwrap_or_default();
                        // `1.0` is how some clients write an integer.
                        if leaf == Some(Leaf::Int) && double.fract() == 0.0 && double.abs() < 9e18 {
                            Self::Int(double as i64)
                        } else {
                            Self::Double(double)
                        }
                    }
                }
            }
            Json::String(text) => string(text, schema.map(Schema::leaf)),
            Json::Array(items) => Self::List(List::Json(items, schema)),
            Json::Object(map) => Self::Map(Map::Json(map, schema)),
        }
    }

    /// As JSON, the way protobuf's JSON mapping writes it. Fails for values JSON has no form for.
    pub fn to_json(&self) -> Result<Json, EvalError> {
        let mut parts = PARTS;
        self.write(DEPTH, &mut parts)
    }

    fn write(&self, depth: usize, parts: &mut usize) -> Result<Json, EvalError> {
        if depth == 0 || *parts == 0 {
            return Err(EvalError::failed("value is too large to be written as JSON"));
        }
        *parts -= 1;
        Ok(match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Int(value) => Json::from(*value),
            Self::Uint(value) => Json::from(*value),
            Self::Double(value) => Json::from(
                serde_json::Number::from_f64(*value)
                    .ok_or_else(|| EvalError::failed("NaN and infinities have no JSON form"))?,
            ),
            Self::String(text) => Json::from(&**text),
            Self::Bytes(bytes) => Json::from(STANDARD.encode(bytes)),
            Self::Timestamp(at) => Json::from(time::format_timestamp(*at)),
            Self::Duration(nanos) => Json::from(format!("{}s", number::seconds(*nanos))),
            Self::List(list) => {
                let items: Result<_, _> = list.iter().map(|item| item.write(depth - 1, parts)).collect();
                Json::Array(items?)
            }
            // The JSON itself, with what the schema does not know.
            Self::Map(Map::Json(map, _)) => Json::Object((*map).clone()),
            Self::Map(map) => {
                let mut object = serde_json::Map::new();
                for (key, value) in map.iter() {
                    let name = match &key {
                        Key::Bool(value) => value.to_string(),
                        Key::Number(value, _) => value.to_string(),
                        Key::String(text) => text.to_string(),
                    };
                    object.insert(name, value.write(depth - 1, parts)?);
                }
                Json::Object(object)
            }
            Self::Optional(Some(inner)) => inner.write(depth - 1, parts)?,
            Self::Optional(None) => Json::Null,
            Self::Type(_) | Self::Library(_) => {
                return Err(EvalError::failed(format!(
                    "type conversion error from '{}' to JSON",
                    self.type_name()
                )));
            }
        })
    }

    /// A value that borrows nothing.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Uint(value) => Value::Uint(value),
            Self::Double(value) => Value::Double(value),
            Self::String(text) => Value::String(owned_text(&text)),
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::Timestamp(at) => Value::Timestamp(at),
            Self::Duration(nanos) => Value::Duration(nanos),
            Self::List(list) => Value::list(list.iter().map(Value::into_owned).collect()),
            Self::Map(map) => {
                let entries: BTreeMap<Key<'static>, Value<'static>> =
                    map.iter().map(|(key, value)| (owned_key(&key), value.into_owned())).collect();
                match map {
                    Map::Struct(name, _) => Value::Map(Map::Struct(name, Arc::new(entries))),
                    _ => Value::Map(Map::Owned(Arc::new(entries))),
                }
            }
            Self::Optional(inner) => {
                Value::Optional(inner.map(|inner| Arc::new((*inner).clone().into_owned())))
            }
            Self::Type(name) => Value::Type(name),
            Self::Library(library) => Value::Library(library),
        }
    }
}

fn owned_text(text: &Text<'_>) -> Text<'static> {
    match text {
        Text::Borrowed(text) => Text::Shared((*text).into()),
        Text::Shared(text) => Text::Shared(Arc::clone(text)),
    }
}

fn owned_key(key: &Key<'_>) -> Key<'static> {
    match key {
        Key::Bool(value) => Key::Bool(*value),
        Key::Number(value, unsigned) => Key::Number(*value, *unsigned),
        Key::String(text) => Key::String(owned_text(text)),
    }
}

fn string<'a>(text: &'a str, leaf: Option<Leaf>) -> Value<'a> {
    let plain = Value::String(Text::Borrowed(text));
    match leaf {
        Some(Leaf::Bytes) => STANDARD.decode(text).map_or(plain, |bytes| Value::Bytes(bytes.into())),
        Some(Leaf::Duration) => time::parse_duration(text).map_or(plain, Value::Duration),
        Some(Leaf::Timestamp) => time::parse_timestamp(text).map_or(plain, Value::Timestamp),
        Some(Leaf::Date) => {
            time::parse_timestamp(&format!("{text}T00:00:00Z")).map_or(plain, Value::Timestamp)
        }
        _ => plain,
    }
}
