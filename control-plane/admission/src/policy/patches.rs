//! What a mutation's value does to an object. Pure.

use serde_json::{Value as Json, json};
use skep_api::object::ObjectExt;
use skep_cel::{Key, Map, Value};
use skep_machinery::apply::{Types, overlay};
use skep_machinery::patch;

/// The object after a JSON patch. One whose `test` does not hold changes nothing.
pub(super) fn json_patch(object: &Json, value: &Value<'_>) -> Result<Json, String> {
    let Value::List(operations) = value else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".to_owned());
    };
    let mut patched = object.clone();
    for operation in operations.iter() {
        let Value::Map(operation) = operation else {
            return Err(
                "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".to_owned()
            );
        };
        if let Some(value) = operation.field("value") {
            names_match(&value, None)?;
        }
        let operation = Value::Map(operation).to_json().map_err(|error| {
            format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {error}")
        })?;
        let bytes = json!([operation]).to_string();
        patched = match patch::json_patch(&patched, bytes.as_bytes()) {
            Ok(patched) => patched,
            Err(_) if operation.text(&["op"]) == "test" => return Ok(object.clone()),
            Err(error) => return Err(format!("JSON Patch: {error}")),
        };
    }
    Ok(patched)
}

/// The object with an apply configuration laid over it.
pub(super) fn apply(object: &Json, value: &Value<'_>, types: Types<'_>) -> Result<Json, String> {
    names_match(value, Some("Object"))?;
    let mut config = value.to_json().map_err(|error| error.to_string())?;
    config.set_gvk(&object.gvk());
    overlay(types, object, &config).map_err(|error| format!("error applying patch: {error}"))
}

/// Objects made in an expression are named by where they lie: `Object.spec` in the field `spec` of an
/// `Object`. `path` is where we are; unknown until the first object.
fn names_match(value: &Value<'_>, path: Option<&str>) -> Result<(), String> {
    match value {
        Value::Map(Map::Struct(name, fields)) => {
            let path = path.unwrap_or(name);
            if **name != *path {
                return Err(format!(
                    "type mismatch: unexpected type name {name:?}, expected {path:?}, which matches field name \
                     path from root Object type"
                ));
            }
            for (key, field) in fields.iter() {
                let Key::String(key) = key else { continue };
                names_match(field, Some(&format!("{path}.{}", &**key)))?;
            }
            Ok(())
        }
        Value::Map(map @ Map::Owned(_)) => map.iter().try_for_each(|(_, value)| names_match(&value, path)),
        Value::List(list) => list.iter().try_for_each(|item| names_match(&item, path)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use skep_api::resource::GroupVersionKind;
    use skep_cel::admission::Setting;
    use skep_cel::{Budget, Variables};

    use super::*;

    fn value(text: &str) -> Value<'static> {
        let env = Setting { has_patches: true, ..Setting::default() }.env();
        let program = env.compile(text).unwrap_or_else(|errors| panic!("{text}: {errors}"));
        program.eval(&Variables::new(), &mut Budget::new(10_000)).unwrap()
    }

    fn deployment() -> Json {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"a": "b"}},
            "spec": {"replicas": 1}})
    }

    #[test]
    fn json_patches() {
        let patch = |text: &str| json_patch(&deployment(), &value(text));
        let done = patch(
            "[JSONPatch{op: 'add', path: '/metadata/labels/x~1y', value: 'z'},
              JSONPatch{op: 'replace', path: '/spec/replicas', value: 3},
              JSONPatch{op: 'add', path: '/spec/template', value: Object.spec.template{spec: Object.spec.template.spec{}}}]",
        );
        let done = done.unwrap();
        assert_eq!(done["metadata"]["labels"], json!({"a": "b", "x/y": "z"}));
        assert_eq!((&done["spec"]["replicas"], &done["spec"]["template"]), (&json!(3), &json!({"spec": {}})));
        let tested = "[JSONPatch{op: 'replace', path: '/spec/replicas', value: 9}, JSONPatch{op: 'test', path: '/spec/replicas', value: 1}]";
        assert_eq!(patch(tested).unwrap(), deployment(), "a test that fails undoes the patch");
        assert!(patch("[JSONPatch{op: 'remove', path: '/nope'}]").unwrap_err().starts_with("JSON Patch: "));
        let wrong =
            "[JSONPatch{op: 'add', path: '/spec', value: Object.spec{template: Object.spec.wrong{}}}]";
        assert!(patch(wrong).unwrap_err().contains("unexpected type name \"Object.spec.wrong\""));
    }

    #[test]
    fn apply_configurations() {
        let apply = |text: &str| {
            apply(&deployment(), &value(text), Types::of(&GroupVersionKind::new("apps", "v1", "Deployment")))
        };
        let done =
            apply("Object{metadata: Object.metadata{labels: {'c': 'd'}}, spec: Object.spec{replicas: 4}}");
        let done = done.unwrap();
        assert_eq!(done["metadata"]["labels"], json!({"a": "b", "c": "d"}));
        assert_eq!(done["spec"]["replicas"], 4);
        let wrong = apply("Object{spec: Object.status{}}").unwrap_err();
        assert!(
            wrong.contains("unexpected type name \"Object.status\", expected \"Object.spec\""),
            "{wrong}"
        );
        let unknown = apply("Object{spec: Object.spec{nope: 1}}").unwrap_err();
        assert!(unknown.starts_with("error applying patch: "), "{unknown}");
    }
}
