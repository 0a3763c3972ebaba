//! What a fuzzer calls: custom resources and their path language, on any input.

use std::sync::Arc;

use serde_json::{Value, json};
use skep_machinery::codec::FieldValidation;

use super::{CustomKind, Definition, json_path, rules};

/// Takes any schema and any body through what a custom resource goes through, from decoding to printing:
/// what a fuzzer calls.
pub fn fuzz(schema: &Value, body: &[u8]) {
    let path = skep_api::field::Path::root();
    // Only what a definition may say gets as far as objects.
    let definition = json!({
        "metadata": {"name": "things.example.com", "uid": "u"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    });
    if !rules::schema(schema, &path).is_empty() {
        return;
    }
    let kind = CustomKind::new(Definition::compile(&definition), 0);
    let Ok(decoded) = kind.decode("application/json", body, FieldValidation::Warn) else { return };
    let mut object = decoded.object;
    kind.default(&mut object);
    let once = object.clone();
    kind.default(&mut object);
    assert_eq!(object, once, "defaults and pruning are done at once");
    kind.prepare_create(&mut object);
    let errors = kind.validate_create(&object);
    drop(kind.validate_update(&object, &once));
    if errors.is_empty() {
        let object = Arc::new(object);
        drop(kind.cells(&object, jiff::Timestamp::UNIX_EPOCH));
    }
}

/// The path language of printer columns and scales, on any value: what a fuzzer calls.
pub fn fuzz_path(text: &str, value: &Value) {
    if let Some(path) = json_path::JsonPath::parse(text) {
        drop(path.find(value));
    }
}
