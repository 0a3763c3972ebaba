//! Regular expressions, compiled once and kept.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use regex::{Regex, RegexBuilder};

use super::{Outcome, mismatch};
use crate::eval::EvalError;
use crate::functions::Declare;
use crate::value::Value;

/// No compiled expression takes more memory.
const SIZE: usize = 1 << 20;
/// No pattern is longer.
const PATTERN: usize = 16 * 1024;
/// How many are kept.
const KEPT: usize = 64;

static CACHE: LazyLock<Mutex<HashMap<String, Regex>>> = LazyLock::new(Mutex::default);

/// A regular expression.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN {
        return Err(format!("Illegal regex: pattern is longer than {PATTERN} bytes"));
    }
    // The map is whole whatever a panicking thread did with it.
    let lock = || CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(regex) = lock().get(pattern) {
        return Ok(regex.clone());
    }
    let regex = RegexBuilder::new(pattern)
        .size_limit(SIZE)
        .dfa_size_limit(SIZE)
        .nest_limit(100)
        .build()
        .map_err(|error| format!("Illegal regex: {error}"))?;
    let mut cache = lock();
    if cache.len() >= KEPT {
        cache.clear();
    }
    cache.insert(pattern.to_owned(), regex.clone());
    Ok(regex)
}

pub(super) fn declare(declare: Declare<'_>) {
    declare("string_find_string", "(string).find(string) -> string", |args| match args {
        [Value::String(text), Value::String(pattern)] => {
            let regex = compile(pattern).map_err(EvalError::failed)?;
            Ok(regex.find(text).map_or("", |found| found.as_str()).into())
        }
        _ => mismatch(),
    });
    declare("string_find_all_string", "(string).findAll(string) -> list(string)", find_all);
    declare("string_find_all_string_int", "(string).findAll(string, int) -> list(string)", find_all);
}

fn find_all<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (text, pattern, limit) = match args {
        [Value::String(text), Value::String(pattern)] => (text, pattern, -1),
        [Value::String(text), Value::String(pattern), Value::Int(limit)] => (text, pattern, *limit),
        _ => return mismatch(),
    };
    let regex = compile(pattern).map_err(EvalError::failed)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(Value::list(regex.find_iter(text).take(limit).map(|found| found.as_str().into()).collect()))
}
