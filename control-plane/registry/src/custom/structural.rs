//! Structural schemas: every field is declared outside of the junctors, with a type, so that pruning and
//! defaulting know what an object looks like without trying values.

use serde_json::{Map, Value, json};
use skep_api::field::{Error, ErrorList, Path};
use skep_api::object::ObjectExt;

use super::pattern;

/// Schemas nest no deeper.
const DEEPEST: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What keeps a schema from being structural; sorted.
pub(crate) fn validate(schema: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    invariants(schema, Level::Root, path, 0, &mut errors);
    complete(schema, schema, path, path, 0, &mut errors);
    errors.0.sort_by_key(ToString::to_string);
    errors
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name) == Some(&Value::Bool(true))
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
}

/// A schema below; booleans are none.
fn below<'s>(schema: &'s Value, name: &str) -> Option<&'s Value> {
    schema.get(name).filter(|inner| inner.is_object())
}

fn invariants(schema: &Value, level: Level, path: &Path, depth: usize, errors: &mut ErrorList) {
    if depth > DEEPEST {
        return errors.push(Error::invalid(path, "", "schemas nest too deep"));
    }
    let ty = schema.text(&["type"]);
    if ty == "array" && below(schema, "items").is_none() {
        errors.push(Error::required(&path.child("items"), "must be specified"));
    }
    if let Some(items) = below(schema, "items") {
        invariants(items, Level::Item, &path.child("items"), depth + 1, errors);
    }
    for (name, inner) in properties(schema) {
        invariants(inner, Level::Field, &path.child("properties").key(name), depth + 1, errors);
    }
    if schema.get("additionalProperties").is_some_and(|inner| !inner.is_null()) {
        if level == Level::Root {
            errors
                .push(Error::forbidden(&path.child("additionalProperties"), "must not be used at the root"));
        }
        if let Some(inner) = below(schema, "additionalProperties") {
            invariants(inner, Level::Field, &path.child("additionalProperties"), depth + 1, errors);
        }
    }
    extensions(schema, path, errors);
    let any = schema.get("anyOf") == Some(&int_or_string());
    let all = schema.pointer("/allOf/0/anyOf") == Some(&int_or_string());
    values(schema, any, all, path, depth, errors);
    typed(schema, ty, level, path, errors);
    let resource = level == Level::Root || flag(schema, "x-kubernetes-embedded-resource");
    if resource {
        for name in ["kind", "apiVersion"] {
            let Some(field) = schema.at(&["properties", name]) else { continue };
            if field.text(&["type"]) != "string" {
                let here = path.child("properties").key(name).child("type");
                errors.push(Error::invalid(&here, field.text(&["type"]), "must be string"));
            }
        }
    }
    if let Some(metadata) = schema.at(&["properties", "metadata"]) {
        let here = path.child("properties").key("metadata");
        if resource && metadata.text(&["type"]) != "object" {
            errors.push(Error::invalid(&here.child("type"), metadata.text(&["type"]), "must be object"));
        }
        if level == Level::Root && !is_bare_metadata(metadata) {
            errors.push(Error::forbidden(
                &here,
                "must not specify anything other than name and generateName, but metadata is implicitly specified",
            ));
        }
    }
}

fn int_or_string() -> Value {
    json!([{"type": "integer"}, {"type": "string"}])
}

/// At the root metadata may restrict names, and nothing else.
fn is_bare_metadata(metadata: &Value) -> bool {
    metadata.as_object().is_none_or(|map| {
        map.iter().all(|(key, value)| match key.as_str() {
            "type" | "default" => true,
            "properties" => value.as_object().is_none_or(|properties| {
                properties.keys().all(|name| matches!(name.as_str(), "name" | "generateName"))
            }),
            _ => crate::strategy::check::is_empty(value) || *value == Value::Bool(false),
        })
    })
}

fn extensions(schema: &Value, path: &Path, errors: &mut ErrorList) {
    if !flag(schema, "x-kubernetes-int-or-string") {
        return;
    }
    for name in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
        if flag(schema, name) {
            let detail = "must be false if x-kubernetes-int-or-string is true";
            errors.push(Error::invalid(&path.child(name), true, detail));
        }
    }
}

fn typed(schema: &Value, ty: &str, level: Level, path: &Path, errors: &mut ErrorList) {
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let preserve = flag(schema, "x-kubernetes-preserve-unknown-fields");
    let here = path.child("type");
    if embedded && ty != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if ty.is_empty() {
            Error::required(&here, detail)
        } else {
            Error::invalid(&here, ty, detail)
        });
    } else if ty.is_empty() && !flag(schema, "x-kubernetes-int-or-string") && !preserve {
        let place = match level {
            Level::Root => "at the root",
            Level::Item => "for specified array items",
            Level::Field => "for specified object fields",
        };
        errors.push(Error::required(&here, format!("must not be empty {place}")));
    }
    if embedded && schema.get("additionalProperties").is_some_and(|inner| !inner.is_null()) {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(Error::forbidden(&path.child("additionalProperties"), detail));
    }
    if level == Level::Root && !ty.is_empty() && ty != "object" {
        errors.push(Error::invalid(&here, ty, "must be object at the root"));
    }
    if embedded && !preserve && properties(schema).next().is_none() {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                      x-kubernetes-preserve-unknown-fields";
        errors.push(Error::required(&path.child("properties"), detail));
    }
}

/// The junctors and the pattern of a node.
fn values(
    schema: &Value,
    skip_any: bool,
    skip_first: bool,
    path: &Path,
    depth: usize,
    errors: &mut ErrorList,
) {
    for junctor in ["anyOf", "allOf", "oneOf"] {
        if junctor == "anyOf" && skip_any {
            continue;
        }
        for (index, inner) in schema.items(&[junctor]).iter().enumerate() {
            let skip = junctor == "allOf" && skip_first && index == 0;
            nested(inner, skip, &path.child(junctor).index(index), depth + 1, errors);
        }
    }
    if let Some(not) = below(schema, "not") {
        nested(not, false, &path.child("not"), depth + 1, errors);
    }
    let text = schema.text(&["pattern"]);
    if let Some(error) = (!text.is_empty()).then(|| pattern::compile(text).err()).flatten() {
        let error = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
        let detail = format!("must be a valid regular expression, but isn't: {error}");
        errors.push(Error::invalid(&path.child("pattern"), text, detail));
    }
}

/// A schema below a junctor only restricts values.
fn nested(schema: &Value, skip_any: bool, path: &Path, depth: usize, errors: &mut ErrorList) {
    if depth > DEEPEST {
        return errors.push(Error::invalid(path, "", "schemas nest too deep"));
    }
    values(schema, skip_any, false, path, depth, errors);
    if let Some(items) = below(schema, "items") {
        nested(items, false, &path.child("items"), depth + 1, errors);
    }
    for (name, inner) in properties(schema) {
        nested(inner, false, &path.child("properties").key(name), depth + 1, errors);
    }
    const FORBIDDEN: [(&str, &str); 12] = [
        ("type", "empty"),
        ("additionalProperties", "undefined"),
        ("default", "undefined"),
        ("title", "empty"),
        ("description", "empty"),
        ("nullable", "false"),
        ("x-kubernetes-preserve-unknown-fields", "false"),
        ("x-kubernetes-embedded-resource", "false"),
        ("x-kubernetes-int-or-string", "false"),
        ("x-kubernetes-list-map-keys", "empty"),
        ("x-kubernetes-list-type", "undefined"),
        ("x-kubernetes-map-type", "undefined"),
    ];
    let empty = Map::new();
    let map = schema.as_object().unwrap_or(&empty);
    let set = |name: &str| {
        map.get(name).is_some_and(|value| match value {
            Value::Null => false,
            Value::Bool(false) => name == "additionalProperties",
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            _ => true,
        })
    };
    for (name, must) in FORBIDDEN {
        if set(name) {
            errors.push(Error::forbidden(&path.child(name), format!("must be {must} to be structural")));
        }
    }
    if set("x-kubernetes-validations") {
        let here = path.child("x-kubernetes-validations");
        errors.push(Error::forbidden(&here, "must be empty to be structural"));
    }
    if schema.at(&["properties", "metadata"]).is_some() {
        let here = path.child("properties").key("metadata");
        errors.push(Error::forbidden(&here, "must not be specified in a nested context"));
    }
}

/// Everything a junctor speaks of must be declared outside of it.
fn complete(
    values: &Value,
    schema: &Value,
    path: &Path,
    nested: &Path,
    depth: usize,
    errors: &mut ErrorList,
) {
    if depth > DEEPEST {
        return;
    }
    for junctor in ["allOf", "anyOf", "oneOf"] {
        for (index, inner) in values.items(&[junctor]).iter().enumerate() {
            complete_nested(inner, schema, path, &nested.child(junctor).index(index), depth + 1, errors);
        }
    }
    if let Some(not) = below(values, "not") {
        complete_nested(not, schema, path, &nested.child("not"), depth + 1, errors);
    }
}

fn complete_nested(
    values: &Value,
    schema: &Value,
    path: &Path,
    nested: &Path,
    depth: usize,
    errors: &mut ErrorList,
) {
    complete(values, schema, path, nested, depth, errors);
    if let Some(items) = below(values, "items") {
        let (path, nested) = (path.child("items"), nested.child("items"));
        match below(schema, "items") {
            Some(schema) => complete_nested(items, schema, &path, &nested, depth + 1, errors),
            None => errors.push(Error::required(&path, format!("because it is defined in {nested}"))),
        }
    }
    for (name, inner) in properties(values) {
        let path = path.child("properties").key(name);
        let nested = nested.child("properties").key(name);
        match schema.at(&["properties", name]) {
            Some(schema) => complete_nested(inner, schema, &path, &nested, depth + 1, errors),
            None => errors.push(Error::required(&path, format!("because it is defined in {nested}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(schema: &Value) -> Vec<String> {
        validate(schema, &Path::new("s")).lines()
    }

    #[test]
    fn a_structural_schema_is_fine() {
        let schema = json!({"type": "object", "properties": {
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 5}}},
            "spec": {"type": "object", "required": ["a"], "properties": {
                "a": {"type": "string"},
                "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                "any": {"x-kubernetes-preserve-unknown-fields": true},
            }, "oneOf": [{"required": ["a"]}, {"properties": {"a": {"minLength": 1}}}]},
        }});
        assert_eq!(lines(&schema), Vec::<String>::new());
    }

    #[test]
    fn each_rule_is_told_of() {
        let cases = [
            (json!({}), "s.type: Required value: must not be empty at the root"),
            (
                json!({"type": "array", "items": {"type": "string"}}),
                "s.type: Invalid value: \"array\": must be object at the root",
            ),
            (
                json!({"type": "object", "properties": {"a": {}}}),
                "s.properties[a].type: Required value: must not be empty for specified object fields",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "array"}}}),
                "s.properties[a].items: Required value: must be specified",
            ),
            (
                json!({"type": "object", "additionalProperties": {"type": "string"}}),
                "s.additionalProperties: Forbidden: must not be used at the root",
            ),
            (
                json!({"type": "object", "anyOf": [{"properties": {"b": {"minLength": 1}}}]}),
                "s.properties[b]: Required value: because it is defined in s.anyOf[0].properties[b]",
            ),
            (
                json!({"type": "object", "not": {"type": "object"}}),
                "s.not.type: Forbidden: must be empty to be structural",
            ),
            (
                json!({"type": "object", "properties": {"metadata": {"type": "object", "required": ["x"]}}}),
                "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
            ),
            (
                json!({"type": "object", "properties": {"e": {"type": "object", "x-kubernetes-embedded-resource": true}}}),
                "s.properties[e].properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
            ),
        ];
        for (schema, wanted) in cases {
            assert_eq!(lines(&schema), [wanted], "{schema}");
        }
        let wrong =
            lines(&json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}));
        assert!(
            wrong[0].starts_with("s.properties[a].pattern: Invalid value: \"(\": must be a valid regular")
        );
    }
}
