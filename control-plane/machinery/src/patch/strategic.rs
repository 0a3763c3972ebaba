//! Strategic merge: a merge patch whose lists merge by key where the schema says so, steered by directives
//! (`$patch`, `$retainKeys`, `$setElementOrder/x`, `$deleteFromPrimitiveList/x`).

use crate::schema::{Field, Message, Type};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

/// Merges a strategic patch into an object of this message.
pub fn strategic_merge(original: &Value, patch: &Value, message: &'static Message) -> Result<Value> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(Error::bad_request("a strategic merge patch is an object"));
    };
    merge_object(original, patch, Shape::Message(message)).map(Value::Object)
}

/// What the schema knows of a value.
#[derive(Clone, Copy)]
enum Shape {
    Message(&'static Message),
    Map(&'static Type),
    Unknown,
}

impl Shape {
    fn of(ty: &'static Type) -> Self {
        match ty {
            Type::Message(_) => ty.as_message().map_or(Self::Unknown, Self::Message),
            Type::Map(inner) => Self::Map(inner),
            Type::PropsOrArray | Type::PropsOrBool | Type::PropsOrStrings => {
                Self::Message(crate::schema::schema_props())
            }
            _ => Self::Unknown,
        }
    }

    fn field(self, name: &str) -> Option<&'static Field> {
        match self {
            Self::Message(message) => message.field(name),
            Self::Map(_) | Self::Unknown => None,
        }
    }

    fn child(self, name: &str) -> Self {
        match self {
            Self::Message(message) => message.field(name).map_or(Self::Unknown, |field| Self::of(&field.ty)),
            Self::Map(inner) => Self::of(inner),
            Self::Unknown => Self::Unknown,
        }
    }
}

fn bad(what: impl std::fmt::Display) -> Error {
    Error::bad_request(format!("invalid strategic merge patch: {what}"))
}

fn merge_object(
    original: &Map<String, Value>,
    patch: &Map<String, Value>,
    shape: Shape,
) -> Result<Map<String, Value>> {
    match patch.get(PATCH).map(|directive| directive.as_str().unwrap_or_default()) {
        None | Some("merge") => {}
        Some("replace") => return Ok(without_directives(patch)),
        Some("delete") => return Ok(Map::new()),
        Some(other) => return Err(bad(format!("unknown $patch directive {other:?}"))),
    }
    let mut out = original.clone();
    if let Some(retain) = patch.get(RETAIN) {
        retain_keys(&mut out, patch, retain)?;
    }
    let names: BTreeSet<&str> = patch
        .keys()
        .map(|key| key.strip_prefix(ORDER).or_else(|| key.strip_prefix(DELETE)).unwrap_or(key))
        .filter(|name| *name != PATCH && *name != RETAIN)
        .collect();
    for name in names {
        let change = patch.get(name);
        let order = patch.get(&format!("{ORDER}{name}"));
        let delete = patch.get(&format!("{DELETE}{name}"));
        if change == Some(&Value::Null) {
            out.remove(name);
        } else if order.is_some() || delete.is_some() {
            let list = directed_list(out.get(name), change, order, delete, shape.field(name), name)?;
            if let Some(list) = list {
                out.insert(name.to_owned(), Value::Array(list));
            }
        } else if let Some(change) = change {
            let merged = merge_value(out.get(name), change, shape.field(name), shape.child(name))?;
            out.insert(name.to_owned(), merged);
        }
    }
    Ok(out)
}

fn retain_keys(out: &mut Map<String, Value>, patch: &Map<String, Value>, retain: &Value) -> Result<()> {
    let keys: Option<BTreeSet<&str>> =
        retain.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
    let keys = keys.ok_or_else(|| bad("$retainKeys is a list of strings"))?;
    let stray = patch
        .iter()
        .find(|(key, value)| !key.starts_with('$') && !value.is_null() && !keys.contains(key.as_str()));
    if let Some((key, _)) = stray {
        return Err(bad(format!("{key:?} is set but is not in $retainKeys")));
    }
    out.retain(|key, _| keys.contains(key.as_str()));
    Ok(())
}

fn merge_value(
    old: Option<&Value>,
    change: &Value,
    field: Option<&'static Field>,
    shape: Shape,
) -> Result<Value> {
    let strategy = field.map(|field| field.patch).unwrap_or_default();
    match (old, change) {
        (Some(Value::Object(old)), Value::Object(change)) if !strategy.replace => {
            merge_object(old, change, shape).map(Value::Object)
        }
        // Nothing to merge into: the directives still mean something inside.
        (_, Value::Object(change)) => {
            Ok(Value::Object(merge_object(&Map::new(), &without_nulls(change), shape)?))
        }
        (old, Value::Array(change)) if strategy.merge => {
            let old = old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            merge_list(old, change, field).map(Value::Array)
        }
        (_, other) => Ok(strip(other)),
    }
}

/// A list with `$setElementOrder` or `$deleteFromPrimitiveList`. None: there is no list to steer.
fn directed_list(
    old: Option<&Value>,
    change: Option<&Value>,
    order: Option<&Value>,
    delete: Option<&Value>,
    field: Option<&'static Field>,
    name: &str,
) -> Result<Option<Vec<Value>>> {
    let as_list = |value: Option<&Value>, what: &str| -> Result<Vec<Value>> {
        match value {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list.clone()),
            Some(_) => Err(bad(format!("{what}{name} is not a list"))),
        }
    };
    if old.is_none() && change.is_none() {
        return Ok(None);
    }
    let original = old.and_then(Value::as_array).cloned().unwrap_or_default();
    let delete = as_list(delete, DELETE)?;
    let change = as_list(change, "")?;
    let deleted: HashSet<String> = delete.iter().map(|item| identity(item, None)).collect();
    let kept: Vec<Value> =
        original.iter().filter(|item| !deleted.contains(&identity(item, None))).cloned().collect();
    let key = field.and_then(|field| field.patch.merge_key);
    let merged = merge_unordered(&kept, &change, field)?;
    let Some(order) = order else {
        return Ok(Some(arrange(merged, &change, &original, key)));
    };
    let order = as_list(Some(order), ORDER)?;
    if let Some(key) = key.filter(|key| order.iter().any(|item| item.get(key).is_none())) {
        return Err(bad(format!("an element of {ORDER}{name} has no {key:?}")));
    }
    let ordered: HashMap<String, usize> =
        order.iter().enumerate().map(|(at, item)| (identity(item, key), at)).collect();
    let at = |item: &Value| ordered.get(&identity(item, key)).copied();
    let places: Vec<Option<usize>> = change
        .iter()
        .filter(|item| !is_directive(item, "delete") && !is_directive(item, "replace"))
        .map(at)
        .collect();
    if places.iter().any(Option::is_none) || !places.is_sorted() {
        return Err(bad(format!(
            "The order in patch list:\n{}\n doesn't match {ORDER} list:\n{}\n",
            Value::Array(change),
            Value::Array(order)
        )));
    }
    Ok(Some(arrange(merged, &order, &original, key)))
}

fn merge_list(old: &[Value], change: &[Value], field: Option<&'static Field>) -> Result<Vec<Value>> {
    let merged = merge_unordered(old, change, field)?;
    if change.iter().any(|item| is_directive(item, "replace")) {
        return Ok(merged);
    }
    Ok(arrange(merged, change, old, field.and_then(|field| field.patch.merge_key)))
}

fn is_directive(item: &Value, wanted: &str) -> bool {
    item.get(PATCH).and_then(Value::as_str) == Some(wanted)
}

/// Merges without caring for the order of the result.
fn merge_unordered(old: &[Value], change: &[Value], field: Option<&'static Field>) -> Result<Vec<Value>> {
    if change.is_empty() {
        return Ok(old.to_vec());
    }
    if !change.iter().any(Value::is_object) {
        let mut out = old.to_vec();
        let mut known: HashSet<String> = old.iter().map(|item| identity(item, None)).collect();
        out.extend(change.iter().filter(|item| known.insert(identity(item, None))).cloned());
        return Ok(out);
    }
    let key = field
        .and_then(|field| field.patch.merge_key)
        .ok_or_else(|| bad("cannot merge lists without merge key"))?;
    let shape = field.map_or(Shape::Unknown, |field| match &field.ty {
        Type::List(inner) => Shape::of(inner),
        _ => Shape::Unknown,
    });
    let plain: Vec<&Value> = change.iter().filter(|item| item.get(PATCH).is_none()).collect();
    let mut deleted = HashSet::new();
    for item in change {
        match item.get(PATCH).map(|directive| directive.as_str().unwrap_or_default()) {
            None => {}
            Some("replace") => return Ok(plain.into_iter().map(strip).collect()),
            Some("delete") => {
                if item.get(key).is_none() {
                    return Err(bad(format!("a delete directive without {key:?}")));
                }
                deleted.insert(identity(item, Some(key)));
            }
            Some("merge") => {}
            Some(other) => return Err(bad(format!("unknown $patch directive {other:?}"))),
        }
    }
    let mut out = old.to_vec();
    out.retain(|item| !item.is_object() || !deleted.contains(&identity(item, Some(key))));
    // Places by identity: a search per element would take quadratic time.
    let mut places: HashMap<String, usize> =
        out.iter().enumerate().map(|(at, item)| (identity(item, Some(key)), at)).collect();
    for item in change.iter().filter(|item| !is_directive(item, "delete")) {
        let Value::Object(fields) = item else { return Err(bad("a list mixes objects with other values")) };
        if fields.get(key).is_none_or(Value::is_null) {
            return Err(bad(format!("map: {item} does not contain declared merge key: {key}")));
        }
        match places.entry(identity(item, Some(key))) {
            Entry::Occupied(place) => {
                let slot = &mut out[*place.get()];
                let old = slot.as_object().cloned().unwrap_or_default();
                *slot = Value::Object(merge_object(&old, fields, shape)?);
            }
            Entry::Vacant(place) => {
                place.insert(out.len());
                out.push(Value::Object(merge_object(&Map::new(), &without_nulls(fields), shape)?));
            }
        }
    }
    Ok(out)
}

/// What makes two elements the same: the merge key, or all of a scalar.
fn identity(item: &Value, key: Option<&str>) -> String {
    match key {
        Some(key) if item.is_object() => item.get(key).unwrap_or(&Value::Null).to_string(),
        _ => item.to_string(),
    }
}

/// Orders a merged list: what the patch names goes in the patch's order; what only the server has keeps its order
/// among itself, and its place relative to those named elements that the server had too.
fn arrange(merged: Vec<Value>, order: &[Value], server: &[Value], key: Option<&str>) -> Vec<Value> {
    let places = |list: &[Value]| -> HashMap<String, usize> {
        list.iter().enumerate().rev().map(|(at, item)| (identity(item, key), at)).collect()
    };
    let (in_order, on_server) = (places(order), places(server));
    let place = |places: &HashMap<String, usize>, item: &Value| places.get(&identity(item, key)).copied();
    let (mut named, alone): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(&in_order, item).is_some());
    named.sort_by_cached_key(|item| place(&in_order, item));
    let mut out = Vec::with_capacity(named.len() + alone.len());
    let (mut named, mut alone) = (named.into_iter().peekable(), alone.into_iter().peekable());
    loop {
        let server_first = match (alone.peek(), named.peek()) {
            (None, None) => return out,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(a), Some(b)) => {
                matches!((place(&on_server, a), place(&on_server, b)), (Some(a), Some(b)) if a < b)
            }
        };
        out.extend(if server_first { alone.next() } else { named.next() });
    }
}

fn without_nulls(patch: &Map<String, Value>) -> Map<String, Value> {
    patch
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    patch
        .iter()
        .filter(|(key, value)| {
            !value.is_null()
                && key.as_str() != PATCH
                && key.as_str() != RETAIN
                && !key.starts_with(ORDER)
                && !key.starts_with(DELETE)
        })
        .map(|(key, value)| (key.clone(), strip(value)))
        .collect()
}

/// A value of the patch as it enters the object: no directives, no nulls.
fn strip(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(without_directives(map)),
        Value::Array(list) => {
            Value::Array(list.iter().filter(|item| item.get(PATCH).is_none()).map(strip).collect())
        }
        other => other.clone(),
    }
}
