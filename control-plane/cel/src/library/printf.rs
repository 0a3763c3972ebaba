//! `"%d items".format([3])`.

use super::{Outcome, bounded, fail, mismatch};
use crate::eval::EvalError;
use crate::value::{Value, number, time};

/// No number is printed with more digits after the point.
const PRECISION: usize = 1000;

pub(super) fn format<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(pattern), Value::List(list)] = args else { return mismatch() };
    let mut out = String::new();
    let mut index = 0;
    let mut rest: &str = pattern;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            let digits: usize = after[..end].parse().unwrap_or(PRECISION + 1);
            if digits > PRECISION {
                return fail("could not parse formatting clause: precision is too large");
            }
            precision = Some(digits);
            rest = &after[end..];
        }
        let Some(verb) = rest.chars().next() else { return fail("unexpected end of string") };
        rest = &rest[verb.len_utf8()..];
        let Some(value) = list.get(index) else { return fail(format!("index {index} out of range")) };
        index += 1;
        clause(&mut out, verb, precision, &value)?;
        bounded(out.len())?;
    }
    out.push_str(rest);
    bounded(out.len())?;
    Ok(out.into())
}

fn clause(
    out: &mut String,
    verb: char,
    precision: Option<usize>,
    value: &Value<'_>,
) -> Result<(), EvalError> {
    let wrong = |what: &str| {
        fail(format!(
            "error during formatting: {what} clause can only be used on {}, was given {}",
            kinds(verb),
            value.type_name()
        ))
    };
    match verb {
        's' => show(out, value, 0)?,
        'd' => match value {
            Value::Int(value) => out.push_str(&value.to_string()),
            Value::Uint(value) => out.push_str(&value.to_string()),
            Value::Double(value) if !value.is_finite() => out.push_str(&special(*value)),
            _ => return wrong("decimal"),
        },
        'f' | 'e' => {
            let double = match value {
                Value::Double(value) => *value,
                Value::Int(value) => *value as f64,
                Value::Uint(value) => *value as f64,
                Value::String(text) if matches!(&**text, "NaN" | "Infinity" | "-Infinity") => {
                    out.push_str(text);
                    return Ok(());
                }
                _ => return wrong(if verb == 'f' { "fixed-point" } else { "scientific" }),
            };
            let precision = precision.unwrap_or(6);
            if !double.is_finite() {
                out.push_str(&special(double));
            } else if verb == 'f' {
                out.push_str(&format!("{double:.precision$}"));
            } else {
                let text = format!("{double:.precision$e}");
                let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                let exponent: i32 = exponent.parse().unwrap_or(0);
                let sign = if exponent < 0 { '-' } else { '+' };
                out.push_str(&format!("{digits}e{sign}{:02}", exponent.abs()));
            }
        }
        'b' => match value {
            Value::Int(value) => signed(out, *value, |value| format!("{value:b}")),
            Value::Uint(value) => out.push_str(&format!("{value:b}")),
            Value::Bool(value) => out.push(if *value { '1' } else { '0' }),
            _ => return wrong("binary"),
        },
        'o' => match value {
            Value::Int(value) => signed(out, *value, |value| format!("{value:o}")),
            Value::Uint(value) => out.push_str(&format!("{value:o}")),
            _ => return wrong("octal"),
        },
        'x' | 'X' => {
            let mut hex = String::new();
            let bytes = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            match value {
                Value::Int(value) => signed(&mut hex, *value, |value| format!("{value:x}")),
                Value::Uint(value) => hex = format!("{value:x}"),
                Value::String(text) => hex = bytes(text.as_bytes()),
                Value::Bytes(data) => hex = bytes(data),
                _ => return wrong("hex"),
            }
            out.push_str(&if verb == 'X' { hex.to_ascii_uppercase() } else { hex });
        }
        verb => {
            return fail(format!(
                "could not parse formatting clause: unrecognized formatting clause \"{verb}\""
            ));
        }
    }
    Ok(())
}

fn kinds(verb: char) -> &'static str {
    match verb {
        'd' => "integers",
        'f' | 'e' => "doubles",
        'b' => "integers and bools",
        'o' => "integers",
        _ => "integers, byte buffers, and strings",
    }
}

fn special(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value > 0.0 {
        "Infinity".to_owned()
    } else {
        "-Infinity".to_owned()
    }
}

fn signed(out: &mut String, value: i64, digits: fn(u64) -> String) {
    if value < 0 {
        out.push('-');
    }
    out.push_str(&digits(value.unsigned_abs()));
}

fn show(out: &mut String, value: &Value<'_>, depth: usize) -> Result<(), EvalError> {
    if depth > 50 {
        return fail("value is nested too deeply to be formatted");
    }
    bounded(out.len())?;
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(&value.to_string()),
        Value::Int(value) => out.push_str(&value.to_string()),
        Value::Uint(value) => out.push_str(&value.to_string()),
        Value::Double(value) if !value.is_finite() => out.push_str(&special(*value)),
        Value::Double(value) => out.push_str(&number::double(*value)),
        Value::String(text) => out.push_str(text),
        Value::Bytes(bytes) => out.push_str(&String::from_utf8_lossy(bytes)),
        Value::Timestamp(at) => out.push_str(&time::format_timestamp(*at)),
        Value::Duration(nanos) => out.push_str(&format!("{}s", number::seconds(*nanos))),
        Value::Type(name) => out.push_str(name),
        Value::List(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                show(out, &item, depth + 1)?;
            }
            out.push(']');
        }
        Value::Map(map) => {
            out.push('{');
            for (index, (key, value)) in map.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                show(out, &key.value(), depth + 1)?;
                out.push_str(": ");
                show(out, &value, depth + 1)?;
            }
            out.push('}');
        }
        other => {
            let kind = other.type_name();
            return fail(format!(
                "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given {kind}"
            ));
        }
    }
    Ok(())
}
