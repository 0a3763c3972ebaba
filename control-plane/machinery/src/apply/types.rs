//! What server-side apply knows of a value's type: from the schema table, from a custom resource's OpenAPI schema, or
//! nothing but what the value itself shows.

use crate::schema::{ListType, Message, Schema, Type};
use serde_json::Value;
use skep_api::resource::GroupVersionKind;

/// The type of a whole object.
#[derive(Clone, Copy, Debug)]
pub enum Types<'s> {
    /// A built-in kind.
    Message(&'static Message),
    /// A custom kind with a structural schema (OpenAPI v3, `x-kubernetes-*` extensions).
    OpenApi(&'s Value),
    /// A custom kind without one: objects are granular, lists are one value.
    Deduced,
}

impl Types<'static> {
    /// Of a kind: built in, or deduced.
    pub fn of(gvk: &GroupVersionKind) -> Self {
        Schema::of(gvk).map_or(Self::Deduced, Types::Message)
    }
}

impl<'s> Types<'s> {
    pub(super) fn root(self) -> Node<'s> {
        match self {
            Self::Message(message) => Node::Struct { message, atomic: false },
            Self::OpenApi(schema) => Node::CustomRoot(schema),
            Self::Deduced => Node::DeducedRoot,
        }
    }
}

/// The type of one value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Node<'s> {
    Struct { message: &'static Message, atomic: bool },
    Map { element: &'static Type, atomic: bool },
    List { element: &'static Type, list: &'static ListType },
    Scalar(&'static Type),
    Atomic,
    CustomRoot(&'s Value),
    Custom(&'s Value),
    DeducedRoot,
    Deduced,
}

/// How a value is owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form<'s> {
    /// As one.
    Leaf,
    /// Key by key.
    Map,
    /// Element by element, by value.
    Set,
    /// Element by element, by these keys.
    Keyed(Vec<&'s str>),
}

impl<'s> Node<'s> {
    fn of(ty: &'static Type, list: &'static ListType, atomic: bool) -> Self {
        match ty {
            Type::Message(_) => ty
                .as_message()
                .map_or(Self::Atomic, |message| Self::Struct { message, atomic: atomic || message.atomic }),
            Type::Map(element) => Self::Map { element, atomic },
            Type::List(element) => Self::List { element, list },
            Type::Raw | Type::Json | Type::Fields | Type::Items => Self::Atomic,
            Type::PropsOrArray | Type::PropsOrBool | Type::PropsOrStrings => Self::Atomic,
            scalar => Self::Scalar(scalar),
        }
    }

    /// The type under a field or map key, and whether it is a declared field. `None`: the field is not declared.
    pub(super) fn child(self, name: &str) -> Option<(Self, bool)> {
        match self {
            Self::Struct { message, .. } => match message.field(name) {
                Some(field) => Some((Self::of(&field.ty, &field.list, field.atomic), true)),
                None if message.is_kind && matches!(name, "apiVersion" | "kind") => {
                    Some((Self::Scalar(&Type::String), true))
                }
                None => None,
            },
            Self::Map { element, .. } => Some((Self::of(element, &ListType::Atomic, false), false)),
            Self::CustomRoot(_) | Self::DeducedRoot => match (name, self) {
                ("apiVersion" | "kind", _) => Some((Self::Scalar(&Type::String), true)),
                ("metadata", _) => Some((metadata(), true)),
                (_, Self::CustomRoot(schema)) => custom_child(schema, name),
                _ => Some((Self::Deduced, false)),
            },
            Self::Custom(schema) => custom_child(schema, name),
            Self::Deduced => Some((Self::Deduced, false)),
            Self::List { .. } | Self::Scalar(_) | Self::Atomic => None,
        }
    }

    /// The type of a list's elements.
    pub(super) fn element(self) -> Self {
        match self {
            Self::List { element, .. } => Self::of(element, &ListType::Atomic, false),
            Self::Custom(schema) => schema.get("items").map_or(Self::Deduced, Self::Custom),
            _ => Self::Deduced,
        }
    }

    /// How a value of this type is owned; a deduced type looks at the value.
    pub(super) fn form(self, value: &Value) -> Form<'s> {
        match self {
            Self::Scalar(_) | Self::Atomic => Form::Leaf,
            Self::Struct { atomic, .. } | Self::Map { atomic, .. } => if_not(atomic, Form::Map),
            Self::List { list, .. } => match list {
                ListType::Atomic => Form::Leaf,
                ListType::Set => Form::Set,
                ListType::Map(keys) => Form::Keyed(keys.clone()),
            },
            Self::CustomRoot(_) | Self::DeducedRoot => Form::Map,
            Self::Deduced => if_not(!value.is_object(), Form::Map),
            Self::Custom(schema) => custom_form(schema, value),
        }
    }

    /// The value of a key field that an element leaves out.
    pub(super) fn key_default(self, key: &str) -> Option<Value> {
        match self {
            Self::Struct { message, .. } => {
                let field = message.field(key)?;
                let text = field.default?;
                Some(match field.ty {
                    Type::String => Value::String(text.to_owned()),
                    _ => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
                })
            }
            Self::Custom(schema) => schema.get("properties")?.get(key)?.get("default").cloned(),
            _ => None,
        }
    }
}

fn if_not<'s>(leaf: bool, form: Form<'s>) -> Form<'s> {
    if leaf { Form::Leaf } else { form }
}

fn metadata() -> Node<'static> {
    Node::Struct { message: crate::schema::object_meta(), atomic: false }
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool) == Some(true)
}

fn custom_child<'s>(schema: &'s Value, name: &str) -> Option<(Node<'s>, bool)> {
    if flag(schema, "x-kubernetes-embedded-resource") && name == "metadata" {
        return Some((metadata(), true));
    }
    if flag(schema, "x-kubernetes-embedded-resource") && matches!(name, "apiVersion" | "kind") {
        return Some((Node::Scalar(&Type::String), true));
    }
    if let Some(field) = schema.get("properties").and_then(|properties| properties.get(name)) {
        return Some((Node::Custom(field), true));
    }
    match schema.get("additionalProperties") {
        Some(Value::Bool(true)) => return Some((Node::Deduced, false)),
        Some(inner @ Value::Object(_)) => return Some((Node::Custom(inner), false)),
        _ => {}
    }
    let open = flag(schema, "x-kubernetes-preserve-unknown-fields")
        || (schema.get("properties").is_none() && schema.get("type").is_none());
    open.then_some((Node::Deduced, false))
}

fn custom_form<'s>(schema: &'s Value, value: &Value) -> Form<'s> {
    let text = |name: &str| schema.get(name).and_then(Value::as_str);
    match (text("type"), value) {
        (Some("object"), _) | (None, Value::Object(_)) => {
            if_not(text("x-kubernetes-map-type") == Some("atomic") || !value.is_object(), Form::Map)
        }
        (Some("array"), _) => match text("x-kubernetes-list-type") {
            Some("set") => Form::Set,
            Some("map") => Form::Keyed(
                schema
                    .get("x-kubernetes-list-map-keys")
                    .and_then(Value::as_array)
                    .map(|keys| keys.iter().filter_map(Value::as_str).collect())
                    .unwrap_or_default(),
            ),
            _ => Form::Leaf,
        },
        _ => Form::Leaf,
    }
}
