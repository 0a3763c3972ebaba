//! Pruning: fields that the schema does not know go, and are told of when somebody asks.

use serde_json::{Map, Value};

use super::schema::{Additional, Schema};

/// Unknown fields beyond this many are not told of.
const MOST: usize = 100;

/// Fields every resource has, and keeps.
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Where the walk is and what it found.
#[derive(Default)]
struct Found {
    path: Vec<String>,
    unknown: Vec<String>,
}

impl Found {
    fn unknown(&mut self, name: &str) {
        if self.unknown.len() < MOST {
            let mut text = self.text();
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(name);
            self.unknown.push(text);
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            if !text.is_empty() && !step.starts_with('[') {
                text.push('.');
            }
            text.push_str(step);
        }
        text
    }

    fn at(&mut self, step: String, work: impl FnOnce(&mut Self)) {
        self.path.push(step);
        work(self);
        self.path.pop();
    }
}

/// Removes from a whole resource what its schema does not know; the paths of what went, sorted.
pub(crate) fn prune(object: &mut Value, schema: &Schema) -> Vec<String> {
    let mut found = Found::default();
    let Value::Object(map) = object else { return Vec::new() };
    if schema.preserve_unknown {
        skip_map(map, schema, true, &mut found);
    } else {
        prune_map(map, schema, true, &mut found);
    }
    found.unknown.sort();
    found.unknown
}

/// Removes from a value inside of a resource what its schema does not know.
pub(crate) fn prune_value(value: &mut Value, schema: &Schema) -> Vec<String> {
    let mut found = Found::default();
    walk(value, Some(schema), &mut found);
    found.unknown.sort();
    found.unknown
}

fn walk(value: &mut Value, schema: Option<&Schema>, found: &mut Found) {
    if let Some(schema) = schema.filter(|schema| schema.preserve_unknown) {
        return skip(value, schema, found);
    }
    match (value, schema) {
        (Value::Object(map), Some(schema)) => prune_map(map, schema, schema.embedded, found),
        (Value::Object(map), None) => {
            for name in map.keys() {
                found.unknown(name);
            }
            map.clear();
        }
        (Value::Array(items), schema) => {
            let schema = schema.and_then(|schema| schema.items.as_deref());
            for (index, item) in items.iter_mut().enumerate() {
                found.at(format!("[{index}]"), |found| walk(item, schema, found));
            }
        }
        _ => {}
    }
}

fn prune_map(map: &mut Map<String, Value>, schema: &Schema, resource: bool, found: &mut Found) {
    let top = found.path.is_empty();
    map.retain(|name, value| {
        if resource && META.contains(&name.as_str()) {
            return true;
        }
        let inner = match (schema.properties.get(name), &schema.additional) {
            (Some(inner), _) => Some(inner),
            (None, Additional::Of(inner)) => Some(&**inner),
            // What lies below a bare `true` has no schema: maps there are emptied.
            (None, Additional::Any(_)) => None,
            (None, Additional::None) => {
                if !(top && META.contains(&name.as_str())) {
                    found.unknown(name);
                }
                return false;
            }
        };
        found.at(name.clone(), |found| walk(value, inner, found));
        true
    });
}

/// Keeps what the schema does not know, but looks into what it does.
fn skip(value: &mut Value, schema: &Schema, found: &mut Found) {
    match value {
        Value::Object(map) => skip_map(map, schema, schema.embedded, found),
        Value::Array(items) => {
            let Some(schema) = schema.items.as_deref() else { return };
            for (index, item) in items.iter_mut().enumerate() {
                found.at(format!("[{index}]"), |found| skip(item, schema, found));
            }
        }
        _ => {}
    }
}

fn skip_map(map: &mut Map<String, Value>, schema: &Schema, resource: bool, found: &mut Found) {
    for (name, value) in map {
        if resource && META.contains(&name.as_str()) {
            continue;
        }
        let inner = match (schema.properties.get(name), &schema.additional) {
            (Some(inner), _) => Some(inner),
            (None, Additional::Of(inner)) => Some(&**inner),
            (None, Additional::Any(_)) => None,
            (None, Additional::None) => continue,
        };
        found.at(name.clone(), |found| walk(value, inner, found));
    }
}
