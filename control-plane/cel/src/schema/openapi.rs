//! A schema from the `components.schemas` of an OpenAPI v3 document, references followed.

use serde_json::{Map, Value, json};

use super::{Options, Schema};

const PREFIX: &str = "#/components/schemas/";

impl Schema {
    /// The schema of a kind in a document's schemas; `None` when there is none or expressions cannot see it.
    /// What no type is given for (quantities, say) is of any type.
    pub fn from_openapi(
        schemas: &Map<String, Value>,
        group: &str,
        version: &str,
        kind: &str,
    ) -> Option<Self> {
        let gvk = json!({"group": group, "version": version, "kind": kind});
        let named = |schema: &&Value| {
            let kinds = schema.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
            kinds.is_some_and(|kinds| kinds.contains(&gvk))
        };
        let found = schemas.values().find(named)?;
        let resolved = resolve(schemas, found, &mut Vec::new());
        Self::from_structural(&resolved, kind, Options { resource: true, open: true })
    }
}

/// The name a schema refers to, also where the reference is wrapped to stand beside a description.
fn reference(schema: &Value) -> Option<&str> {
    let direct = schema.get("$ref").and_then(Value::as_str);
    let wrapped = || {
        let all = schema.get("allOf").and_then(Value::as_array)?;
        all.iter().find_map(|one| one.get("$ref").and_then(Value::as_str))
    };
    direct.or_else(wrapped)?.strip_prefix(PREFIX)
}

/// The schema with what it refers to in its place; a circle ends as an object of which nothing is known.
fn resolve<'s>(schemas: &'s Map<String, Value>, schema: &'s Value, above: &mut Vec<&'s str>) -> Value {
    let Some(name) = reference(schema) else { return resolve_below(schemas, schema, above) };
    if above.contains(&name) {
        return json!({"type": "object"});
    }
    let Some(target) = schemas.get(name) else { return json!({}) };
    above.push(name);
    let resolved = resolve_below(schemas, target, above);
    above.pop();
    resolved
}

fn resolve_below<'s>(schemas: &'s Map<String, Value>, schema: &'s Value, above: &mut Vec<&'s str>) -> Value {
    let Value::Object(map) = schema else { return schema.clone() };
    let resolved = map.iter().filter(|(field, _)| *field != "description").map(|(field, value)| {
        let value = match (field.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                let properties = properties.iter();
                properties.map(|(name, below)| (name.clone(), resolve(schemas, below, above))).collect()
            }
            ("items", below) => resolve(schemas, below, above),
            ("additionalProperties", below @ Value::Object(_)) => resolve(schemas, below, above),
            (_, other) => other.clone(),
        };
        (field.clone(), value)
    });
    Value::Object(resolved.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Type;

    #[test]
    fn references_are_followed_and_circles_end() {
        let gvk = json!([{"group": "g", "version": "v1", "kind": "K"}]);
        let document = json!({
            "K": {"type": "object", "x-kubernetes-group-version-kind": gvk, "properties": {
                "spec": {"allOf": [{"$ref": "#/components/schemas/Spec"}], "description": "d", "default": {}},
            }},
            "Spec": {"type": "object", "properties": {
                "n": {"type": "integer"},
                "again": {"$ref": "#/components/schemas/Spec"},
                "list": {"type": "array", "items": {"$ref": "#/components/schemas/Quantity"}},
                "map": {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/Gone"}},
            }},
            "Quantity": {"oneOf": [{"type": "string"}, {"type": "number"}]},
        });
        let schemas = document.as_object().unwrap();
        let schema = Schema::from_openapi(schemas, "g", "v1", "K").unwrap();
        let at = |path: &[&str]| {
            path.iter().try_fold(&schema, |schema, field| schema.property(field)).map(Schema::kind).cloned()
        };
        assert_eq!(at(&["spec", "n"]), Some(Type::Int));
        assert_eq!(at(&["spec", "again"]), Some(Type::Dyn));
        assert_eq!(at(&["spec", "list"]), Some(Type::list(Type::Dyn)));
        assert_eq!(at(&["spec", "map"]), Some(Type::map(Type::String, Type::Dyn)));
        assert_eq!(at(&["metadata", "name"]), Some(Type::String));
        assert!(Schema::from_openapi(schemas, "g", "v2", "K").is_none());
    }
}
