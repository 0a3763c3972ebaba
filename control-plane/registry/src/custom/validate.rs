//! Values against their schema, in the words of the original's OpenAPI validator.
//!
//! On an update what did not change is not complained about (ratcheting): the errors of a value that
//! equals the old one are dropped, level by level. Elements of a list that is a map are compared with
//! the old element of the same keys; other elements with nothing.

use serde_json::{Map, Value};
use skep_api::field::{Error, ErrorList, Path};

use super::formats;
use super::schema::{Additional, ListType, Schema, Type};

/// Errors beyond this many are not collected.
const MOST: usize = 200;

/// Every error of a value at `root`. `old`: what was there before, when it is an update.
pub(crate) fn validate(value: &Value, old: Option<&Value>, schema: &Schema, root: &Path) -> ErrorList {
    let found = node(value, old, schema, "");
    let mut errors = ErrorList::new();
    for error in found.errors.into_iter().take(MOST) {
        errors.push(error.at(root));
    }
    errors
}

/// An error before it has its full path.
enum Fault {
    /// At a field.
    At(String, Kind),
    /// Of a junctor: told without a field.
    Bare(String),
}

enum Kind {
    Required,
    Allowed(Value, Vec<String>),
    TooLong(u64),
    TooMany(usize, u64),
    WrongType(Value, String),
    Invalid(Value, String),
}

impl Fault {
    fn at(self, root: &Path) -> Error {
        match self {
            // The original has no path here and prints none.
            Self::Bare(text) if root.as_str().is_empty() => Error::invalid(&Path::new("<nil>"), "", text),
            Self::Bare(text) => Error::invalid(root, "", text),
            Self::At(path, kind) => {
                let path = match path.as_str() {
                    "" if root.as_str().is_empty() => Path::new("<nil>"),
                    "" => root.clone(),
                    path => root.child(path),
                };
                match kind {
                    Kind::Required => Error::required(&path, ""),
                    Kind::Allowed(value, allowed) => {
                        let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
                        Error::not_supported(&path, value, &allowed)
                    }
                    Kind::TooLong(most) => {
                        Error::too_long(&path, usize::try_from(most).unwrap_or(usize::MAX))
                    }
                    Kind::TooMany(actual, most) => {
                        Error::too_many(&path, actual, usize::try_from(most).unwrap_or(usize::MAX))
                    }
                    Kind::WrongType(value, text) => Error::type_invalid(&path, value, text),
                    Kind::Invalid(value, text) => Error::invalid(&path, value, text),
                }
            }
        }
    }
}

/// What one node found, and how much of it applied: of alternatives that all fail, the one that applied
/// most is told of.
#[derive(Default)]
struct Found {
    errors: Vec<Fault>,
    matched: usize,
}

impl Found {
    fn add(&mut self, path: &str, kind: Kind) {
        self.errors.push(Fault::At(path.to_owned(), kind));
    }

    fn merge(&mut self, other: Self) {
        self.errors.extend(other.errors);
        self.matched += other.matched;
    }
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn node(value: &Value, old: Option<&Value>, schema: &Schema, path: &str) -> Found {
    let mut found = Found { errors: Vec::new(), matched: 1 };
    check_type(value, schema, path, &mut found);
    if value.is_null() {
        check_allowed(value, schema, path, &mut found);
    } else {
        junctors(value, old, schema, path, &mut found);
        match value {
            Value::String(text) => check_text(text, schema, path, &mut found),
            Value::Number(number) => check_number(number, schema, path, &mut found),
            Value::Array(items) => check_items(items, old, schema, path, &mut found),
            _ => {}
        }
        check_allowed(value, schema, path, &mut found);
        if let Value::Object(map) = value {
            check_map(map, old, schema, path, &mut found);
        }
    }
    if !found.errors.is_empty() && old == Some(value) {
        found.errors.clear();
    }
    found
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => {
            // A number without a fraction is an integer, however it was written.
            if number.as_f64().is_some_and(|n| n.fract() == 0.0) { "integer" } else { "number" }
        }
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check_type(value: &Value, schema: &Schema, path: &str, found: &mut Found) {
    let actual = type_name(value);
    let wanted = match schema.ty {
        _ if schema.int_or_string => "integer,string",
        Some(ty) => ty.as_str(),
        None => return,
    };
    let fits = match (actual, schema.ty) {
        ("null", _) => schema.nullable,
        ("integer" | "string", _) if schema.int_or_string => true,
        ("integer", Some(Type::Number)) => true,
        _ => actual == wanted,
    };
    found.matched += 1;
    if !fits {
        let text = format!("{path} in body must be of type {wanted}: \"{actual}\"");
        found.add(path, Kind::WrongType(actual.into(), text));
    }
}

fn check_allowed(value: &Value, schema: &Schema, path: &str, found: &mut Found) {
    let Some(allowed) = &schema.limits.allowed else { return };
    found.matched += 1;
    let same = |other: &Value| match (value, other) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => value == other,
    };
    if !allowed.iter().any(same) {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        found.add(path, Kind::Allowed(value.clone(), allowed.iter().map(text).collect()));
    }
}

fn check_text(text: &str, schema: &Schema, path: &str, found: &mut Found) {
    let limits = &schema.limits;
    let invalid = |text: String, value: &str| Kind::Invalid(value.into(), text);
    let length = text.chars().count() as u64;
    if let Some(most) = limits.max_length.filter(|most| length > *most) {
        found.add(path, Kind::TooLong(most));
    }
    if let Some(least) = limits.min_length.filter(|least| length < *least) {
        found.add(path, invalid(format!("{path} in body should be at least {least} chars long"), text));
    }
    if let Some((pattern, regex)) = &limits.pattern {
        found.matched += 1;
        if !regex.is_match(text) {
            found.add(path, invalid(format!("{path} in body should match '{pattern}'"), text));
        }
    }
    if !limits.format.is_empty() && !formats::matches(&limits.format, text) {
        let format = &limits.format;
        let detail = format!("{path} in body must be of type {format}: {text:?}");
        found.add(path, Kind::WrongType(text.into(), detail));
    }
}

fn check_number(number: &serde_json::Number, schema: &Schema, path: &str, found: &mut Found) {
    let limits = &schema.limits;
    let Some(n) = number.as_f64() else { return };
    let mut invalid = |text: String| found.add(path, Kind::Invalid(Value::Number(number.clone()), text));
    if let Some(factor) = limits.multiple_of {
        let quotient = n / factor;
        if factor <= 0.0 || (quotient - quotient.round()).abs() > 1e-9 {
            invalid(format!("{path} in body should be a multiple of {}", go_float(factor)));
        }
    }
    match limits.maximum {
        Some((most, true)) if n >= most => {
            invalid(format!("{path} in body should be less than {}", go_float(most)));
        }
        Some((most, false)) if n > most => {
            invalid(format!("{path} in body should be less than or equal to {}", go_float(most)));
        }
        _ => {}
    }
    match limits.minimum {
        Some((least, true)) if n <= least => {
            invalid(format!("{path} in body should be greater than {}", go_float(least)));
        }
        Some((least, false)) if n < least => {
            invalid(format!("{path} in body should be greater than or equal to {}", go_float(least)));
        }
        _ => {}
    }
}

fn check_items(items: &[Value], old: Option<&Value>, schema: &Schema, path: &str, found: &mut Found) {
    if let Some(inner) = schema.items.as_deref() {
        for (index, item) in items.iter().enumerate() {
            let before = old_item(item, old, schema);
            found.merge(node(item, before, inner, &format!("{path}[{index}]")));
        }
    }
    let limits = &schema.limits;
    let count = items.len() as u64;
    if let Some(least) = limits.min_items.filter(|least| count < *least) {
        let text = format!("{path} in body should have at least {least} items");
        found.add(path, Kind::Invalid(count.into(), text));
    }
    if let Some(most) = limits.max_items.filter(|most| count > *most) {
        found.add(path, Kind::TooMany(items.len(), most));
    }
}

/// The element of the old list with the same keys.
fn old_item<'v>(item: &Value, old: Option<&'v Value>, schema: &Schema) -> Option<&'v Value> {
    let ListType::Map(keys) = &schema.list_type else { return None };
    let same = |other: &&Value| keys.iter().all(|key| other.get(key) == item.get(key));
    old?.as_array()?.iter().find(same)
}

fn check_map(map: &Map<String, Value>, old: Option<&Value>, schema: &Schema, path: &str, found: &mut Found) {
    let limits = &schema.limits;
    let count = map.len() as u64;
    if let Some(least) = limits.min_properties.filter(|least| count < *least) {
        let text = format!("{path} in body should have at least {least} properties");
        return found.add(path, Kind::Invalid(count.into(), text));
    }
    if let Some(most) = limits.max_properties.filter(|most| count > *most) {
        return found.add(path, Kind::TooMany(map.len(), most));
    }
    for (name, value) in map {
        let before = old.and_then(|old| old.get(name));
        if let Some(inner) = schema.properties.get(name) {
            found.merge(node(value, before, inner, &child(path, name)));
            continue;
        }
        match &schema.additional {
            Additional::Of(inner) => found.merge(node(value, before, inner, &child(path, name))),
            Additional::Any(false) => {
                let text = format!("{path}.{name} in body is a forbidden property");
                found.add(&child(path, name), Kind::Invalid("".into(), text));
            }
            Additional::Any(true) | Additional::None => {}
        }
    }
    for name in &limits.required {
        if !map.contains_key(name) {
            found.add(&child(path, name), Kind::Required);
        }
    }
}

fn junctors(value: &Value, old: Option<&Value>, schema: &Schema, path: &str, found: &mut Found) {
    let bare = |found: &mut Found, text: String| found.errors.push(Fault::Bare(text));
    if !schema.any_of.is_empty() {
        let tried: Vec<Found> = schema.any_of.iter().map(|inner| node(value, old, inner, path)).collect();
        if !tried.iter().any(|tried| tried.errors.is_empty()) {
            bare(found, format!("\"{path}\" must validate at least one schema (anyOf)"));
            merge_best(found, tried);
        }
    }
    if !schema.one_of.is_empty() {
        let tried: Vec<Found> = schema.one_of.iter().map(|inner| node(value, old, inner, path)).collect();
        let valid = tried.iter().filter(|tried| tried.errors.is_empty()).count();
        if valid != 1 {
            let why = if valid == 0 {
                "Found none valid".to_owned()
            } else {
                format!("Found {valid} valid alternatives")
            };
            bare(found, format!("\"{path}\" must validate one and only one schema (oneOf). {why}"));
            if valid == 0 {
                merge_best(found, tried);
            }
        }
    }
    if !schema.all_of.is_empty() {
        let mut valid = 0;
        for inner in &schema.all_of {
            let tried = node(value, old, inner, path);
            valid += usize::from(tried.errors.is_empty());
            found.merge(tried);
        }
        if valid != schema.all_of.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            bare(found, format!("\"{path}\" must validate all the schemas (allOf){none}"));
        }
    }
    if let Some(inner) = &schema.not
        && node(value, None, inner, path).errors.is_empty()
    {
        bare(found, format!("\"{path}\" must not validate the schema (not)"));
    }
}

/// Tells of the alternative that came nearest.
fn merge_best(found: &mut Found, tried: Vec<Found>) {
    let mut best: Option<Found> = None;
    for candidate in tried {
        if best.as_ref().is_none_or(|best| candidate.matched > best.matched) {
            best = Some(candidate);
        }
    }
    if let Some(best) = best {
        found.merge(best);
    }
}

/// A float as Go prints it with `%v`.
pub(crate) fn go_float(n: f64) -> String {
    if n == 0.0 {
        return "0".to_owned();
    }
    let exponent = n.abs().log10().floor();
    if (-4.0..21.0).contains(&exponent) {
        return n.to_string();
    }
    let text = format!("{n:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}
