//! Semantic versions.

use std::sync::Arc;

use semver::Version;

use super::{Outcome, fail, mismatch};
use crate::functions::{Body, Declare};
use crate::value::{Library, Value};

pub(super) fn declare(declare: Declare<'_>) {
    for (id, args) in [("string_to_semver", "string"), ("string_bool_to_semver", "string, bool")] {
        declare(id, &format!("semver({args}) -> kubernetes.Semver"), |args| match parse(args) {
            Some(Ok(version)) => Ok(Value::Library(Library::Semver(Arc::new(version)))),
            Some(Err(why)) => fail(why),
            None => mismatch(),
        });
    }
    for (id, args) in [("is_semver_string", "string"), ("is_semver_string_bool", "string, bool")] {
        declare(id, &format!("isSemver({args}) -> bool"), |args| match parse(args) {
            Some(outcome) => Ok(Value::Bool(outcome.is_ok())),
            None => mismatch(),
        });
    }
    let parts: [(&str, Body); 3] = [
        ("major", |args| part(args, |version| version.major)),
        ("minor", |args| part(args, |version| version.minor)),
        ("patch", |args| part(args, |version| version.patch)),
    ];
    for (name, body) in parts {
        declare(&format!("semver_{name}"), &format!("(kubernetes.Semver).{name}() -> int"), body);
    }
    let both = "(kubernetes.Semver)";
    declare("semver_is_greater_than", &format!("{both}.isGreaterThan(kubernetes.Semver) -> bool"), |args| {
        compare(args, |order| Value::Bool(order.is_gt()))
    });
    declare("semver_is_less_than", &format!("{both}.isLessThan(kubernetes.Semver) -> bool"), |args| {
        compare(args, |order| Value::Bool(order.is_lt()))
    });
    declare("semver_compare_to", &format!("{both}.compareTo(kubernetes.Semver) -> int"), |args| {
        compare(args, |order| Value::Int(order as i64))
    });
}

fn part<'a>(args: &[Value<'a>], of: fn(&Version) -> u64) -> Outcome<'a> {
    match args {
        [Value::Library(Library::Semver(version))] => {
            Ok(Value::Int(i64::try_from(of(version)).unwrap_or(i64::MAX)))
        }
        _ => mismatch(),
    }
}

fn compare<'a>(args: &[Value<'a>], answer: fn(std::cmp::Ordering) -> Value<'static>) -> Outcome<'a> {
    match args {
        // What is behind a plus does not count.
        [Value::Library(Library::Semver(a)), Value::Library(Library::Semver(b))] => {
            Ok(answer(a.cmp_precedence(b)))
        }
        _ => mismatch(),
    }
}

/// `None`: not the arguments this takes.
fn parse(args: &[Value<'_>]) -> Option<Result<Version, String>> {
    let (text, lenient) = match args {
        [Value::String(text)] => (text, false),
        [Value::String(text), Value::Bool(lenient)] => (text, *lenient),
        _ => return None,
    };
    if text.len() > 256 {
        return Some(Err("version is longer than 256 bytes".to_owned()));
    }
    let text = match lenient {
        true => match normalize(text) {
            Ok(text) => text,
            Err(why) => return Some(Err(why.to_owned())),
        },
        false => text.to_string(),
    };
    Some(Version::parse(&text).map_err(|error| format!("Invalid Semantic Version: {error}")))
}

/// `v1.02` to `1.2.0`.
fn normalize(text: &str) -> Result<String, &'static str> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text.splitn(3, '.').map(str::to_owned).collect();
    for part in &mut parts {
        if part.len() > 1 {
            let trimmed = part.trim_start_matches('0');
            let zero = if trimmed.starts_with(|c: char| c.is_ascii_digit()) { "" } else { "0" };
            *part = format!("{zero}{trimmed}");
        }
    }
    if parts.len() < 3 && parts.last().is_some_and(|part| part.contains(['+', '-'])) {
        return Err("short version cannot contain PreRelease/Build meta data");
    }
    parts.resize(3, "0".to_owned());
    Ok(parts.join("."))
}
