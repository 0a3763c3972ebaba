//! Protobuf messages into `Value`, by the schema table. Unknown fields are skipped, as protobuf does.

use super::scalars;
use super::wire::{Fields, Payload, WireError};
use crate::schema::{Field, Message, Type, schema_props};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

/// Messages inside messages at most; the API's own need about thirty, a recursive JSON schema more.
const DEEPEST: usize = 120;

/// Decodes one message.
pub(super) fn message(message: &Message, bytes: &[u8]) -> Result<Map<String, Value>, WireError> {
    let mut out = Map::new();
    fields(message, bytes, &mut out, 0)?;
    Ok(out)
}

fn fields(
    message: &Message,
    bytes: &[u8],
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), WireError> {
    if depth > DEEPEST {
        return Err(WireError::Deep);
    }
    let mut reader = Fields::new(bytes);
    while let Some((number, payload)) = reader.next_field()? {
        if let Some(field) = message.numbered(number) {
            field_into(field, payload, out, depth)?;
        }
    }
    Ok(())
}

fn field_into(
    field: &Field,
    payload: Payload<'_>,
    out: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), WireError> {
    match &field.ty {
        Type::Message(_) if field.inline => {
            let inner = field.ty.as_message().ok_or(WireError::Illegal)?;
            fields(inner, bytes_of(payload)?, out, depth + 1)
        }
        Type::Message(_) => {
            let inner = field.ty.as_message().ok_or(WireError::Illegal)?;
            // A message that comes twice is merged, as protobuf has it.
            let slot = out.entry(field.json).or_insert_with(|| Value::Object(Map::new()));
            match slot {
                Value::Object(map) => fields(inner, bytes_of(payload)?, map, depth + 1),
                _ => Err(WireError::Illegal),
            }
        }
        Type::List(inner) => {
            let slot = out.entry(field.json).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(list) = slot else { return Err(WireError::Illegal) };
            match (inner.as_ref(), payload) {
                (Type::Int32 | Type::Int64 | Type::Bool, Payload::Bytes(packed)) => {
                    unpack(inner, packed, list)
                }
                _ => {
                    list.push(value(inner, payload, depth)?.unwrap_or_else(|| empty(inner)));
                    Ok(())
                }
            }
        }
        Type::Map(inner) => {
            let (mut key, mut item) = (String::new(), None);
            let mut entry = Fields::new(bytes_of(payload)?);
            while let Some((number, payload)) = entry.next_field()? {
                match number {
                    1 => key = text(payload)?,
                    2 => item = value(inner, payload, depth)?,
                    _ => {}
                }
            }
            let slot = out.entry(field.json).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(map) = slot else { return Err(WireError::Illegal) };
            map.insert(key, item.unwrap_or_else(|| empty(inner)));
            Ok(())
        }
        ty => {
            match value(ty, payload, depth)? {
                Some(value) if !(field.omit_empty && !field.pointer && is_zero(ty, &value)) => {
                    out.insert(field.json.to_owned(), value);
                }
                _ => {
                    out.remove(field.json);
                }
            }
            Ok(())
        }
    }
}

fn is_zero(ty: &Type, value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty() && matches!(ty, Type::String | Type::Bytes),
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_f64() == Some(0.0) && *ty != Type::IntOrString,
        Value::Array(list) => list.is_empty(),
        Value::Null => true,
        Value::Object(_) => false,
    }
}

/// An element whose payload says nothing.
fn empty(ty: &Type) -> Value {
    match ty {
        Type::Bool => Value::Bool(false),
        Type::Int32 | Type::Int64 => 0.into(),
        Type::Double => 0.0.into(),
        Type::String | Type::Bytes => Value::String(String::new()),
        Type::Quantity => Value::String("0".to_owned()),
        Type::Message(_) => Value::Object(Map::new()),
        Type::Items | Type::PropsOrStrings => Value::Array(Vec::new()),
        _ => Value::Null,
    }
}

fn unpack(ty: &Type, packed: &[u8], list: &mut Vec<Value>) -> Result<(), WireError> {
    let mut at = 0;
    while at < packed.len() {
        let mut number = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = *packed.get(at).ok_or(WireError::Truncated)?;
            at += 1;
            number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                break;
            }
            if shift == 63 {
                return Err(WireError::Overflow);
            }
        }
        list.extend(value(ty, Payload::Varint(number), 0)?);
    }
    Ok(())
}

fn value(ty: &Type, payload: Payload<'_>, depth: usize) -> Result<Option<Value>, WireError> {
    Ok(Some(match ty {
        Type::Bool => Value::Bool(varint(payload)? != 0),
        // Negative 32-bit numbers travel sign-extended to 64 bits: truncation is the decoding.
        Type::Int32 => (varint(payload)? as i32).into(),
        Type::Int64 => (varint(payload)? as i64).into(),
        Type::Double => match payload {
            Payload::Fixed64(bits) => f64::from_bits(bits).into(),
            _ => return Err(WireError::Illegal),
        },
        Type::String => Value::String(text(payload)?),
        Type::Bytes => Value::String(STANDARD.encode(bytes_of(payload)?)),
        Type::Quantity => {
            let quantity = single(payload, 1)?.map(text).transpose()?.unwrap_or_default();
            Value::String(if quantity.is_empty() { "0".to_owned() } else { quantity })
        }
        Type::Time | Type::MicroTime => return time(ty, bytes_of(payload)?),
        Type::Duration => {
            let nanos = single(payload, 1)?.map(varint).transpose()?.unwrap_or(0) as i64;
            Value::String(scalars::print_duration(nanos))
        }
        Type::IntOrString => int_or_string(bytes_of(payload)?)?,
        Type::Raw | Type::Json | Type::Fields => match single(payload, 1)? {
            Some(raw) => return raw_json(bytes_of(raw)?, depth),
            None => return Ok(None),
        },
        Type::Items => strings(bytes_of(payload)?, 1)?,
        Type::PropsOrArray | Type::PropsOrBool | Type::PropsOrStrings => {
            return props(ty, bytes_of(payload)?, depth);
        }
        Type::Message(_) => {
            let mut map = Map::new();
            fields(ty.as_message().ok_or(WireError::Illegal)?, bytes_of(payload)?, &mut map, depth + 1)?;
            Value::Object(map)
        }
        // Neither lists nor maps nest in the API's protobuf.
        Type::List(_) | Type::Map(_) => return Err(WireError::Illegal),
    }))
}

fn varint(payload: Payload<'_>) -> Result<u64, WireError> {
    match payload {
        Payload::Varint(value) => Ok(value),
        _ => Err(WireError::Illegal),
    }
}

fn bytes_of(payload: Payload<'_>) -> Result<&[u8], WireError> {
    match payload {
        Payload::Bytes(bytes) => Ok(bytes),
        _ => Err(WireError::Illegal),
    }
}

/// Text; what is not UTF-8 is replaced, as Go does when such a string reaches JSON.
fn text(payload: Payload<'_>) -> Result<String, WireError> {
    Ok(String::from_utf8_lossy(bytes_of(payload)?).into_owned())
}

/// The last occurrence of one field of a wrapper message.
fn single(payload: Payload<'_>, wanted: u32) -> Result<Option<Payload<'_>>, WireError> {
    let mut found = None;
    let mut reader = Fields::new(bytes_of(payload)?);
    while let Some((number, payload)) = reader.next_field()? {
        if number == wanted {
            found = Some(payload);
        }
    }
    Ok(found)
}

fn time(ty: &Type, bytes: &[u8]) -> Result<Option<Value>, WireError> {
    // The zero time is an empty message and null in JSON.
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0i64, 0i32);
    let mut reader = Fields::new(bytes);
    while let Some((number, payload)) = reader.next_field()? {
        match number {
            1 => seconds = varint(payload)? as i64,
            2 => nanos = varint(payload)? as i32,
            _ => {}
        }
    }
    let at = Timestamp::new(seconds, nanos.clamp(0, 999_999_999)).map_err(|_| WireError::Overflow)?;
    Ok(Some(Value::String(if *ty == Type::Time {
        scalars::print_time(at)
    } else {
        scalars::print_micro_time(at)
    })))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, WireError> {
    let (mut is_text, mut number, mut string) = (false, 0i32, String::new());
    let mut reader = Fields::new(bytes);
    while let Some((field, payload)) = reader.next_field()? {
        match field {
            1 => is_text = varint(payload)? == 1,
            2 => number = varint(payload)? as i32,
            3 => string = text(payload)?,
            _ => {}
        }
    }
    Ok(if is_text { Value::String(string) } else { number.into() })
}

/// An embedded object: JSON, or an envelope with protobuf inside.
fn raw_json(bytes: &[u8], depth: usize) -> Result<Option<Value>, WireError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.starts_with(super::envelope::MAGIC) {
        if depth > DEEPEST {
            return Err(WireError::Deep);
        }
        let unknown = super::envelope::open(bytes)?;
        let gvk = skep_api::resource::GroupVersionKind::from_api_version(&unknown.api_version, &unknown.kind);
        let inner = crate::schema::Schema::of(&gvk).ok_or(WireError::Illegal)?;
        let mut map = Map::new();
        fields(inner, &unknown.raw, &mut map, depth + 1)?;
        map.insert("apiVersion".to_owned(), unknown.api_version.into());
        map.insert("kind".to_owned(), unknown.kind.into());
        return Ok(Some(Value::Object(map)));
    }
    serde_json::from_slice(bytes).map(Some).map_err(|_| WireError::Illegal)
}

fn strings(bytes: &[u8], wanted: u32) -> Result<Value, WireError> {
    let mut list = Vec::new();
    let mut reader = Fields::new(bytes);
    while let Some((number, payload)) = reader.next_field()? {
        if number == wanted {
            list.push(Value::String(text(payload)?));
        }
    }
    Ok(Value::Array(list))
}

/// The three unions of a JSON schema and something else.
fn props(ty: &Type, bytes: &[u8], depth: usize) -> Result<Option<Value>, WireError> {
    let schema = |bytes: &[u8]| -> Result<Value, WireError> {
        let mut map = Map::new();
        fields(schema_props(), bytes, &mut map, depth + 1)?;
        Ok(Value::Object(map))
    };
    let (mut one, mut many, mut allows) = (None, Vec::new(), false);
    let mut reader = Fields::new(bytes);
    while let Some((number, payload)) = reader.next_field()? {
        match (ty, number) {
            (Type::PropsOrBool, 1) => allows = varint(payload)? != 0,
            (Type::PropsOrBool, 2) | (Type::PropsOrArray | Type::PropsOrStrings, 1) => {
                one = Some(schema(bytes_of(payload)?)?);
            }
            (Type::PropsOrArray, 2) => many.push(schema(bytes_of(payload)?)?),
            (Type::PropsOrStrings, 2) => many.push(Value::String(text(payload)?)),
            _ => {}
        }
    }
    Ok(match (one, ty) {
        (Some(one), _) => Some(one),
        (None, Type::PropsOrBool) => Some(Value::Bool(allows)),
        (None, _) if many.is_empty() => None,
        (None, _) => Some(Value::Array(many)),
    })
}
