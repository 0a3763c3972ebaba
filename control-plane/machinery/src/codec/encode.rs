//! `Value` into protobuf messages, by the schema table. Fields go out by number, map entries by key: the same object
//! always gives the same bytes.

use super::scalars;
use super::wire::{put_bytes, put_nested, put_number, put_varint};
use crate::schema::{Message, Type, schema_props};
use serde_json::{Map, Value};

/// The object does not have the shape its message has.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode {path}: {what}")]
pub(super) struct EncodeError {
    path: String,
    what: String,
}

type Result<T = ()> = std::result::Result<T, EncodeError>;

fn fail(what: impl Into<String>) -> EncodeError {
    EncodeError { path: String::new(), what: what.into() }
}

fn within(name: &str) -> impl FnOnce(EncodeError) -> EncodeError + '_ {
    move |error| EncodeError {
        path: if error.path.is_empty() { name.to_owned() } else { format!("{name}.{}", error.path) },
        what: error.what,
    }
}

/// Appends the message.
pub(super) fn message(message: &Message, object: &Map<String, Value>, out: &mut Vec<u8>) -> Result {
    for field in &message.fields {
        if field.number == 0 {
            continue;
        }
        if field.inline {
            let inner = field.ty.as_message();
            if let Some(inner) =
                inner.filter(|inner| inner.json_fields().any(|field| object.contains_key(field.json)))
            {
                put_nested(out, field.number, |out| self::message(inner, object, out))?;
            }
            continue;
        }
        let Some(value) = object.get(field.json) else { continue };
        field_value(field.number, &field.ty, value, out).map_err(within(field.json))?;
    }
    Ok(())
}

fn field_value(number: u32, ty: &Type, value: &Value, out: &mut Vec<u8>) -> Result {
    match (ty, value) {
        (_, Value::Null) => Ok(()),
        (Type::List(inner), Value::Array(list)) => {
            list.iter().try_for_each(|item| single(number, inner, item, out))
        }
        (Type::Map(inner), Value::Object(map)) => map.iter().try_for_each(|(key, item)| {
            put_nested(out, number, |out| {
                put_bytes(out, 1, key.as_bytes());
                single(2, inner, item, out).map_err(within(key))
            })
        }),
        _ => single(number, ty, value, out),
    }
}

fn single(number: u32, ty: &Type, value: &Value, out: &mut Vec<u8>) -> Result {
    match ty {
        Type::Bool => {
            let truth = value.as_bool().ok_or_else(|| fail("not a boolean"))?;
            put_number(out, number, u64::from(truth));
        }
        // Negative numbers are sign-extended: that is protobuf's encoding of int32 and int64.
        Type::Int32 | Type::Int64 => put_number(out, number, integer(value)? as u64),
        Type::Double => {
            put_varint(out, u64::from(number) << 3 | 1);
            let bits = value.as_f64().ok_or_else(|| fail("not a number"))?.to_bits();
            out.extend_from_slice(&bits.to_le_bytes());
        }
        Type::String => put_bytes(out, number, text(value)?.as_bytes()),
        Type::Bytes => put_bytes(out, number, &scalars::decode_base64(text(value)?).map_err(fail)?),
        Type::Quantity => put_nested(out, number, |out| {
            let quantity = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            put_bytes(out, 1, quantity.as_bytes());
            Ok(())
        })?,
        Type::Time | Type::MicroTime => put_nested(out, number, |out| {
            if value.is_null() {
                return Ok(());
            }
            let at = scalars::time(text(value)?).map_err(fail)?;
            put_number(out, 1, at.as_nanosecond().div_euclid(1_000_000_000) as u64);
            put_number(out, 2, at.as_nanosecond().rem_euclid(1_000_000_000) as u64);
            Ok(())
        })?,
        Type::Duration => put_nested(out, number, |out| {
            put_number(out, 1, scalars::duration(text(value)?).map_err(fail)? as u64);
            Ok(())
        })?,
        Type::IntOrString => put_nested(out, number, |out| {
            let string = value.as_str();
            put_number(out, 1, u64::from(string.is_some()));
            put_number(out, 2, if string.is_some() { 0 } else { integer(value)? as u64 });
            put_bytes(out, 3, string.unwrap_or_default().as_bytes());
            Ok(())
        })?,
        Type::Raw | Type::Json | Type::Fields => put_nested(out, number, |out| {
            let json = serde_json::to_vec(value).map_err(|error| fail(error.to_string()))?;
            put_bytes(out, 1, &json);
            Ok(())
        })?,
        Type::Items => put_nested(out, number, |out| {
            for item in value.as_array().into_iter().flatten() {
                put_bytes(out, 1, text(item)?.as_bytes());
            }
            Ok(())
        })?,
        Type::PropsOrArray | Type::PropsOrBool | Type::PropsOrStrings => {
            put_nested(out, number, |out| props(ty, value, out))?;
        }
        Type::Message(_) => {
            let inner = ty.as_message().ok_or_else(|| fail("unknown message"))?;
            match value {
                Value::Object(object) => put_nested(out, number, |out| message(inner, object, out))?,
                Value::Null => put_bytes(out, number, &[]),
                _ => return Err(fail("not an object")),
            }
        }
        Type::List(_) | Type::Map(_) => return Err(fail("lists and maps do not nest")),
    }
    Ok(())
}

fn text(value: &Value) -> Result<&str> {
    match value {
        Value::Null => Ok(""),
        _ => value.as_str().ok_or_else(|| fail("not a string")),
    }
}

fn integer(value: &Value) -> Result<i64> {
    match value {
        Value::Null => Ok(0),
        _ => value.as_i64().ok_or_else(|| fail("not an integer")),
    }
}

fn props(ty: &Type, value: &Value, out: &mut Vec<u8>) -> Result {
    match (ty, value) {
        (Type::PropsOrBool, Value::Bool(allows)) => put_number(out, 1, u64::from(*allows)),
        (Type::PropsOrBool, Value::Object(object)) => {
            put_number(out, 1, 1);
            put_nested(out, 2, |out| message(schema_props(), object, out))?;
        }
        (_, Value::Object(object)) => put_nested(out, 1, |out| message(schema_props(), object, out))?,
        (Type::PropsOrStrings, Value::Array(list)) => {
            for item in list {
                put_bytes(out, 2, text(item)?.as_bytes());
            }
        }
        (Type::PropsOrArray, Value::Array(list)) => {
            for item in list {
                let object = item.as_object().ok_or_else(|| fail("not an object"))?;
                put_nested(out, 2, |out| message(schema_props(), object, out))?;
            }
        }
        _ => return Err(fail("not a schema")),
    }
    Ok(())
}
