//! Lists that are sets or maps hold nothing twice.

use std::collections::HashMap;

use serde_json::{Map, Value};
use skep_api::field::{Error, ErrorList, Path};

use super::schema::{ListType, Schema};

/// Duplicates anywhere in a resource.
pub(crate) fn validate(object: &Value, schema: &Schema) -> ErrorList {
    let mut errors = ErrorList::new();
    walk(object, schema, &Path::root(), &mut errors);
    errors
}

fn walk(value: &Value, schema: &Schema, path: &Path, errors: &mut ErrorList) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if let Some(inner) = schema.properties.get(name) {
                    walk(value, inner, &path.child(name), errors);
                } else if let Some(inner) = schema.of_additional() {
                    walk(value, inner, &path.key(name), errors);
                }
            }
        }
        Value::Array(items) => {
            match &schema.list_type {
                ListType::Atomic => {}
                ListType::Set => set(items, path, errors),
                ListType::Map(keys) => keyed(items, keys, path, errors),
            }
            if let Some(inner) = schema.items.as_deref() {
                for (index, item) in items.iter().enumerate() {
                    walk(item, inner, &path.index(index), errors);
                }
            }
        }
        _ => {}
    }
}

/// The second place of everything that is there more than once.
fn repeated(items: impl Iterator<Item = String>) -> Vec<usize> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut places = Vec::new();
    for (index, item) in items.enumerate() {
        let times = seen.entry(item).or_default();
        *times += 1;
        if *times == 2 {
            places.push(index);
        }
    }
    places
}

fn set(items: &[Value], path: &Path, errors: &mut ErrorList) {
    for index in repeated(items.iter().map(Value::to_string)) {
        errors.push(Error::duplicate(&path.index(index), items[index].clone()));
    }
}

fn keyed(items: &[Value], keys: &[String], path: &Path, errors: &mut ErrorList) {
    if let Some((index, item)) =
        items.iter().enumerate().find(|(_, item)| !(item.is_object() || item.is_null()))
    {
        let detail = "must be an object for an array of list-type map";
        return errors.push(Error::invalid(&path.index(index), item.clone(), detail));
    }
    let key_of = |item: &Value| -> Map<String, Value> {
        keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect()
    };
    let found: Vec<Value> = items.iter().map(|item| Value::Object(key_of(item))).collect();
    for index in repeated(found.iter().map(Value::to_string)) {
        errors.push(Error::duplicate(&path.index(index), found[index].clone()));
    }
}
