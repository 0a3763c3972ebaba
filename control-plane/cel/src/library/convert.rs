//! Conversions between the basic types.

use super::{Outcome, fail, mismatch};
use crate::functions::Declare;
use crate::value::{Value, number, time};

pub(super) fn declare(declare: Declare<'_>) {
    for (from, id) in [
        ("int", "int64_to_int64"),
        ("uint", "uint64_to_int64"),
        ("double", "double_to_int64"),
        ("string", "string_to_int64"),
        ("timestamp", "timestamp_to_int64"),
        ("duration", "duration_to_int64"),
    ] {
        declare(id, &format!("int({from}) -> int"), to_int);
    }
    for (from, id) in [
        ("uint", "uint64_to_uint64"),
        ("int", "int64_to_uint64"),
        ("double", "double_to_uint64"),
        ("string", "string_to_uint64"),
    ] {
        declare(id, &format!("uint({from}) -> uint"), to_uint);
    }
    for (from, id) in [
        ("double", "double_to_double"),
        ("int", "int64_to_double"),
        ("uint", "uint64_to_double"),
        ("string", "string_to_double"),
    ] {
        declare(id, &format!("double({from}) -> double"), to_double);
    }
    for (from, id) in [
        ("string", "string_to_string"),
        ("bool", "bool_to_string"),
        ("int", "int64_to_string"),
        ("uint", "uint64_to_string"),
        ("double", "double_to_string"),
        ("bytes", "bytes_to_string"),
        ("timestamp", "timestamp_to_string"),
        ("duration", "duration_to_string"),
    ] {
        declare(id, &format!("string({from}) -> string"), to_string);
    }
    declare("bytes_to_bytes", "bytes(bytes) -> bytes", to_bytes);
    declare("string_to_bytes", "bytes(string) -> bytes", to_bytes);
    declare("bool_to_bool", "bool(bool) -> bool", to_bool);
    declare("string_to_bool", "bool(string) -> bool", to_bool);
    declare("timestamp_to_timestamp", "timestamp(timestamp) -> timestamp", to_timestamp);
    declare("string_to_timestamp", "timestamp(string) -> timestamp", to_timestamp);
    declare("int64_to_timestamp", "timestamp(int) -> timestamp", to_timestamp);
    declare("duration_to_duration", "duration(duration) -> duration", to_duration);
    declare("string_to_duration", "duration(string) -> duration", to_duration);
    declare("int64_to_duration", "duration(int) -> duration", to_duration);
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

fn to_int<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Int(match args {
        [Value::Int(value)] => *value,
        [Value::Uint(value)] => match i64::try_from(*value) {
            Ok(value) => value,
            Err(_) => return fail("integer overflow"),
        },
        // The bounds themselves are not exact as doubles and refused.
        [Value::Double(value)] if *value > -(2_f64.powi(63)) && *value < 2_f64.powi(63) => *value as i64,
        [Value::Double(_)] => return fail("integer overflow"),
        [Value::String(text)] => match text.parse() {
            Ok(value) => value,
            Err(_) => {
                return fail(format!("type conversion error from 'string' to 'int': {:?}", shown(text)));
            }
        },
        [Value::Timestamp(at)] => at.as_second() - i64::from(at.subsec_nanosecond() < 0),
        [Value::Duration(nanos)] => *nanos,
        _ => return mismatch(),
    }))
}

fn to_uint<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Uint(match args {
        [Value::Uint(value)] => *value,
        [Value::Int(value)] => match u64::try_from(*value) {
            Ok(value) => value,
            Err(_) => return fail("unsigned integer overflow"),
        },
        [Value::Double(value)] if *value >= 0.0 && *value < 2_f64.powi(64) => *value as u64,
        [Value::Double(_)] => return fail("unsigned integer overflow"),
        [Value::String(text)] => match text.parse() {
            Ok(value) => value,
            Err(_) => {
                return fail(format!("type conversion error from 'string' to 'uint': {:?}", shown(text)));
            }
        },
        _ => return mismatch(),
    }))
}

fn to_double<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Double(match args {
        [Value::Double(value)] => *value,
        [Value::Int(value)] => *value as f64,
        [Value::Uint(value)] => *value as f64,
        [Value::String(text)] => match text.parse() {
            Ok(value) => value,
            Err(_) => {
                return fail(format!("type conversion error from 'string' to 'double': {:?}", shown(text)));
            }
        },
        _ => return mismatch(),
    }))
}

fn to_string<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    Ok(match args {
        [Value::String(_)] => args[0].clone(),
        [Value::Bool(value)] => value.to_string().into(),
        [Value::Int(value)] => value.to_string().into(),
        [Value::Uint(value)] => value.to_string().into(),
        [Value::Double(value)] => number::double(*value).into(),
        [Value::Bytes(bytes)] => match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => return fail("invalid UTF-8 in bytes, cannot convert to string"),
        },
        [Value::Timestamp(at)] => time::format_timestamp(*at).into(),
        [Value::Duration(nanos)] => format!("{}s", number::seconds(*nanos)).into(),
        _ => return mismatch(),
    })
}

fn to_bytes<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bytes(_)] => Ok(args[0].clone()),
        [Value::String(text)] => Ok(Value::Bytes(text.as_bytes().into())),
        _ => mismatch(),
    }
}

fn to_bool<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(*value)),
        [Value::String(text)] => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => fail(format!("type conversion error from 'string' to 'bool': {:?}", shown(text))),
        },
        _ => mismatch(),
    }
}

fn to_timestamp<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let at = match args {
        [Value::Timestamp(at)] => Some(*at),
        [Value::String(text)] => match time::parse_timestamp(text) {
            Some(at) => Some(at),
            None => return fail(format!("invalid timestamp {:?}", shown(text))),
        },
        [Value::Int(seconds)] => jiff::Timestamp::from_second(*seconds).ok(),
        _ => return mismatch(),
    };
    match at.filter(|at| time::in_range(*at)) {
        Some(at) => Ok(Value::Timestamp(at)),
        None => fail("timestamp overflow"),
    }
}

fn to_duration<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Duration(nanos) | Value::Int(nanos)] => Ok(Value::Duration(*nanos)),
        [Value::String(text)] => match time::parse_duration(text) {
            Some(nanos) => Ok(Value::Duration(nanos)),
            None => fail(format!("time: invalid duration {:?}", shown(text))),
        },
        _ => mismatch(),
    }
}
