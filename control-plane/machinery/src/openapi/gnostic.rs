//! The v2 document in the protobuf form clients ask for (package `openapi.v2`). Maps are lists of named pairs there,
//! extensions hold YAML text, for which JSON serves.

pub(super) mod v3;

use crate::codec::wire::{put_bytes, put_nested, put_number, put_varint};
use serde_json::{Map, Value};
use std::convert::Infallible;

/// Writes the whole document.
pub(super) fn document(document: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 << 20);
    text(&mut out, 1, document.get("swagger"));
    if let Some(info) = document.get("info") {
        nested(&mut out, 2, |out| {
            text(out, 1, info.get("title"));
            text(out, 2, info.get("version"));
        });
    }
    nested(&mut out, 8, |out| named(out, 2, document.get("paths"), path_item));
    nested(&mut out, 9, |out| named(out, 1, document.get("definitions"), schema));
    for requirement in list(document.get("security")) {
        nested(&mut out, 12, |out| {
            named(out, 1, Some(requirement), |out, scopes| texts(out, 1, Some(scopes)));
        });
    }
    nested(&mut out, 13, |out| {
        named(out, 1, document.get("securityDefinitions"), |out, definition| {
            nested(out, 2, |out| {
                text(out, 1, definition.get("type"));
                text(out, 2, definition.get("name"));
                text(out, 3, definition.get("in"));
                text(out, 4, definition.get("description"));
            });
        });
    });
    out
}

fn nested(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let done: Result<(), Infallible> = put_nested(out, number, |out| {
        write(out);
        Ok(())
    });
    let Ok(()) = done;
}

fn text(out: &mut Vec<u8>, number: u32, value: Option<&Value>) {
    if let Some(text) = value.and_then(Value::as_str).filter(|text| !text.is_empty()) {
        put_bytes(out, number, text.as_bytes());
    }
}

fn texts(out: &mut Vec<u8>, number: u32, value: Option<&Value>) {
    for text in list(value).iter().filter_map(Value::as_str) {
        put_bytes(out, number, text.as_bytes());
    }
}

fn flag(out: &mut Vec<u8>, number: u32, value: Option<&Value>) {
    if value.and_then(Value::as_bool) == Some(true) {
        put_number(out, number, 1);
    }
}

fn integer(out: &mut Vec<u8>, number: u32, value: Option<&Value>) {
    if let Some(value) = value.and_then(Value::as_i64).filter(|value| *value != 0) {
        // Negative numbers are sign-extended on the wire.
        put_number(out, number, value as u64);
    }
}

fn double(out: &mut Vec<u8>, number: u32, value: Option<&Value>) {
    if let Some(value) = value.and_then(Value::as_f64).filter(|value| *value != 0.0) {
        put_varint(out, u64::from(number) << 3 | 1);
        out.extend_from_slice(&value.to_bits().to_le_bytes());
    }
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// `Any`: YAML text.
fn any(out: &mut Vec<u8>, number: u32, value: &Value) {
    nested(out, number, |out| put_bytes(out, 2, format!("{value}\n").as_bytes()));
}

/// A map as named pairs.
fn named(out: &mut Vec<u8>, number: u32, map: Option<&Value>, write: impl Fn(&mut Vec<u8>, &Value)) {
    for (name, value) in map.and_then(Value::as_object).into_iter().flatten() {
        nested(out, number, |out| {
            put_bytes(out, 1, name.as_bytes());
            nested(out, 2, |out| write(out, value));
        });
    }
}

fn extensions(out: &mut Vec<u8>, number: u32, map: Option<&Map<String, Value>>) {
    for (name, value) in map.into_iter().flatten().filter(|(name, _)| name.starts_with("x-")) {
        nested(out, number, |out| {
            put_bytes(out, 1, name.as_bytes());
            any(out, 2, value);
        });
    }
}

fn path_item(out: &mut Vec<u8>, item: &Value) {
    for (number, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(operation) = item.get(method) {
            nested(out, number, |out| self::operation(out, operation));
        }
    }
    for parameter in list(item.get("parameters")) {
        self::parameter(out, 9, parameter);
    }
}

fn operation(out: &mut Vec<u8>, operation: &Value) {
    texts(out, 1, operation.get("tags"));
    text(out, 5, operation.get("operationId"));
    texts(out, 6, operation.get("produces"));
    texts(out, 7, operation.get("consumes"));
    for parameter in list(operation.get("parameters")) {
        self::parameter(out, 8, parameter);
    }
    nested(out, 9, |out| {
        named(out, 1, operation.get("responses"), |out, response| {
            nested(out, 1, |out| {
                text(out, 1, response.get("description"));
                if let Some(schema) = response.get("schema") {
                    nested(out, 2, |out| nested(out, 1, |out| self::schema(out, schema)));
                }
            });
        });
    });
    texts(out, 10, operation.get("schemes"));
    extensions(out, 13, operation.as_object());
}

/// `ParametersItem{Parameter{BodyParameter | NonBodyParameter{query 3 | path 4}}}`.
fn parameter(out: &mut Vec<u8>, number: u32, parameter: &Value) {
    let place = parameter.get("in").and_then(Value::as_str).unwrap_or_default();
    nested(out, number, |out| {
        nested(out, 1, |out| match place {
            "body" => nested(out, 1, |out| {
                text(out, 2, parameter.get("name"));
                text(out, 3, parameter.get("in"));
                flag(out, 4, parameter.get("required"));
                if let Some(schema) = parameter.get("schema") {
                    nested(out, 5, |out| self::schema(out, schema));
                }
            }),
            _ => nested(out, 2, |out| {
                // The two sub-schemas number alike up to the name; the query one has one field more after it.
                let (choice, shift, unique) = if place == "query" { (3, 1, 20) } else { (4, 0, 19) };
                nested(out, choice, |out| {
                    flag(out, 1, parameter.get("required"));
                    text(out, 2, parameter.get("in"));
                    text(out, 4, parameter.get("name"));
                    text(out, 5 + shift, parameter.get("type"));
                    flag(out, unique, parameter.get("uniqueItems"));
                });
            }),
        });
    });
}

fn schema(out: &mut Vec<u8>, schema: &Value) {
    let get = |name: &str| schema.get(name);
    text(out, 1, get("$ref"));
    text(out, 2, get("format"));
    text(out, 3, get("title"));
    text(out, 4, get("description"));
    if let Some(default) = get("default") {
        any(out, 5, default);
    }
    double(out, 6, get("multipleOf"));
    double(out, 7, get("maximum"));
    flag(out, 8, get("exclusiveMaximum"));
    double(out, 9, get("minimum"));
    flag(out, 10, get("exclusiveMinimum"));
    integer(out, 11, get("maxLength"));
    integer(out, 12, get("minLength"));
    text(out, 13, get("pattern"));
    integer(out, 14, get("maxItems"));
    integer(out, 15, get("minItems"));
    flag(out, 16, get("uniqueItems"));
    integer(out, 17, get("maxProperties"));
    integer(out, 18, get("minProperties"));
    texts(out, 19, get("required"));
    for value in list(get("enum")) {
        any(out, 20, value);
    }
    match get("additionalProperties") {
        Some(Value::Bool(allowed)) => nested(out, 21, |out| put_number(out, 2, u64::from(*allowed))),
        Some(inner) => nested(out, 21, |out| nested(out, 1, |out| self::schema(out, inner))),
        None => {}
    }
    if let Some(ty) = get("type").and_then(Value::as_str) {
        nested(out, 22, |out| put_bytes(out, 1, ty.as_bytes()));
    }
    if let Some(items) = get("items") {
        nested(out, 23, |out| nested(out, 1, |out| self::schema(out, items)));
    }
    for inner in list(get("allOf")) {
        nested(out, 24, |out| self::schema(out, inner));
    }
    if get("properties").is_some() {
        nested(out, 25, |out| named(out, 1, get("properties"), self::schema));
    }
    extensions(out, 31, schema.as_object());
}
