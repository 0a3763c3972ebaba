//! Types, as declared and as deduced.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Anything; checked when it is evaluated.
    Dyn,
    /// What an expression with an error has, so that one error does not bring others.
    Error,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// 64 bits, signed.
    Int,
    /// 64 bits, unsigned.
    Uint,
    /// A double.
    Double,
    /// Text.
    String,
    /// Bytes.
    Bytes,
    /// A point in time.
    Timestamp,
    /// A span of time.
    Duration,
    /// A list.
    List(Arc<Type>),
    /// A map.
    Map(Arc<(Type, Type)>),
    /// An object with known fields, or a type of a library that has none.
    Object(Arc<ObjectType>),
    /// `optional_type(T)` and addresses.
    Opaque(&'static str, Arc<[Type]>),
    /// The type of a type.
    Type(Option<Arc<Type>>),
    /// A parameter of a function's signature.
    Param(Arc<str>),
}

/// An object with known fields. Equal by name.
#[derive(Clone, Debug)]
pub struct ObjectType {
    /// Its name.
    pub name: Arc<str>,
    /// Its fields, by the name expressions use.
    pub fields: BTreeMap<String, Type>,
}

impl PartialEq for ObjectType {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for ObjectType {}

pub(crate) const OPTIONAL: &str = "optional_type";

impl Type {
    /// A list of items.
    pub fn list(item: Self) -> Self {
        Self::List(Arc::new(item))
    }

    /// A map.
    pub fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new((key, value)))
    }

    /// A value that may be absent.
    pub fn optional(value: Self) -> Self {
        Self::Opaque(OPTIONAL, Arc::from([value]))
    }

    /// An object.
    pub fn object<S: Into<String>>(name: &str, fields: impl IntoIterator<Item = (S, Self)>) -> Self {
        let fields = fields.into_iter().map(|(name, kind)| (name.into(), kind)).collect();
        Self::Object(Arc::new(ObjectType { name: name.into(), fields }))
    }

    /// A parameter.
    pub(crate) fn param(name: &str) -> Self {
        Self::Param(name.into())
    }

    /// The value of an optional.
    pub(crate) fn unwrap_optional(&self) -> Option<&Self> {
        match self {
            Self::Opaque(OPTIONAL, params) => params.first(),
            _ => None,
        }
    }

    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn)
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    /// Does a value of it always take the same room.
    pub(crate) fn is_scalar(&self) -> bool {
        match self {
            Self::Bool | Self::Double | Self::Duration | Self::Int | Self::Timestamp | Self::Uint => true,
            Self::Opaque(OPTIONAL, params) => params.first().is_some_and(Self::is_scalar),
            _ => false,
        }
    }

    /// The types it is made of.
    pub(crate) fn parameters(&self) -> Vec<&Self> {
        match self {
            Self::List(item) => vec![&**item],
            Self::Map(entry) => vec![&entry.0, &entry.1],
            Self::Opaque(_, params) => params.iter().collect(),
            Self::Type(Some(of)) => vec![&**of],
            _ => Vec::new(),
        }
    }

    /// The same with other parameters, in the order of [`Self::parameters`].
    pub(crate) fn with(&self, change: &mut dyn FnMut(&Self) -> Self) -> Self {
        match self {
            Self::List(item) => Self::list(change(item)),
            Self::Map(entry) => Self::map(change(&entry.0), change(&entry.1)),
            Self::Opaque(name, params) => Self::Opaque(name, params.iter().map(change).collect()),
            Self::Type(Some(of)) => Self::Type(Some(Arc::new(change(of)))),
            other => other.clone(),
        }
    }
}

/// As error messages name it.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Error => f.write_str("!error!"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(item) => write!(f, "list({item})"),
            Self::Map(entry) => write!(f, "map({}, {})", entry.0, entry.1),
            Self::Object(object) => f.write_str(&object.name),
            Self::Opaque(name, params) => {
                f.write_str(name)?;
                for (index, param) in params.iter().enumerate() {
                    write!(f, "{}{param}", if index == 0 { "(" } else { ", " })?;
                }
                f.write_str(if params.is_empty() { "" } else { ")" })
            }
            Self::Type(None) => f.write_str("type"),
            Self::Type(Some(of)) => write!(f, "type({of})"),
            Self::Param(name) => f.write_str(name),
        }
    }
}
