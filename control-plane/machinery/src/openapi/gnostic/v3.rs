//! A v3 document in the protobuf form clients may ask for (package `openapi.v3`).

use super::{
    any, double, extensions, flag, integer, list, named, nested, put_bytes, put_number, text, texts,
};
use serde_json::Value;

/// Writes the whole document.
pub(in crate::openapi) fn document(document: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 << 18);
    text(&mut out, 1, document.get("openapi"));
    if let Some(info) = document.get("info") {
        nested(&mut out, 2, |out| {
            text(out, 1, info.get("title"));
            text(out, 6, info.get("version"));
        });
    }
    nested(&mut out, 4, |out| named(out, 1, document.get("paths"), path_item));
    if let Some(components) = document.get("components") {
        nested(&mut out, 5, |out| {
            nested(out, 1, |out| named(out, 1, components.get("schemas"), schema_or_reference));
            nested(out, 7, |out| {
                named(out, 1, components.get("securitySchemes"), |out, scheme| {
                    nested(out, 1, |out| {
                        text(out, 1, scheme.get("type"));
                        text(out, 2, scheme.get("description"));
                        text(out, 3, scheme.get("name"));
                        text(out, 4, scheme.get("in"));
                    });
                });
            });
        });
    }
    for requirement in list(document.get("security")) {
        nested(&mut out, 6, |out| {
            named(out, 1, Some(requirement), |out, scopes| texts(out, 1, Some(scopes)));
        });
    }
    out
}

fn path_item(out: &mut Vec<u8>, item: &Value) {
    let methods = ["get", "put", "post", "delete", "options", "head", "patch"];
    for (number, method) in (4..).zip(methods) {
        if let Some(operation) = item.get(method) {
            nested(out, number, |out| self::operation(out, operation));
        }
    }
    for parameter in list(item.get("parameters")) {
        nested(out, 13, |out| nested(out, 1, |out| self::parameter(out, parameter)));
    }
}

fn operation(out: &mut Vec<u8>, operation: &Value) {
    texts(out, 1, operation.get("tags"));
    text(out, 3, operation.get("description"));
    text(out, 5, operation.get("operationId"));
    for parameter in list(operation.get("parameters")) {
        nested(out, 6, |out| nested(out, 1, |out| self::parameter(out, parameter)));
    }
    if let Some(body) = operation.get("requestBody") {
        nested(out, 7, |out| {
            nested(out, 1, |out| {
                content(out, 2, body.get("content"));
                flag(out, 3, body.get("required"));
            });
        });
    }
    nested(out, 8, |out| {
        named(out, 2, operation.get("responses"), |out, response| {
            nested(out, 1, |out| {
                text(out, 1, response.get("description"));
                content(out, 3, response.get("content"));
            });
        });
    });
    extensions(out, 13, operation.as_object());
}

fn content(out: &mut Vec<u8>, number: u32, content: Option<&Value>) {
    if content.is_some() {
        nested(out, number, |out| {
            named(out, 1, content, |out, media| {
                if let Some(schema) = media.get("schema") {
                    nested(out, 1, |out| schema_or_reference(out, schema));
                }
            });
        });
    }
}

fn parameter(out: &mut Vec<u8>, parameter: &Value) {
    text(out, 1, parameter.get("name"));
    text(out, 2, parameter.get("in"));
    text(out, 3, parameter.get("description"));
    flag(out, 4, parameter.get("required"));
    if let Some(schema) = parameter.get("schema") {
        nested(out, 10, |out| schema_or_reference(out, schema));
    }
}

fn schema_or_reference(out: &mut Vec<u8>, schema: &Value) {
    match schema.get("$ref") {
        Some(reference) => nested(out, 2, |out| text(out, 1, Some(reference))),
        None => nested(out, 1, |out| self::schema(out, schema)),
    }
}

fn schema(out: &mut Vec<u8>, schema: &Value) {
    let get = |name: &str| schema.get(name);
    flag(out, 1, get("nullable"));
    text(out, 9, get("title"));
    double(out, 10, get("multipleOf"));
    double(out, 11, get("maximum"));
    flag(out, 12, get("exclusiveMaximum"));
    double(out, 13, get("minimum"));
    flag(out, 14, get("exclusiveMinimum"));
    integer(out, 15, get("maxLength"));
    integer(out, 16, get("minLength"));
    text(out, 17, get("pattern"));
    integer(out, 18, get("maxItems"));
    integer(out, 19, get("minItems"));
    flag(out, 20, get("uniqueItems"));
    integer(out, 21, get("maxProperties"));
    integer(out, 22, get("minProperties"));
    texts(out, 23, get("required"));
    for value in list(get("enum")) {
        any(out, 24, value);
    }
    text(out, 25, get("type"));
    for (number, field) in [(26, "allOf"), (27, "oneOf"), (28, "anyOf")] {
        for inner in list(get(field)) {
            nested(out, number, |out| schema_or_reference(out, inner));
        }
    }
    if let Some(inner) = get("not") {
        nested(out, 29, |out| self::schema(out, inner));
    }
    if let Some(items) = get("items") {
        nested(out, 30, |out| nested(out, 1, |out| schema_or_reference(out, items)));
    }
    if get("properties").is_some() {
        nested(out, 31, |out| named(out, 1, get("properties"), schema_or_reference));
    }
    match get("additionalProperties") {
        Some(Value::Bool(allowed)) => nested(out, 32, |out| put_number(out, 2, u64::from(*allowed))),
        Some(inner) => nested(out, 32, |out| nested(out, 1, |out| schema_or_reference(out, inner))),
        None => {}
    }
    match get("default") {
        Some(Value::Bool(value)) => nested(out, 33, |out| put_number(out, 2, u64::from(*value))),
        Some(Value::String(value)) => nested(out, 33, |out| put_bytes(out, 3, value.as_bytes())),
        Some(Value::Number(_)) => nested(out, 33, |out| double(out, 1, get("default"))),
        // The message has no form for a default that is an object or a list.
        _ => {}
    }
    text(out, 34, get("description"));
    text(out, 35, get("format"));
    extensions(out, 36, schema.as_object());
}
