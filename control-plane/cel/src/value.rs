//! Values: borrowed from the JSON they come from as long as possible, owned once they are computed.

pub(crate) mod compare;
pub(crate) mod json;
pub(crate) mod number;
pub(crate) mod time;

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value as Json;

use crate::escaping::unescape;
use crate::library::authorizer::Authorization;
use crate::library::{cidr::Cidr, format::Format, urls::Url};
use crate::schema::{Leaf, Schema};

/// A value of an expression.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A double.
    Double(f64),
    /// Text.
    String(Text<'a>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A point in time.
    Timestamp(Timestamp),
    /// A span of time, in nanoseconds.
    Duration(i64),
    /// A list.
    List(List<'a>),
    /// A map or an object.
    Map(Map<'a>),
    /// A value that may be absent.
    Optional(Option<Arc<Value<'a>>>),
    /// A type, by name.
    Type(Arc<str>),
    /// A value of a library.
    Library(Library),
}

/// Values only libraries look into.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Library {
    /// A URL.
    Url(Arc<Url>),
    /// A resource quantity.
    Quantity(skep_api::quantity::Quantity),
    /// An address.
    Ip(std::net::IpAddr),
    /// A network.
    Cidr(Cidr),
    /// A version.
    Semver(Arc<semver::Version>),
    /// A named format.
    Format(&'static Format),
    /// Part of a question to the authorizer, or its answer.
    Authorization(Arc<Authorization>),
}

/// Text, borrowed or shared.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    /// Of the JSON the value comes from.
    Borrowed(&'a str),
    /// Of a literal, or computed.
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self::Shared(text.into())
    }
}

impl From<&str> for Value<'_> {
    fn from(text: &str) -> Self {
        Self::String(Text::Shared(text.into()))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::String(text.into())
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

/// A list.
#[derive(Clone, Debug)]
pub enum List<'a> {
    /// As it lies in JSON, with the schema of the list.
    Json(&'a [Json], Option<&'a Schema>),
    /// Computed; the schema says whether it is a set or a map by keys.
    Owned(Arc<Vec<Value<'a>>>, Option<&'a Schema>),
}

impl<'a> List<'a> {
    /// How many items.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(items, _) => items.len(),
            Self::Owned(items, _) => items.len(),
        }
    }

    /// No items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An item.
    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Self::Json(items, schema) => {
                Some(Value::from_json(items.get(index)?, schema.and_then(Schema::items)))
            }
            Self::Owned(items, _) => items.get(index).cloned(),
        }
    }

    /// The items in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    pub(crate) fn schema(&self) -> Option<&'a Schema> {
        match self {
            Self::Json(_, schema) | Self::Owned(_, schema) => *schema,
        }
    }
}

/// A map or an object.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// As it lies in JSON, with its schema.
    Json(&'a serde_json::Map<String, Json>, Option<&'a Schema>),
    /// Computed.
    Owned(Arc<BTreeMap<Key<'a>, Value<'a>>>),
    /// An object of a named type.
    Struct(Arc<str>, Arc<BTreeMap<Key<'a>, Value<'a>>>),
}

/// What may be a key of a map.
#[derive(Clone, Debug)]
pub enum Key<'a> {
    /// `true` or `false`
    Bool(bool),
    /// A number; signed and unsigned ones of one value are one key.
    Number(i128, bool),
    /// Text.
    String(Text<'a>),
}

impl Key<'_> {
    fn rank(&self) -> (u8, i128, &str) {
        match self {
            Self::Bool(value) => (0, i128::from(*value), ""),
            Self::Number(value, _) => (1, *value, ""),
            Self::String(text) => (2, 0, text),
        }
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Key<'_> {}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl<'a> Key<'a> {
    /// The key a value is; `None` for values that can be none.
    pub fn of(value: &Value<'a>) -> Option<Self> {
        Some(match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Number(i128::from(*value), false),
            Value::Uint(value) => Self::Number(i128::from(*value), true),
            Value::String(text) => Self::String(text.clone()),
            _ => return None,
        })
    }

    /// The key to look a value up by: doubles find whole numbers.
    pub(crate) fn lookup(value: &Value<'a>) -> Option<Self> {
        match value {
            Value::Double(double) => {
                let whole = double.fract() == 0.0 && double.abs() < 2_f64.powi(64);
                whole.then_some(Self::Number(*double as i128, false))
            }
            other => Self::of(other),
        }
    }

    /// As a value.
    pub fn value(&self) -> Value<'a> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(value, true) => Value::Uint(u64::try_from(*value).unwrap_or(u64::MAX)),
            Self::Number(value, false) => Value::Int(i64::try_from(*value).unwrap_or(i64::MAX)),
            Self::String(text) => Value::String(text.clone()),
        }
    }
}

impl<'a> Map<'a> {
    /// How many entries.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(..) => self.keys().len(),
            Self::Owned(entries) | Self::Struct(_, entries) => entries.len(),
        }
    }

    /// No entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a field, by the name expressions use.
    pub fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Self::Json(map, Some(schema)) if schema.leaf() == Leaf::Claims => {
                let unescaped = unescape(name);
                let found = map.get(unescaped.as_deref().unwrap_or(name))?;
                Some(Value::from_json(found, Some(schema)))
            }
            Self::Json(map, Some(schema)) => {
                let (json_name, below) = schema.member(name)?;
                let found = map.get(json_name.unwrap_or(name))?;
                // A null where the schema knows none is an absent field.
                if found.is_null() && !below.is_some_and(Schema::nullable) && schema.is_object() {
                    return None;
                }
                Some(Value::from_json(found, below))
            }
            Self::Json(map, None) => map.get(name).map(|found| Value::from_json(found, None)),
            Self::Owned(entries) | Self::Struct(_, entries) => {
                // The key lives only for the look-up.
                entries
                    .iter()
                    .find(|(key, _)| matches!(key, Key::String(text) if **text == *name))
                    .map(|(_, v)| v.clone())
            }
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &Key<'a>) -> Option<Value<'a>> {
        match (self, key) {
            (Self::Owned(entries) | Self::Struct(_, entries), key) => entries.get(key).cloned(),
            (Self::Json(..), Key::String(name)) => self.field(name),
            (Self::Json(..), _) => None,
        }
    }

    /// The keys, by the names expressions use.
    pub fn keys(&self) -> Vec<Key<'a>> {
        match self {
            Self::Json(map, Some(schema)) if schema.is_object() => schema
                .fields()
                .filter(|(name, _)| self.field(name).is_some())
                .map(|(name, _)| Key::String(Text::Borrowed(name)))
                .collect(),
            Self::Json(map, _) => map.keys().map(|key| Key::String(Text::Borrowed(key))).collect(),
            Self::Owned(entries) | Self::Struct(_, entries) => entries.keys().cloned().collect(),
        }
    }

    /// Keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (Key<'a>, Value<'a>)> + '_ {
        self.keys().into_iter().filter_map(|key| {
            let value = self.get(&key)?;
            Some((key, value))
        })
    }
}

impl<'a> Value<'a> {
    /// A computed list.
    pub fn list(items: Vec<Self>) -> Self {
        Self::List(List::Owned(Arc::new(items), None))
    }

    /// A computed map.
    pub fn map(entries: impl IntoIterator<Item = (Key<'a>, Self)>) -> Self {
        Self::Map(Map::Owned(Arc::new(entries.into_iter().collect())))
    }

    /// An object of named fields.
    pub fn object<S: Into<String>>(fields: impl IntoIterator<Item = (S, Self)>) -> Self {
        Self::map(fields.into_iter().map(|(name, value)| (Key::String(Text::from(name.into())), value)))
    }

    /// Present.
    pub fn some(value: Self) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The name of its type.
    pub fn type_name(&self) -> &str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(Map::Struct(name, _)) => name,
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Library(library) => library.type_name(),
        }
    }

    /// What costs count: characters, bytes, items, entries; 1 for everything else.
    pub(crate) fn size(&self) -> u64 {
        let size = match self {
            Self::String(text) => text.chars().count(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(list) => list.len(),
            Self::Map(map) => map.len(),
            Self::Optional(Some(inner)) => return inner.size(),
            Self::Library(Library::Url(url)) => url.text.chars().count(),
            Self::Library(Library::Ip(ip)) => return if ip.is_ipv4() { 4 } else { 16 },
            Self::Library(Library::Cidr(cidr)) => return if cidr.address.is_ipv4() { 4 } else { 16 },
            _ => 1,
        };
        size as u64
    }

    /// Is it the empty value of its type: what `optional.ofNonZeroValue` takes for absent.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(value) => !value,
            Self::Int(value) => *value == 0,
            Self::Uint(value) => *value == 0,
            Self::Double(value) => *value == 0.0,
            Self::String(text) => text.is_empty(),
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Duration(nanos) => *nanos == 0,
            Self::List(list) => list.is_empty(),
            Self::Map(map) => map.is_empty(),
            Self::Optional(inner) => inner.is_none(),
            Self::Timestamp(_) | Self::Type(_) | Self::Library(_) => false,
        }
    }
}

impl Library {
    fn type_name(&self) -> &'static str {
        match self {
            Self::Url(_) => "kubernetes.URL",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Authorization(part) => part.type_name(),
        }
    }
}
