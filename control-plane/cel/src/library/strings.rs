//! Strings: positions count characters.

use super::{Outcome, bounded, fail, mismatch, printf};
use crate::eval::EvalError;
use crate::functions::Declare;
use crate::value::Value;

pub(super) fn declare(declare: Declare<'_>) {
    declare("string_char_at_int", "(string).charAt(int) -> string", char_at);
    declare("string_index_of_string", "(string).indexOf(string) -> int", index_of);
    declare("string_index_of_string_int", "(string).indexOf(string, int) -> int", index_of);
    declare("string_last_index_of_string", "(string).lastIndexOf(string) -> int", last_index_of);
    declare("string_last_index_of_string_int", "(string).lastIndexOf(string, int) -> int", last_index_of);
    declare("string_lower_ascii", "(string).lowerAscii() -> string", |args| {
        mapped(args, str::to_ascii_lowercase)
    });
    declare("string_upper_ascii", "(string).upperAscii() -> string", |args| {
        mapped(args, str::to_ascii_uppercase)
    });
    declare("string_trim", "(string).trim() -> string", |args| mapped(args, |text| text.trim().to_owned()));
    declare("string_replace_string_string", "(string).replace(string, string) -> string", replace);
    declare("string_replace_string_string_int", "(string).replace(string, string, int) -> string", replace);
    declare("string_split_string", "(string).split(string) -> list(string)", split);
    declare("string_split_string_int", "(string).split(string, int) -> list(string)", split);
    declare("string_substring_int", "(string).substring(int) -> string", substring);
    declare("string_substring_int_int", "(string).substring(int, int) -> string", substring);
    declare("list_join", "(list(string)).join() -> string", join);
    declare("list_join_string", "(list(string)).join(string) -> string", join);
    declare("string_format", "(string).format(list(dyn)) -> string", printf::format);
    declare("strings_quote", "strings.quote(string) -> string", |args| mapped(args, quote));
    declare("string_jsonpatch_escapeKey_string", "jsonpatch.escapeKey(string) -> string", |args| {
        mapped(args, |text| text.replace('~', "~0").replace('/', "~1"))
    });
}

fn mapped<'a>(args: &[Value<'a>], map: fn(&str) -> String) -> Outcome<'a> {
    match args {
        [Value::String(text)] => Ok(map(text).into()),
        _ => mismatch(),
    }
}

fn out_of_range<T>(index: i64) -> Result<T, EvalError> {
    fail(format!("index out of range: {index}"))
}

fn char_at<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text), Value::Int(index)] = args else { return mismatch() };
    let Ok(at) = usize::try_from(*index) else { return out_of_range(*index) };
    match text.chars().nth(at) {
        Some(c) => Ok(c.to_string().into()),
        None if text.chars().count() == at => Ok("".into()),
        None => out_of_range(*index),
    }
}

/// The byte position of a character.
fn byte_at(text: &str, index: usize) -> Option<usize> {
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(index)
}

fn count(text: &str) -> i64 {
    i64::try_from(text.chars().count()).unwrap_or(i64::MAX)
}

fn index_of<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (text, part, offset) = match args {
        [Value::String(text), Value::String(part)] => (text, part, 0),
        [Value::String(text), Value::String(part), Value::Int(offset)] => (text, part, *offset),
        _ => return mismatch(),
    };
    let Ok(from) = usize::try_from(offset) else { return out_of_range(offset) };
    if part.is_empty() {
        return Ok(Value::Int(offset.min(count(text))));
    }
    let found = byte_at(text, from).and_then(|start| {
        let at = text[start..].find(&**part)?;
        Some(count(&text[..start + at]))
    });
    Ok(Value::Int(found.unwrap_or(-1)))
}

fn last_index_of<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (text, part, offset) = match args {
        [Value::String(text), Value::String(part)] => (text, part, None),
        [Value::String(text), Value::String(part), Value::Int(offset)] => (text, part, Some(*offset)),
        _ => return mismatch(),
    };
    let length = count(text);
    if offset.is_some_and(|offset| offset < 0) {
        return out_of_range(offset.unwrap_or_default());
    }
    if part.is_empty() {
        return Ok(Value::Int(offset.map_or(length, |offset| offset.min(length))));
    }
    if offset.is_some_and(|offset| offset >= length) {
        return Ok(Value::Int(-1));
    }
    let last = offset.and_then(|offset| usize::try_from(offset).ok());
    // The part may begin at the offset and end beyond it.
    let end = match last.and_then(|last| byte_at(text, last)) {
        Some(start) => byte_at(&text[start..], part.chars().count()).map_or(text.len(), |more| start + more),
        None => text.len(),
    };
    Ok(Value::Int(text[..end].rfind(&**part).map_or(-1, |at| count(&text[..at]))))
}

fn replace<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (text, from, to, limit) = match args {
        [Value::String(text), Value::String(from), Value::String(to)] => (text, from, to, -1),
        [Value::String(text), Value::String(from), Value::String(to), Value::Int(limit)] => {
            (text, from, to, *limit)
        }
        _ => return mismatch(),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let found = if from.is_empty() { text.chars().count() + 1 } else { text.matches(&**from).count() };
    bounded(text.len().saturating_add(found.min(limit).saturating_mul(to.len())))?;
    Ok(text.replacen(&**from, to, limit).into())
}

fn split<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (text, separator, limit) = match args {
        [Value::String(text), Value::String(separator)] => (text, separator, -1),
        [Value::String(text), Value::String(separator), Value::Int(limit)] => (text, separator, *limit),
        _ => return mismatch(),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let parts: Vec<Value<'a>> = match (limit, separator.is_empty()) {
        (0, _) => Vec::new(),
        (limit, false) => text.splitn(limit, &**separator).map(Value::from).collect(),
        (limit, true) => {
            let mut rest: &str = text;
            let mut parts = Vec::new();
            while let Some(c) = rest.chars().next() {
                if parts.len() + 1 >= limit {
                    parts.push(rest.into());
                    break;
                }
                parts.push(c.to_string().into());
                rest = &rest[c.len_utf8()..];
            }
            parts
        }
    };
    Ok(Value::list(parts))
}

fn substring<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (text, start, end) = match args {
        [Value::String(text), Value::Int(start)] => (text, *start, count(text)),
        [Value::String(text), Value::Int(start), Value::Int(end)] => {
            if start > end {
                return fail(format!("invalid substring range. start: {start}, end: {end}"));
            }
            (text, *start, *end)
        }
        _ => return mismatch(),
    };
    let position = |index: i64| usize::try_from(index).ok().and_then(|index| byte_at(text, index));
    let Some(from) = position(start) else { return out_of_range(start) };
    let Some(to) = position(end) else { return out_of_range(end) };
    Ok(text[from..to].into())
}

fn join<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (list, separator) = match args {
        [Value::List(list)] => (list, ""),
        [Value::List(list), Value::String(separator)] => (list, &**separator),
        _ => return mismatch(),
    };
    let mut out = String::new();
    for (index, item) in list.iter().enumerate() {
        let Value::String(text) = item else { return fail("join: invalid input") };
        if index > 0 {
            out.push_str(separator);
        }
        out.push_str(&text);
        bounded(out.len())?;
    }
    Ok(out.into())
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
