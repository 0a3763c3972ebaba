//! Reads JSON, YAML or an already parsed value into a `Value`, guided by the schema table.
//!
//! One pass checks types, drops what the message does not know, finds duplicate keys and drops what is empty, in
//! the order of the document (the order in which strict errors are reported). A type error ends the pass.

use super::scalars;
use crate::schema::{Field, Message, Schema, Type, object_meta, schema_props};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use skep_api::resource::GroupVersionKind;
use std::cell::RefCell;
use std::fmt;

/// Strict errors beyond this many are not collected.
const MOST_PROBLEMS: usize = 100;

/// Something strict validation refuses and lenient validation warns of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    Unknown(String),
    Duplicate(String),
}

enum Step {
    Field(&'static str),
    Key(String),
    Index(usize),
}

/// What is known of a document.
#[derive(Clone, Copy)]
pub(super) enum Root {
    /// A built-in message.
    Message(&'static Message),
    /// An object of a kind that is not in the table: its metadata is typed, the rest is not.
    Custom,
    /// Any JSON.
    Untyped,
}

impl Root {
    /// Of a kind.
    pub(super) fn of(gvk: &GroupVersionKind) -> Self {
        Schema::of(gvk).map_or(Self::Custom, Self::Message)
    }
}

/// What one pass collects.
#[derive(Default)]
pub(super) struct Reader {
    problems: RefCell<Vec<Problem>>,
    fatal: RefCell<Option<String>>,
    path: RefCell<Vec<Step>>,
}

impl Reader {
    /// Reads a whole document.
    pub(super) fn read<'de, D: Deserializer<'de>>(&self, root: Root, from: D) -> Result<Value, D::Error> {
        let (shape, owner) = match root {
            Root::Message(message) => (Shape::Message(message), message.name),
            Root::Custom => (Shape::Custom, "Object"),
            Root::Untyped => (Shape::Any, ""),
        };
        let node = Node { reader: self, shape, owner };
        node.deserialize(from).map(|value| value.unwrap_or(Value::Null))
    }

    /// The type error that ended the pass, if that was the reason.
    pub(super) fn take_fatal(&self) -> Option<String> {
        self.fatal.borrow_mut().take()
    }

    /// Unknown and duplicate fields in document order.
    pub(super) fn take_problems(&self) -> Vec<Problem> {
        self.problems.take()
    }

    fn problem(&self, make: impl FnOnce(String) -> Problem, name: &str) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() < MOST_PROBLEMS {
            problems.push(make(self.strict_path(name)));
        }
    }

    fn strict_path(&self, name: &str) -> String {
        let mut text = String::new();
        let dot = |text: &mut String| {
            if !text.is_empty() {
                text.push('.');
            }
        };
        for step in self.path.borrow().iter() {
            match step {
                Step::Field(name) => {
                    dot(&mut text);
                    text.push_str(name);
                }
                Step::Key(name) => {
                    dot(&mut text);
                    text.push_str(name);
                }
                Step::Index(at) => {
                    use fmt::Write as _;
                    // Writing to a String cannot fail.
                    let _infallible = write!(text, "[{at}]");
                }
            }
        }
        dot(&mut text);
        text.push_str(name);
        text
    }

    fn go_path(&self) -> String {
        let path = self.path.borrow();
        let fields: Vec<&str> = path
            .iter()
            .filter_map(|step| match step {
                Step::Field(name) => Some(*name),
                Step::Key(_) | Step::Index(_) => None,
            })
            .collect();
        fields.join(".")
    }
}

#[derive(Clone, Copy)]
enum Shape {
    Message(&'static Message),
    Custom,
    Typed(&'static Type),
    Any,
}

#[derive(Clone, Copy)]
struct Node<'r> {
    reader: &'r Reader,
    shape: Shape,
    owner: &'static str,
}

impl<'r> Node<'r> {
    fn typed(&self, ty: &'static Type) -> Self {
        let shape = match ty {
            Type::Message(_) => ty.as_message().map_or(Shape::Any, Shape::Message),
            Type::Raw | Type::Json | Type::Fields => Shape::Any,
            other => Shape::Typed(other),
        };
        Self { shape, ..*self }
    }

    fn fail<E: serde::de::Error>(&self, message: String) -> E {
        let mut fatal = self.reader.fatal.borrow_mut();
        fatal.get_or_insert(message);
        E::custom("type error")
    }

    fn mismatch<E: serde::de::Error>(&self, what: &str) -> E {
        let wanted = match self.shape {
            Shape::Message(message) => format!("{}.{}", message.package.version, message.name),
            Shape::Typed(ty) => ty.go_name(),
            Shape::Custom => "map[string]interface {}".to_owned(),
            Shape::Any => "interface {}".to_owned(),
        };
        let path = self.reader.go_path();
        // These unmarshal themselves upstream, so that the error does not name the field.
        let own = matches!(
            self.shape,
            Shape::Typed(Type::Time | Type::MicroTime | Type::Duration | Type::IntOrString | Type::Quantity)
        );
        self.fail(if own || path.is_empty() {
            format!("json: cannot unmarshal {what} into Go value of type {wanted}")
        } else {
            format!(
                "json: cannot unmarshal {what} into Go struct field {}.{path} of type {wanted}",
                self.owner
            )
        })
    }

    fn at<T>(&self, step: Step, run: impl FnOnce() -> T) -> T {
        self.reader.path.borrow_mut().push(step);
        let out = run();
        self.reader.path.borrow_mut().pop();
        out
    }

    fn message<'de, A: MapAccess<'de>>(
        &self,
        message: &'static Message,
        mut map: A,
    ) -> Result<Option<Value>, A::Error> {
        let mut out = Map::new();
        let mut seen: Vec<&'static str> = Vec::new();
        while let Some(name) = map.next_key_seed(Key)? {
            let known: Option<(&'static str, Shape, Option<&'static Field>)> = match message.field(&name) {
                Some(field) => Some((field.json, self.typed(&field.ty).shape, Some(field))),
                None if message.is_kind && name == "apiVersion" => {
                    Some(("apiVersion", Shape::Typed(&Type::String), None))
                }
                None if message.is_kind && name == "kind" => {
                    Some(("kind", Shape::Typed(&Type::String), None))
                }
                None => None,
            };
            let Some((name, shape, field)) = known else {
                self.reader.problem(Problem::Unknown, &name);
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if seen.contains(&name) {
                self.reader.problem(Problem::Duplicate, name);
            } else {
                seen.push(name);
            }
            let node = Node { reader: self.reader, shape, owner: message.name };
            let value = self.at(Step::Field(name), || map.next_value_seed(node))?;
            match value {
                Some(value) if !field.is_some_and(|field| left_out(field, &value)) => {
                    out.insert(name.to_owned(), value);
                }
                _ => {
                    out.remove(name);
                }
            }
        }
        Ok(Some(Value::Object(out)))
    }

    fn object<'de, A: MapAccess<'de>>(
        &self,
        inner: Option<&'static Type>,
        mut map: A,
    ) -> Result<Option<Value>, A::Error> {
        let mut out = Map::new();
        while let Some(name) = map.next_key_seed(Key)? {
            if out.contains_key(&name) {
                self.reader.problem(Problem::Duplicate, &name);
            }
            let node = match (self.shape, inner) {
                (Shape::Custom, _) => Node { shape: custom_shape(&name), ..*self },
                (_, Some(ty)) => self.typed(ty),
                (_, None) => Node { shape: Shape::Any, ..*self },
            };
            let value = self.at(Step::Key(name.clone()), || map.next_value_seed(node))?;
            if value.is_none() && matches!(node.shape, Shape::Message(_)) && inner.is_none() {
                // The metadata of a custom object.
                continue;
            }
            let value = value.unwrap_or_else(|| inner.map_or(Value::Null, zero));
            out.insert(name, value);
        }
        Ok(Some(Value::Object(out)))
    }

    fn array<'de, A: SeqAccess<'de>>(
        &self,
        inner: Option<&'static Type>,
        mut seq: A,
    ) -> Result<Option<Value>, A::Error> {
        let mut out = Vec::new();
        let node = inner.map_or(Node { shape: Shape::Any, ..*self }, |ty| self.typed(ty));
        while let Some(value) = self.at(Step::Index(out.len()), || seq.next_element_seed(node))? {
            out.push(value.unwrap_or_else(|| inner.map_or(Value::Null, zero)));
        }
        Ok(Some(Value::Array(out)))
    }

    fn integer<E: serde::de::Error>(&self, value: i128, number: Number) -> Result<Option<Value>, E> {
        let fits = match self.shape {
            Shape::Any | Shape::Typed(Type::Double) => true,
            Shape::Typed(Type::Int32 | Type::IntOrString) => i32::try_from(value).is_ok(),
            Shape::Typed(Type::Int64) => i64::try_from(value).is_ok(),
            Shape::Typed(Type::Quantity) => return Ok(Some(Value::String(value.to_string()))),
            _ => return Err(self.mismatch("number")),
        };
        if fits { Ok(Some(Value::Number(number))) } else { Err(self.mismatch(&format!("number {value}"))) }
    }

    fn text<E: serde::de::Error>(&self, text: &str) -> Result<Option<Value>, E> {
        let canonical = match self.shape {
            Shape::Any => Ok(text.to_owned()),
            Shape::Message(_) | Shape::Custom => return Err(self.mismatch("string")),
            Shape::Typed(ty) => match ty {
                Type::String | Type::IntOrString => Ok(text.to_owned()),
                Type::Quantity if text.is_empty() => Ok("0".to_owned()),
                Type::Quantity => scalars::check_quantity(text).map(|()| text.to_owned()),
                Type::Bytes => scalars::canonical_base64(text),
                Type::Time => scalars::time(text).map(scalars::print_time),
                Type::MicroTime => scalars::time(text).map(scalars::print_micro_time),
                Type::Duration => scalars::duration(text).map(|_| text.to_owned()),
                _ => return Err(self.mismatch("string")),
            },
        };
        canonical.map(|text| Some(Value::String(text))).map_err(|message| self.fail(message))
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Self::Value, E> {
        match self.shape {
            Shape::Any | Shape::Typed(Type::Bool | Type::PropsOrBool) => Ok(Some(Value::Bool(value))),
            _ => Err(self.mismatch("bool")),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
        self.integer(value.into(), value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
        self.integer(value.into(), value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
        match self.shape {
            Shape::Any | Shape::Typed(Type::Double) => Number::from_f64(value)
                .map(|number| Some(Value::Number(number)))
                .ok_or_else(|| self.mismatch(&format!("number {value}"))),
            Shape::Typed(Type::Quantity) => self.text(&value.to_string()),
            Shape::Typed(Type::Int32 | Type::Int64 | Type::IntOrString) => {
                Err(self.mismatch(&format!("number {value}")))
            }
            _ => Err(self.mismatch("number")),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        self.text(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        match self.shape {
            Shape::Any => self.array(None, seq),
            Shape::Typed(Type::List(inner)) => self.array(Some(inner), seq),
            Shape::Typed(Type::Items | Type::PropsOrStrings) => self.array(Some(&Type::String), seq),
            Shape::Typed(Type::PropsOrArray) => self.array(Some(props_type()), seq),
            Shape::Message(_) | Shape::Custom | Shape::Typed(_) => Err(self.mismatch("array")),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        match self.shape {
            Shape::Any | Shape::Custom => self.object(None, map),
            Shape::Message(message) => self.message(message, map),
            Shape::Typed(Type::Map(inner)) => self.object(Some(inner), map),
            Shape::Typed(Type::PropsOrArray | Type::PropsOrBool | Type::PropsOrStrings) => {
                self.message(schema_props(), map)
            }
            Shape::Typed(_) => Err(self.mismatch("object")),
        }
    }
}

/// The fields that every object has.
fn custom_shape(name: &str) -> Shape {
    match name {
        "apiVersion" | "kind" => Shape::Typed(&Type::String),
        "metadata" => Shape::Message(object_meta()),
        _ => Shape::Any,
    }
}

/// The type of a JSON schema in a list: found through the field that refers to itself.
fn props_type() -> &'static Type {
    schema_props().field("not").map_or(&Type::Json, |field| &field.ty)
}

/// Go leaves an empty value out of what it prints.
fn left_out(field: &Field, value: &Value) -> bool {
    // An empty list of managers is how a client asks to forget them all.
    field.omit_empty
        && field.json != "managedFields"
        && match value {
            Value::Null => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty() && matches!(field.ty, Type::Map(_)),
            Value::String(text) => {
                text.is_empty()
                    && !field.pointer
                    && !matches!(field.ty, Type::IntOrString | Type::Json | Type::Raw)
            }
            Value::Bool(truth) => !truth && !field.pointer && field.ty == Type::Bool,
            Value::Number(number) => {
                !field.pointer
                    && matches!(field.ty, Type::Int32 | Type::Int64 | Type::Double)
                    && number.as_f64() == Some(0.0)
            }
        }
}

/// What `null` means as an element of a list or a value of a map.
fn zero(ty: &Type) -> Value {
    match ty {
        Type::Bool => Value::Bool(false),
        Type::Int32 | Type::Int64 | Type::IntOrString => 0.into(),
        Type::Double => 0.0.into(),
        Type::String | Type::Bytes => Value::String(String::new()),
        Type::Quantity => Value::String("0".to_owned()),
        Type::Duration => Value::String("0s".to_owned()),
        Type::Message(_) => Value::Object(Map::new()),
        _ => Value::Null,
    }
}

/// A key of an object; YAML allows scalars other than text, which JSON spells as text.
pub(super) struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<String, D::Error> {
        from.deserialize_any(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<String, E> {
        Ok(text)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<String, E> {
        Ok("null".to_owned())
    }
}
