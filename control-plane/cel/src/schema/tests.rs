//! Schemas to types and sizes.

use serde_json::json;

use super::*;

fn schema(structural: &serde_json::Value, options: Options) -> Option<Schema> {
    Schema::from_structural(structural, "self", options)
}

fn field(schema: &Schema, name: &str) -> String {
    match schema.kind() {
        Type::Object(object) => object.fields.get(name).map_or("-".to_owned(), ToString::to_string),
        other => panic!("{other}"),
    }
}

#[test]
fn types_of_fields() {
    let structural = json!({"type": "object", "properties": {
        "int": {"type": "integer"}, "num": {"type": "number"}, "bool": {"type": "boolean"},
        "text": {"type": "string"}, "bytes": {"type": "string", "format": "byte"},
        "time": {"type": "string", "format": "date-time"}, "day": {"type": "string", "format": "date"},
        "span": {"type": "string", "format": "duration"}, "either": {"x-kubernetes-int-or-string": true},
        "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "unknown": {"x-kubernetes-preserve-unknown-fields": true},
        "namespace": {"type": "string"}, "a-b": {"type": "string"}, "1a": {"type": "string"},
    }});
    let hidden = schema(&structural, Options::default()).unwrap();
    for (name, want) in [
        ("int", "int"),
        ("num", "double"),
        ("bool", "bool"),
        ("text", "string"),
        ("bytes", "bytes"),
        ("time", "timestamp"),
        ("day", "timestamp"),
        ("span", "duration"),
        ("either", "dyn"),
        ("list", "list(self.list.@idx)"),
        ("map", "map(string, int)"),
        ("unknown", "-"),
        ("namespace", "-"),
        ("__namespace__", "string"),
        ("a__dash__b", "string"),
        ("1a", "-"),
        ("metadata", "-"),
    ] {
        assert_eq!(field(&hidden, name), want, "{name}");
    }
    let open = schema(&structural, Options { open: true, ..Options::default() }).unwrap();
    assert_eq!(field(&open, "unknown"), "dyn");
    let resource = schema(&structural, Options { resource: true, ..Options::default() }).unwrap();
    assert_eq!(field(&resource, "metadata"), "self.metadata");
    assert_eq!(field(&resource, "kind"), "string");
}

#[test]
fn sizes() {
    let structural = json!({"type": "object", "properties": {
        "bounded": {"type": "array", "maxItems": 7, "items": {"type": "string", "maxLength": 10}},
        "unbounded": {"type": "array", "items": {"type": "string"}},
        "map": {"type": "object", "maxProperties": 4, "additionalProperties": {"type": "integer"}},
        "word": {"type": "string", "enum": ["a", "abc"]},
    }});
    let schema = schema(&structural, Options::default()).unwrap();
    let size = |path: &[&str]| schema.size_at(&path.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(size(&["bounded"]), Some(7));
    assert_eq!(size(&["bounded", "@items"]), Some(40));
    assert_eq!(size(&["unbounded"]), Some((3 * 1024 * 1024 - 2) / 3));
    assert_eq!(size(&["map"]), Some(4));
    assert_eq!(size(&["word"]), Some(3));
    assert_eq!(size(&["nope"]), None);
    assert_eq!(schema.max_cardinality(), 3 * 1024 * 1024 / 3);
}
