//! Types of data: what a structural OpenAPI schema says about the values at each place of an object.
//!
//! A schema serves three ends: the types the checker knows, the reading of JSON (times, bytes, the names
//! of fields), and the sizes the estimate of costs goes by.

mod build;
mod openapi;

use std::collections::BTreeMap;

use crate::types::Type;

pub use build::Options;

/// The schema of the values at one place.
#[derive(Clone, Debug)]
pub struct Schema {
    shape: Shape,
    kind: Type,
    nullable: bool,
    /// No value has more characters, bytes, items or entries.
    max_elements: u64,
    /// No value takes fewer bytes of JSON.
    min_size: u64,
}

#[derive(Clone, Debug)]
enum Shape {
    Leaf(Leaf),
    List(Box<Schema>, ListKind),
    Map(Box<Schema>),
    Object(BTreeMap<String, Field>),
}

#[derive(Clone, Debug)]
struct Field {
    /// Its name in JSON.
    json: String,
    schema: Schema,
}

/// How a scalar is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaf {
    /// As it comes.
    Any,
    Bool,
    Int,
    Double,
    Text,
    Bytes,
    Duration,
    Timestamp,
    Date,
    /// Free JSON whose names expressions write as identifiers.
    Claims,
}

/// `x-kubernetes-list-type`: how lists are compared and added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListKind {
    Atomic,
    Set,
    /// Items are told apart by these fields.
    Map(Vec<String>),
}

impl Schema {
    /// A value of no known type.
    pub fn any() -> Self {
        Self::leaf_of(Leaf::Any, Type::Dyn, build::MAX_REQUEST, 1)
    }

    /// Free JSON whose names expressions may write as identifiers (`claims.kubernetes__dot__io`), at every
    /// depth; all its numbers are doubles.
    pub fn claims() -> Self {
        Self::leaf_of(Leaf::Claims, Type::map(Type::String, Type::Dyn), build::MAX_REQUEST, 1)
    }

    fn leaf_of(leaf: Leaf, kind: Type, max_elements: u64, min_size: u64) -> Self {
        Self { shape: Shape::Leaf(leaf), kind, nullable: false, max_elements, min_size }
    }

    /// The type expressions see.
    pub fn kind(&self) -> &Type {
        &self.kind
    }

    /// How often data of this schema fits into one request.
    pub fn max_cardinality(&self) -> u64 {
        build::MAX_REQUEST / (self.min_size + 1)
    }

    /// No list or map of this schema has more items or entries.
    pub fn max_elements(&self) -> u64 {
        self.max_elements
    }

    pub(crate) fn nullable(&self) -> bool {
        self.nullable
    }

    pub(crate) fn leaf(&self) -> Leaf {
        match &self.shape {
            Shape::Leaf(leaf) => *leaf,
            _ => Leaf::Any,
        }
    }

    pub(crate) fn is_object(&self) -> bool {
        matches!(self.shape, Shape::Object(_))
    }

    /// The schema of a list's items.
    pub fn items(&self) -> Option<&Self> {
        match &self.shape {
            Shape::List(items, _) => Some(items),
            Shape::Leaf(Leaf::Claims) => Some(self),
            _ => None,
        }
    }

    /// The schema of a map's values.
    pub fn values(&self) -> Option<&Self> {
        match &self.shape {
            Shape::Map(values) => Some(values),
            _ => None,
        }
    }

    /// The schema of a field, by its name in JSON.
    pub fn property(&self, json_name: &str) -> Option<&Self> {
        match &self.shape {
            Shape::Object(fields) => {
                fields.values().find(|field| field.json == json_name).map(|field| &field.schema)
            }
            _ => None,
        }
    }

    pub(crate) fn list_kind(&self) -> ListKind {
        match &self.shape {
            Shape::List(_, kind) => kind.clone(),
            _ => ListKind::Atomic,
        }
    }

    /// The name in JSON and the schema of a field, or of the values of a map. No name: the same.
    pub(crate) fn member(&self, name: &str) -> Option<(Option<&str>, Option<&Self>)> {
        match &self.shape {
            Shape::Object(fields) => {
                fields.get(name).map(|field| (Some(field.json.as_str()), Some(&field.schema)))
            }
            Shape::Map(values) => Some((None, Some(values))),
            _ => Some((None, None)),
        }
    }

    /// The fields by the names expressions use, with their names in JSON.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let fields = match &self.shape {
            Shape::Object(fields) => Some(fields),
            _ => None,
        };
        fields.into_iter().flatten().map(|(name, field)| (name.as_str(), field.json.as_str()))
    }

    /// The largest size of what lies at a path below: field names, `@items`, `@keys`, `@values`.
    pub(crate) fn size_at(&self, path: &[String]) -> Option<u64> {
        let Some((step, rest)) = path.split_first() else { return Some(self.max_elements) };
        match (&self.shape, step.as_str()) {
            (Shape::List(items, _), "@items") => items.size_at(rest),
            (Shape::Map(values), "@values") => values.size_at(rest),
            // Upstream's estimate takes keys for empty; another figure would refuse rules that it takes.
            (Shape::Map(_), "@keys") => rest.is_empty().then_some(0),
            (Shape::Map(values), _) => values.size_at(rest),
            (Shape::Object(fields), name) => fields.get(name)?.schema.size_at(rest),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
