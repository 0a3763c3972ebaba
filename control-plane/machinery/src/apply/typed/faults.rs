//! What of a configuration does not fit its type, told with paths, a bounded number at once.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::element_path;
use crate::apply::path::{PathElement, print_path};
use crate::apply::types::{Form, Node};
use crate::schema::Type;

/// Most faults that are told at once.
const MOST_FAULTS: usize = 20;

/// What of a configuration does not fit its type, each with its path.
pub(in crate::apply) fn faults(node: Node<'_>, value: &Value) -> Vec<String> {
    let mut out = Vec::new();
    check(node, value, &mut Vec::new(), &mut out);
    out
}

fn check(node: Node<'_>, value: &Value, path: &mut Vec<PathElement>, out: &mut Vec<String>) {
    if out.len() >= MOST_FAULTS || value.is_null() {
        return;
    }
    let form = node.form(value);
    let mut fault = |path: &[PathElement], what: &str| out.push(format!("{}: {what}", print_path(path)));
    match (node, value) {
        (
            Node::Struct { .. } | Node::Map { .. } | Node::CustomRoot(_) | Node::DeducedRoot,
            Value::Object(map),
        ) => check_fields(node, map, path, out),
        (Node::Struct { .. } | Node::Map { .. } | Node::CustomRoot(_) | Node::DeducedRoot, other) => {
            fault(path, &format!("expected map, got {}", describe(other)));
        }
        (Node::Custom(schema), value) => check_custom(node, schema, value, path, out),
        (Node::List { .. }, Value::Array(list)) => check_list(node, &form, list, path, out),
        (Node::List { .. }, other) => fault(path, &format!("expected list, got {}", describe(other))),
        (Node::Scalar(ty), value) => {
            let expected = match ty {
                Type::Bool if !value.is_boolean() => "boolean",
                Type::Int32 | Type::Int64 | Type::Double if !value.is_number() => "numeric (int or float)",
                Type::String | Type::Bytes if !value.is_string() => "string",
                _ if value.is_object() || value.is_array() => "scalar",
                _ => return,
            };
            fault(path, &format!("expected {expected}, got {}", describe(value)));
        }
        (Node::Atomic | Node::Deduced, _) => {}
    }
}

fn check_fields(
    node: Node<'_>,
    fields: &Map<String, Value>,
    path: &mut Vec<PathElement>,
    out: &mut Vec<String>,
) {
    for (name, value) in fields {
        path.push(PathElement::field(name));
        match node.child(name) {
            Some((inner, _)) => check(inner, value, path, out),
            None => out.push(format!("{}: field not declared in schema", print_path(path))),
        }
        path.pop();
    }
}

fn check_list(
    node: Node<'_>,
    form: &Form<'_>,
    list: &[Value],
    path: &mut Vec<PathElement>,
    out: &mut Vec<String>,
) {
    let mut seen = BTreeSet::new();
    for (at, item) in list.iter().enumerate() {
        let step = match form {
            Form::Set | Form::Keyed(_) => match element_path(node, form, item) {
                Ok(element) if !seen.insert(element.clone()) => {
                    out.push(format!("{}: duplicate entries for key {element}", print_path(path)));
                    continue;
                }
                Ok(element) => element,
                Err(what) => {
                    out.push(format!("{}: element {at}: {what}", print_path(path)));
                    continue;
                }
            },
            Form::Leaf | Form::Map => PathElement::Index(at),
        };
        path.push(step);
        check(node.element(), item, path, out);
        path.pop();
    }
}

fn check_custom(
    node: Node<'_>,
    schema: &Value,
    value: &Value,
    path: &mut Vec<PathElement>,
    out: &mut Vec<String>,
) {
    let form = node.form(value);
    match (schema.get("type").and_then(Value::as_str), value) {
        (Some("object") | None, Value::Object(map)) => check_fields(node, map, path, out),
        (Some("array"), Value::Array(list)) => check_list(node, &form, list, path, out),
        (Some("object"), other) => {
            out.push(format!("{}: expected map, got {}", print_path(path), describe(other)));
        }
        (Some("array"), other) => {
            out.push(format!("{}: expected list, got {}", print_path(path), describe(other)));
        }
        _ => {}
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Object(_) => "map".to_owned(),
        Value::Array(_) => "list".to_owned(),
        other => other.to_string(),
    }
}
