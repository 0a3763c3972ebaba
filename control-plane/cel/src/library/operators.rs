//! Operators, `size`, `dyn`, `type`, and the methods of strings the language itself has.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Outcome, bounded, fail, mismatch, regex};
use crate::eval::{EvalError, add_lists};
use crate::functions::{Body, Declare};
use crate::value::{Key, Value, compare, time};

pub(super) fn declare(declare: Declare<'_>) {
    // The evaluator knows these itself; their signatures are for the checker.
    declare("conditional", "_?_:_(bool, A, A) -> A", never);
    declare("not_strictly_false", "@not_strictly_false(bool) -> bool", never);
    declare("index_list", "_[_](list(A), int) -> A", never);
    declare("index_map", "_[_](map(A, B), A) -> B", never);
    declare("optional_list_index_int", "_[_](optional(list(A)), int) -> optional(A)", never);
    declare("optional_map_index_value", "_[_](optional(map(A, B)), A) -> optional(B)", never);
    declare("list_optindex_optional_int", "_[?_](list(A), int) -> optional(A)", never);
    declare("optional_list_optindex_optional_int", "_[?_](optional(list(A)), int) -> optional(A)", never);
    declare("map_optindex_optional_value", "_[?_](map(A, B), A) -> optional(B)", never);
    declare("optional_map_optindex_optional_value", "_[?_](optional(map(A, B)), A) -> optional(B)", never);
    declare("@mapInsert_map_key_value", "cel.@mapInsert(map(A, B), A, B) -> map(A, B)", never);
    declare("@mapInsert_map_map", "cel.@mapInsert(map(A, B), map(A, B)) -> map(A, B)", never);

    declare("logical_not", "!_(bool) -> bool", not);
    declare("equals", "_==_(A, A) -> bool", |args| Ok(compare::equal(&args[0], &args[1]).into()));
    declare("not_equals", "_!=_(A, A) -> bool", |args| Ok((!compare::equal(&args[0], &args[1])).into()));
    let orders: [(&str, &str, Body); 4] = [
        ("less", "_<_", |args| ordered(args, Ordering::is_lt)),
        ("less_equals", "_<=_", |args| ordered(args, Ordering::is_le)),
        ("greater", "_>_", |args| ordered(args, Ordering::is_gt)),
        ("greater_equals", "_>=_", |args| ordered(args, Ordering::is_ge)),
    ];
    for (id, name, body) in orders {
        for kind in ["bool", "int", "uint", "double", "string", "bytes", "timestamp", "duration"] {
            declare(&format!("{id}_{kind}"), &format!("{name}({kind}, {kind}) -> bool"), body);
        }
        for (a, b) in [
            ("int", "uint"),
            ("int", "double"),
            ("uint", "int"),
            ("uint", "double"),
            ("double", "int"),
            ("double", "uint"),
        ] {
            declare(&format!("{id}_{a}_{b}"), &format!("{name}({a}, {b}) -> bool"), body);
        }
    }
    arithmetic(declare);
    declare("in_list", "@in(A, list(A)) -> bool", is_in);
    declare("in_map", "@in(A, map(A, B)) -> bool", is_in);
    for (kind, name) in [("string", "string"), ("bytes", "bytes"), ("list(A)", "list"), ("map(A, B)", "map")]
    {
        declare(&format!("size_{name}"), &format!("size({kind}) -> int"), size);
        declare(&format!("{name}_size"), &format!("({kind}).size() -> int"), size);
    }
    declare("to_dyn", "dyn(A) -> dyn", |args| Ok(args[0].clone()));
    declare("type", "type(A) -> type(A)", |args| Ok(Value::Type(args[0].type_name().into())));
    declare("contains_string", "(string).contains(string) -> bool", |args| {
        pair(args, |text, part| text.contains(part))
    });
    declare("starts_with_string", "(string).startsWith(string) -> bool", |args| {
        pair(args, |text, part| text.starts_with(part))
    });
    declare("ends_with_string", "(string).endsWith(string) -> bool", |args| {
        pair(args, |text, part| text.ends_with(part))
    });
    declare("matches_string", "(string).matches(string) -> bool", matches);
    declare("matches", "matches(string, string) -> bool", matches);
}

fn arithmetic(declare: Declare<'_>) {
    for kind in ["int", "uint", "double", "string", "bytes", "duration"] {
        declare(&format!("add_{kind}"), &format!("_+_({kind}, {kind}) -> {kind}"), add);
    }
    declare("add_list", "_+_(list(A), list(A)) -> list(A)", add);
    declare("add_timestamp_duration", "_+_(timestamp, duration) -> timestamp", add);
    declare("add_duration_timestamp", "_+_(duration, timestamp) -> timestamp", add);
    for kind in ["int", "uint", "double", "duration"] {
        declare(&format!("subtract_{kind}"), &format!("_-_({kind}, {kind}) -> {kind}"), subtract);
    }
    declare("subtract_timestamp_timestamp", "_-_(timestamp, timestamp) -> duration", subtract);
    declare("subtract_timestamp_duration", "_-_(timestamp, duration) -> timestamp", subtract);
    for kind in ["int", "uint", "double"] {
        declare(&format!("multiply_{kind}"), &format!("_*_({kind}, {kind}) -> {kind}"), multiply);
        declare(&format!("divide_{kind}"), &format!("_/_({kind}, {kind}) -> {kind}"), divide);
    }
    for kind in ["int", "uint"] {
        declare(&format!("modulo_{kind}"), &format!("_%_({kind}, {kind}) -> {kind}"), modulo);
    }
    for kind in ["int", "double"] {
        declare(&format!("negate_{kind}"), &format!("-_({kind}) -> {kind}"), negate);
    }
}

fn never<'a>(_: &[Value<'a>]) -> Outcome<'a> {
    mismatch()
}

fn not<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(!value)),
        _ => mismatch(),
    }
}

fn ordered<'a>(args: &[Value<'a>], wanted: fn(Ordering) -> bool) -> Outcome<'a> {
    let [a, b] = args else { return mismatch() };
    if !compare::comparable(a, b) {
        return mismatch();
    }
    Ok(Value::Bool(compare::order(a, b).is_some_and(wanted)))
}

fn pair<'a>(args: &[Value<'a>], test: fn(&str, &str) -> bool) -> Outcome<'a> {
    match args {
        [Value::String(a), Value::String(b)] => Ok(Value::Bool(test(a, b))),
        _ => mismatch(),
    }
}

fn matches<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text), Value::String(pattern)] => {
            let regex = regex::compile(pattern).map_err(EvalError::failed)?;
            Ok(Value::Bool(regex.is_match(text)))
        }
        _ => mismatch(),
    }
}

fn size<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let size = args.first().map_or(0, Value::size);
    Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
}

fn is_in<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [item, Value::List(list)] => Ok(Value::Bool(list.iter().any(|known| compare::equal(item, &known)))),
        [key, Value::Map(map)] => {
            Ok(Value::Bool(Key::lookup(key).is_some_and(|key| map.get(&key).is_some())))
        }
        _ => mismatch(),
    }
}

fn int<'a>(value: Option<i64>) -> Outcome<'a> {
    value.map(Value::Int).ok_or_else(|| EvalError::failed("integer overflow"))
}

fn uint<'a>(value: Option<u64>) -> Outcome<'a> {
    value.map(Value::Uint).ok_or_else(|| EvalError::failed("unsigned integer overflow"))
}

fn duration<'a>(value: Option<i64>) -> Outcome<'a> {
    value.map(Value::Duration).ok_or_else(|| EvalError::failed("duration overflow"))
}

fn moved<'a>(at: jiff::Timestamp, nanos: Option<i64>) -> Outcome<'a> {
    let moved = nanos.and_then(|nanos| at.checked_add(jiff::SignedDuration::from_nanos(nanos)).ok());
    match moved.filter(|at| time::in_range(*at)) {
        Some(at) => Ok(Value::Timestamp(at)),
        None => fail("timestamp overflow"),
    }
}

fn add<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => int(a.checked_add(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_add(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a + b)),
        [Value::String(a), Value::String(b)] => {
            bounded(a.len() + b.len())?;
            Ok(format!("{}{}", &**a, &**b).into())
        }
        [Value::Bytes(a), Value::Bytes(b)] => {
            bounded(a.len() + b.len())?;
            Ok(Value::Bytes(Arc::from([&**a, &**b].concat())))
        }
        [Value::List(a), Value::List(b)] => {
            bounded((a.len() + b.len()).saturating_mul(8))?;
            Ok(add_lists(a, b))
        }
        [Value::Duration(a), Value::Duration(b)] => duration(a.checked_add(*b)),
        [Value::Timestamp(at), Value::Duration(by)] | [Value::Duration(by), Value::Timestamp(at)] => {
            moved(*at, Some(*by))
        }
        _ => mismatch(),
    }
}

fn subtract<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => int(a.checked_sub(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_sub(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a - b)),
        [Value::Duration(a), Value::Duration(b)] => duration(a.checked_sub(*b)),
        [Value::Timestamp(a), Value::Timestamp(b)] => {
            duration(i64::try_from(a.as_nanosecond() - b.as_nanosecond()).ok())
        }
        [Value::Timestamp(at), Value::Duration(by)] => moved(*at, by.checked_neg()),
        _ => mismatch(),
    }
}

fn multiply<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => int(a.checked_mul(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_mul(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a * b)),
        _ => mismatch(),
    }
}

fn divide<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => fail("division by zero"),
        [Value::Int(a), Value::Int(b)] => int(a.checked_div(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_div(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a / b)),
        _ => mismatch(),
    }
}

fn modulo<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => fail("modulus by zero"),
        [Value::Int(a), Value::Int(b)] => int(a.checked_rem(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_rem(*b)),
        _ => mismatch(),
    }
}

fn negate<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(value)] => int(value.checked_neg()),
        [Value::Double(value)] => Ok(Value::Double(-value)),
        _ => mismatch(),
    }
}
