//! What holds for any object and any schema: pruning and defaulting twice is doing it once, what is
//! known stays, and nothing panics.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::schema::Schema;
use super::{defaults, lists, prune, structural, validate};
use skep_api::field::Path;

const NAMES: [&str; 5] = ["a", "b", "c", "metadata", "kind"];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-5i64..5).prop_map(Value::from),
        "[ab]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(prop::sample::select(&NAMES[..]), inner, 0..4).prop_map(|map| {
                Value::Object(map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
}

fn schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "string", "default": "x"})),
        Just(json!({"type": "integer", "nullable": true, "minimum": 0})),
        Just(json!({"type": "boolean"})),
        Just(json!({"x-kubernetes-int-or-string": true})),
        Just(json!({"x-kubernetes-preserve-unknown-fields": true})),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let named = prop::collection::btree_map(prop::sample::select(&NAMES[..]), inner.clone(), 0..4);
        prop_oneof![
            (named, any::<bool>(), any::<bool>()).prop_map(|(map, preserve, default)| {
                let properties: Map<String, Value> =
                    map.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
                let mut schema = json!({"type": "object", "properties": properties});
                if preserve {
                    schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
                }
                if default {
                    schema["default"] = json!({});
                }
                schema
            }),
            inner.clone().prop_map(|inner| json!({"type": "object", "additionalProperties": inner})),
            (inner, any::<bool>()).prop_map(|(inner, set)| {
                let kind = if set { "set" } else { "atomic" };
                json!({"type": "array", "items": inner, "x-kubernetes-list-type": kind})
            }),
        ]
    })
}

proptest! {
    #[test]
    fn pruning_twice_is_pruning_once(schema in schema(), mut object in value()) {
        let schema = Schema::parse(&schema);
        prune::prune(&mut object, &schema);
        let once = object.clone();
        prop_assert_eq!(prune::prune(&mut object, &schema), Vec::<String>::new());
        prop_assert_eq!(object, once);
    }

    #[test]
    fn defaulting_twice_is_defaulting_once(schema in schema(), mut object in value()) {
        let schema = Schema::parse(&schema);
        defaults::apply(&mut object, &schema);
        let once = object.clone();
        defaults::apply(&mut object, &schema);
        prop_assert_eq!(object, once);
    }

    #[test]
    fn what_has_not_changed_is_not_complained_about(schema in schema(), object in value()) {
        let schema = Schema::parse(&schema);
        let errors = validate::validate(&object, Some(&object), &schema, &Path::root());
        prop_assert!(errors.is_empty(), "{:?}", errors);
    }

    #[test]
    fn nothing_panics(schema in value(), object in value()) {
        let _errors = structural::validate(&schema, &Path::root());
        let _rules = super::rules::validate(&json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}]}}), None);
        let schema = Schema::parse(&schema);
        let _errors = validate::validate(&object, None, &schema, &Path::root());
        let _errors = lists::validate(&object, &schema);
    }
}
