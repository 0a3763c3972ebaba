//! Fixtures: original, patch, result.
#![expect(clippy::needless_pass_by_value, reason = "fixtures are written where they are passed")]

use super::*;
use crate::schema::Schema;
use proptest::prelude::*;
use serde_json::json;
use skep_api::resource::GroupVersionKind;

fn pod_spec(original: Value, patch: Value) -> Result<Value> {
    let pod = Schema::of(&GroupVersionKind::new("", "v1", "Pod")).expect("pod");
    let merged = strategic_merge(&json!({"spec": original}), &json!({"spec": patch}), pod)?;
    Ok(merged["spec"].clone())
}

#[track_caller]
fn check(original: Value, patch: Value, want: Value) {
    assert_eq!(pod_spec(original, patch).expect("merges"), want);
}

#[test]
fn lists_merge_by_key_and_new_elements_come_first() {
    check(
        json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}),
        json!({"containers": [{"name": "b", "image": "3"}, {"name": "c", "image": "4"}]}),
        json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "3"}, {"name": "c", "image": "4"}]}),
    );
    check(
        json!({"containers": [{"name": "a"}]}),
        json!({"containers": [{"name": "new"}]}),
        json!({"containers": [{"name": "new"}, {"name": "a"}]}),
    );
    // No merge strategy: replaced.
    check(
        json!({"tolerations": [{"key": "a"}]}),
        json!({"tolerations": [{"key": "b"}]}),
        json!({"tolerations": [{"key": "b"}]}),
    );
}

#[test]
fn element_order_is_what_the_patch_says() {
    check(
        json!({"containers": [{"name": "a"}, {"name": "server"}, {"name": "b"}]}),
        json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a", "image": "x"}]}),
        json!({"containers": [{"name": "server"}, {"name": "b"}, {"name": "a", "image": "x"}]}),
    );
    let out_of_order = pod_spec(
        json!({"containers": [{"name": "a"}]}),
        json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "z"}]}),
    );
    assert!(out_of_order.is_err());
}

#[test]
fn directives_delete_and_replace() {
    check(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"containers": [{"name": "a", "$patch": "delete"}]}),
        json!({"containers": [{"name": "b"}]}),
    );
    check(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        json!({"containers": [{"name": "c"}, {"$patch": "replace"}]}),
        json!({"containers": [{"name": "c"}]}),
    );
    check(
        json!({"securityContext": {"runAsUser": 1, "fsGroup": 2}}),
        json!({"securityContext": {"$patch": "replace", "fsGroup": 3}}),
        json!({"securityContext": {"fsGroup": 3}}),
    );
    check(
        json!({"nodeSelector": {"a": "b"}, "nodeName": "n"}),
        json!({"nodeSelector": {"$patch": "delete"}, "nodeName": null}),
        json!({"nodeSelector": {}}),
    );
}

#[test]
fn retain_keys_clears_the_rest() {
    check(
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "v", "$retainKeys": ["name", "secret"], "secret": {"secretName": "s"}}]}),
        json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}),
    );
    let deployment = Schema::of(&GroupVersionKind::new("apps", "v1", "Deployment")).expect("deployment");
    let got = strategic_merge(
        &json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        &json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        deployment,
    );
    assert_eq!(got.expect("merges"), json!({"spec": {"strategy": {"type": "Recreate"}}}));
}

#[test]
fn primitive_lists() {
    let pod = Schema::of(&GroupVersionKind::new("", "v1", "Pod")).expect("pod");
    let original = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
    let got = strategic_merge(
        &original,
        &json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "$setElementOrder/finalizers": ["d", "c", "a"], "finalizers": ["d"]}}),
        pod,
    );
    assert_eq!(got.expect("merges"), json!({"metadata": {"finalizers": ["d", "c", "a"]}}));
    let got =
        strategic_merge(&original, &json!({"metadata": {"finalizers": ["b", "x"]}}), pod).expect("merges");
    assert_eq!(got["metadata"]["finalizers"].as_array().map(Vec::len), Some(4));
}

#[test]
fn directives_do_not_reach_the_object() {
    check(
        json!({}),
        json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a", "image": null, "$setElementOrder/ports": [{"containerPort": 1}], "ports": [{"containerPort": 1}]}]}),
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 1}]}]}),
    );
}

#[test]
fn broken_patches_are_refused() {
    for patch in [
        json!({"containers": [{"image": "no name"}]}),
        json!({"containers": [{"$patch": "delete"}]}),
        json!({"securityContext": {"$patch": "nonsense"}}),
        json!({"securityContext": {"$retainKeys": "x"}}),
    ] {
        assert!(pod_spec(json!({"containers": [], "securityContext": {}}), patch).is_err());
    }
}

#[test]
fn merge_patch_is_rfc_7386() {
    let cases = [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": "foo"}), json!("bar"), json!("bar")),
        (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
    ];
    for (original, patch, want) in cases {
        assert_eq!(merge_patch(&original, &patch), want);
    }
}

#[test]
fn json_patch_is_all_or_nothing_and_bounded() {
    let original = json!({"a": [1, 2], "b": "x"});
    let got = json_patch(
        &original,
        br#"[{"op":"test","path":"/b","value":"x"},{"op":"add","path":"/a/-","value":3}]"#,
    );
    assert_eq!(got.expect("applies"), json!({"a": [1, 2, 3], "b": "x"}));
    let failed =
        json_patch(&original, br#"[{"op":"remove","path":"/b"},{"op":"test","path":"/a/0","value":9}]"#);
    assert_eq!(failed.expect_err("test fails").code(), 422);
    assert_eq!(json_patch(&original, b"{}").expect_err("not a list").code(), 400);
    let bomb: Vec<String> = (0..40).map(|n| format!(r#"{{"op":"copy","from":"","path":"/x{n}"}}"#)).collect();
    let bomb = format!("[{}]", bomb.join(","));
    assert_eq!(json_patch(&json!({"a": "x".repeat(1000)}), bomb.as_bytes()).expect_err("bomb").code(), 413);
}

/// Any JSON, its names among those that mean something.
fn arb_json() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "metadata",
        "spec",
        "containers",
        "name",
        "finalizers",
        "volumes",
        "ports",
        "containerPort",
        "labels",
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$deleteFromPrimitiveList/finalizers",
        "template",
        "managedFields",
        "annotations",
        "securityContext",
        "x",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i8>().prop_map(Value::from),
        prop::sample::select(vec!["delete", "replace", "merge", "a", ""]).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..5).prop_map(|map| json!(map)),
        ]
    })
}

fn arb_object() -> impl Strategy<Value = Value> {
    (arb_json(), arb_json()).prop_map(
        |(metadata, spec)| json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}),
    )
}

proptest! {
    #[test]
    fn nothing_panics_on_any_json(live in arb_object(), patch in arb_object()) {
        use crate::apply::{Types, Writer, apply_patch, update_managers};
        let gvk = GroupVersionKind::new("", "v1", "Pod");
        let pod = Schema::of(&gvk).expect("pod");
        drop(strategic_merge(&live, &patch, pod));
        drop(merge_patch(&live, &patch));
        drop(crate::codec::check(&gvk, &patch, crate::codec::FieldValidation::Strict));
        drop(crate::codec::encode_protobuf(&gvk, &patch));
        for types in [Types::Message(pod), Types::Deduced] {
            let now = std::time::SystemTime::UNIX_EPOCH.try_into().expect("epoch");
            let writer = Writer { manager: "kubectl", subresource: "", gvk: &gvk, types, versions: None, ignored: None, now };
            drop(apply_patch(Some(&live), &patch, &writer, true));
            drop(update_managers(Some(&live), patch.clone(), &writer));
            drop(update_managers(None, patch.clone(), &writer));
        }
    }

    #[test]
    fn a_strategic_patch_equal_to_the_object_changes_nothing(names in prop::collection::btree_set("[a-f]", 1..5)) {
        let containers: Vec<Value> = names.iter().map(|name| json!({"name": name, "image": "x"})).collect();
        let spec = json!({"containers": containers});
        prop_assert_eq!(pod_spec(spec.clone(), spec.clone()).expect("merges"), spec);
    }
}

#[test]
fn big_lists_take_linear_time() {
    let many: Vec<Value> = (0..30_000).map(|n| json!({"name": format!("c{n}")})).collect();
    let spec = json!({"containers": many});
    assert_eq!(pod_spec(spec.clone(), spec.clone()).expect("merges"), spec);
}
