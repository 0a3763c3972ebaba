//! The typed operations under server-side apply: which fields a value has, merging one value into another, comparing
//! two, removing a set of fields, and (in `faults`) checking that a configuration fits its type.
//!
//! Recursion follows the value, whose depth the decoders bound.

mod faults;

pub(super) use faults::faults;

use super::path::PathElement;
use super::set::Set;
use super::types::{Form, Node};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The step to an element of a list. An error says why it has none.
fn element_path(node: Node<'_>, form: &Form<'_>, item: &Value) -> Result<PathElement, String> {
    match form {
        Form::Set => match item {
            Value::Object(_) => {
                Err("associative list without keys has an element that's a map type".to_owned())
            }
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Value::Null => {
                Err("associative list without keys has an element that's an explicit null".to_owned())
            }
            value => Ok(PathElement::value(value)),
        },
        Form::Keyed(keys) => {
            let Value::Object(fields) = item else {
                return Err("associative list with keys may not have non-map elements".to_owned());
            };
            let element = node.element();
            let found: Map<String, Value> = keys
                .iter()
                .filter_map(|key| {
                    let value = fields.get(*key).cloned().or_else(|| element.key_default(key))?;
                    Some(((*key).to_owned(), value))
                })
                .collect();
            if found.is_empty() {
                return Err(format!(
                    "associative list with keys has an element that omits all key fields {keys:?} (and doesn't have \
                     default values for any key fields)"
                ));
            }
            Ok(PathElement::key(&found))
        }
        Form::Leaf | Form::Map => Err("invalid indexing of non-associative list".to_owned()),
    }
}

/// Elements by step. Where a step comes twice (only objects from before a schema change have that), the first stands.
fn indexed<'v>(node: Node<'_>, form: &Form<'_>, list: &'v [Value]) -> Vec<(PathElement, &'v Value)> {
    let mut seen = BTreeSet::new();
    list.iter()
        .filter_map(|item| element_path(node, form, item).ok().map(|element| (element, item)))
        .filter(|(element, _)| seen.insert(element.clone()))
        .collect()
}

/// All fields of a value.
pub(super) fn field_set(node: Node<'_>, value: &Value) -> Set {
    fields_of(node, value).1
}

/// Whether the value is itself a field, and the fields below it.
fn fields_of(node: Node<'_>, value: &Value) -> (bool, Set) {
    let mut set = Set::default();
    let form = node.form(value);
    match (&form, value) {
        (Form::Map, Value::Object(map)) => {
            for (name, value) in map {
                let (inner, named) = node.child(name).unwrap_or((Node::Deduced, true));
                let (leaf, below) = fields_of(inner, value);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                if leaf || empty || !named {
                    set.insert_member(PathElement::field(name));
                }
                set.insert_child(PathElement::field(name), below);
            }
            (false, set)
        }
        (Form::Set | Form::Keyed(_), Value::Array(list)) => {
            for (element, item) in indexed(node, &form, list) {
                let (_, below) = fields_of(node.element(), item);
                set.insert_member(element.clone());
                set.insert_child(element, below);
            }
            (false, set)
        }
        (Form::Map | Form::Set | Form::Keyed(_), Value::Null) => (false, set),
        _ => (true, set),
    }
}

/// The configuration `new` merged over `old`.
pub(super) fn merge(node: Node<'_>, old: &Value, new: &Value) -> Value {
    let form = node.form(new);
    match (&form, old, new) {
        (Form::Map, Value::Object(old), Value::Object(new)) => {
            let mut out = old.clone();
            for (name, value) in new {
                let inner = node.child(name).map_or(Node::Deduced, |(inner, _)| inner);
                let merged =
                    old.get(name).map_or_else(|| value.clone(), |before| merge(inner, before, value));
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        (Form::Set | Form::Keyed(_), Value::Array(old), Value::Array(new)) => {
            Value::Array(merge_lists(node, &form, old, new))
        }
        _ => new.clone(),
    }
}

/// Elements of `new` come in its order; those of `old` alone keep their places around what both share.
fn merge_lists(node: Node<'_>, form: &Form<'_>, old: &[Value], new: &[Value]) -> Vec<Value> {
    let (old, new) = (indexed(node, form, old), indexed(node, form, new));
    let old_values: BTreeMap<&PathElement, &Value> =
        old.iter().map(|(element, item)| (element, *item)).collect();
    let in_new: BTreeSet<&PathElement> = new.iter().map(|(element, _)| element).collect();
    let merged = |at: usize| {
        let (element, item) = &new[at];
        old_values.get(element).map_or_else(|| (*item).clone(), |before| merge(node.element(), before, item))
    };
    let mut shared =
        new.iter().map(|(element, _)| element).filter(|element| old_values.contains_key(element)).peekable();
    let (mut out, mut done) = (Vec::with_capacity(old.len().max(new.len())), BTreeSet::new());
    let (mut at_old, mut at_new) = (0, 0);
    while at_old < old.len() || at_new < new.len() {
        if let Some((element, item)) = old.get(at_old) {
            let next = new.get(at_new).map(|(element, _)| element);
            if !in_new.contains(element) {
                out.push((*item).clone());
                at_old += 1;
                continue;
            }
            // This place in the old list is spent when the element is met on both sides, or was placed already, or
            // has moved in the new order.
            if next == Some(element) {
                at_old += 1;
            } else if next.is_some() && shared.peek().is_some_and(|next| *next != element) {
                at_old += 1;
                continue;
            } else if done.contains(element) {
                at_old += 1;
            }
        }
        if let Some((element, _)) = new.get(at_new) {
            out.push(merged(at_new));
            done.insert(element);
            at_new += 1;
            if shared.peek() == Some(&element) {
                shared.next();
            }
        }
    }
    out
}

/// The value without these fields. `None`: nothing is left.
pub(super) fn remove(node: Node<'_>, value: &Value, gone: &Set) -> Option<Value> {
    let form = node.form(value);
    match (&form, value) {
        (Form::Map, Value::Object(map)) => {
            let mut out = Map::new();
            for (name, value) in map {
                let element = PathElement::field(name);
                if gone.has_member(&element) {
                    continue;
                }
                let kept = match gone.child(&element) {
                    Some(below) => {
                        remove(node.child(name).map_or(Node::Deduced, |(inner, _)| inner), value, below)
                    }
                    None => Some(value.clone()),
                };
                out.extend(kept.map(|value| (name.clone(), value)));
            }
            (!out.is_empty()).then_some(Value::Object(out))
        }
        (Form::Set | Form::Keyed(_), Value::Array(list)) => {
            let mut out = Vec::new();
            for item in list {
                let Ok(element) = element_path(node, &form, item) else {
                    out.push(item.clone());
                    continue;
                };
                if gone.has_member(&element) {
                    continue;
                }
                match gone.child(&element) {
                    Some(below) => out.extend(remove(node.element(), item, below)),
                    None => out.push(item.clone()),
                }
            }
            (!out.is_empty()).then_some(Value::Array(out))
        }
        _ => Some(value.clone()),
    }
}

/// What changed between two values.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) added: Set,
    pub(super) modified: Set,
    pub(super) removed: Set,
}

impl Comparison {
    /// Without these fields and what is below them.
    pub(super) fn without(self, ignored: Option<&Set>) -> Self {
        match ignored {
            None => self,
            Some(ignored) => Self {
                added: self.added.recursive_difference(ignored),
                modified: self.modified.recursive_difference(ignored),
                removed: self.removed.recursive_difference(ignored),
            },
        }
    }
}

/// Compares two objects.
pub(super) fn compare(node: Node<'_>, old: &Value, new: &Value) -> Comparison {
    let mut out = Comparison::default();
    compare_at(node, Some(old), Some(new), &mut Vec::new(), &mut out);
    out
}

fn compare_at(
    node: Node<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<PathElement>,
    out: &mut Comparison,
) {
    let Some(any) = new.or(old) else { return };
    // Most of an object is the same before and after.
    if old == new {
        return;
    }
    let form = node.form(any);
    let is_empty = |value: Option<&Value>| match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    };
    let fits = |value: Option<&Value>| match (&form, value) {
        (_, None | Some(Value::Null)) => true,
        (Form::Map, Some(value)) => value.is_object(),
        (Form::Set | Form::Keyed(_), Some(value)) => value.is_array(),
        (Form::Leaf, _) => false,
    };
    let both_empty = is_empty(old) && is_empty(new);
    if form == Form::Leaf || both_empty || !fits(old) || !fits(new) {
        match (old, new) {
            (None, Some(_)) => out.added.insert(path),
            (Some(_), None) => out.removed.insert(path),
            (old, new) if old != new => out.modified.insert(path),
            _ => {}
        }
        return;
    }
    let mut visit = |element: PathElement, inner: Node<'_>, old: Option<&Value>, new: Option<&Value>| {
        path.push(element);
        compare_at(inner, old, new, path, out);
        path.pop();
    };
    if form == Form::Map {
        let (before, after) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
        let names: BTreeSet<&String> = before.into_iter().chain(after).flat_map(Map::keys).collect();
        for name in names {
            let inner = node.child(name).map_or(Node::Deduced, |(inner, _)| inner);
            let (old, new) = (before.and_then(|map| map.get(name)), after.and_then(|map| map.get(name)));
            visit(PathElement::field(name), inner, old, new);
        }
    } else {
        let before: BTreeMap<PathElement, &Value> = indexed(node, &form, items(old)).into_iter().collect();
        let after: BTreeMap<PathElement, &Value> = indexed(node, &form, items(new)).into_iter().collect();
        let elements: BTreeSet<&PathElement> = before.keys().chain(after.keys()).collect();
        for element in elements {
            let (old, new) = (before.get(element).copied(), after.get(element).copied());
            visit(element.clone(), node.element(), old, new);
        }
    }
    match (old, new) {
        (None, Some(_)) => out.added.insert(path),
        (Some(_), None) => out.removed.insert(path),
        _ => {}
    }
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
