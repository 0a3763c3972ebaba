//! Defaulting by schema: absent fields get their default, nulls that mean nothing go.

use serde_json::Value;

use super::schema::Schema;

/// Fills in a whole resource. Idempotent.
pub(crate) fn apply(value: &mut Value, schema: &Schema) {
    drop_nulls(value, Some(schema));
    fill(value, Some(schema));
}

fn is_null(value: &Value, schema: Option<&Schema>) -> bool {
    value.is_null() && schema.is_some_and(|schema| !schema.nullable)
}

/// Removes nulls where the schema allows none and has no default to put in their place.
fn drop_nulls(value: &mut Value, schema: Option<&Schema>) {
    match value {
        Value::Object(map) => map.retain(|name, value| {
            let inner = schema.and_then(|schema| schema.field(name));
            if is_null(value, inner) && inner.is_some_and(|inner| inner.default.is_none()) {
                return false;
            }
            drop_nulls(value, inner);
            true
        }),
        Value::Array(items) => {
            let inner = schema.and_then(|schema| schema.items.as_deref());
            for item in items {
                drop_nulls(item, inner);
            }
        }
        _ => {}
    }
}

fn fill(value: &mut Value, schema: Option<&Schema>) {
    let Some(schema) = schema else { return };
    match value {
        Value::Object(map) => {
            for (name, inner) in &schema.properties {
                let Some(default) = &inner.default else { continue };
                if map.get(name).is_none_or(|value| is_null(value, Some(inner))) {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in map {
                let declared = schema.properties.get(name);
                let inner = declared.or_else(|| schema.of_additional());
                if declared.is_none() && is_null(value, inner) {
                    *value = default_of(inner);
                }
                fill(value, inner);
            }
        }
        Value::Array(items) => {
            let inner = schema.items.as_deref();
            for item in items {
                if is_null(item, inner) {
                    *item = default_of(inner);
                }
                fill(item, inner);
            }
        }
        _ => {}
    }
}

fn default_of(schema: Option<&Schema>) -> Value {
    schema.and_then(|schema| schema.default.clone()).unwrap_or(Value::Null)
}
