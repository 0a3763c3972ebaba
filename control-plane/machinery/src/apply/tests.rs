//! Ownership, conflicts, removal; and laws that hold for any object.
#![expect(clippy::needless_pass_by_value, reason = "fixtures are written where they are passed")]

mod versions;

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn deployment() -> GroupVersionKind {
    GroupVersionKind::new("apps", "v1", "Deployment")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).expect("in range")
}

fn writer<'a>(manager: &'a str, gvk: &'a GroupVersionKind, seconds: i64) -> Writer<'a> {
    Writer {
        manager,
        subresource: "",
        gvk,
        types: Types::of(gvk),
        versions: None,
        ignored: None,
        now: at(seconds),
    }
}

fn config(mut body: Value) -> Value {
    body["apiVersion"] = "apps/v1".into();
    body["kind"] = "Deployment".into();
    body["metadata"]["name"] = "d".into();
    body
}

#[track_caller]
fn apply(live: Option<&Value>, manager: &str, body: Value) -> Value {
    apply_patch(live, &config(body), &writer(manager, &deployment(), 0), false).expect("applies").object
}

fn owned(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries
        .into_iter()
        .find(|entry| entry["manager"] == manager)
        .map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

fn pod(containers: Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": containers}}}})
}

#[test]
fn apply_creates_and_owns_what_it_says() {
    let got = apply(
        None,
        "helm",
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}},
        "template": {"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}], "resources": {}}]}}}}),
    );
    assert_eq!(
        owned(&got, "helm"),
        json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:replicas": {}, "f:selector": {},
            "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:resources": {},
                "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}})
    );
    let entry = &got["metadata"]["managedFields"][0];
    assert_eq!(entry["operation"], "Apply");
    assert_eq!(entry["time"], "2023-11-14T22:13:20Z");
}

#[test]
fn conflicts_name_fields_and_managers() {
    let live = apply(None, "one", json!({"spec": {"replicas": 3}}));
    let two = config(json!({"spec": {"replicas": 5}}));
    let error =
        apply_patch(Some(&live), &two, &writer("two", &deployment(), 1), false).expect_err("conflict");
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    let Error::Conflict { causes, .. } = error else { panic!("a conflict") };
    assert_eq!(causes[0].reason, "FieldManagerConflict");
    assert_eq!(causes[0].field, ".spec.replicas");
    let forced =
        apply_patch(Some(&live), &two, &writer("two", &deployment(), 1), true).expect("forced").object;
    assert_eq!(forced["spec"]["replicas"], 5);
    assert_eq!(owned(&forced, "one"), Value::Null);
    // The same value is no conflict: both own it.
    let shared = apply(Some(&live), "two", json!({"spec": {"replicas": 3}}));
    assert_eq!(owned(&shared, "one"), owned(&shared, "two"));
}

#[test]
fn what_is_no_longer_applied_goes_unless_somebody_owns_it() {
    let live = apply(
        None,
        "one",
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"replicas": 1, "paused": true}}),
    );
    let live = apply(Some(&live), "two", json!({"metadata": {"labels": {"b": "2"}}}));
    let live = apply(Some(&live), "one", json!({"spec": {"replicas": 1}}));
    assert_eq!(live["metadata"]["labels"], json!({"b": "2"}));
    assert_eq!(live["spec"], json!({"replicas": 1}));
    let live = apply(Some(&live), "two", json!({}));
    assert_eq!(live["metadata"].get("labels"), None);
    assert_eq!(owned(&live, "two"), Value::Null);
}

#[test]
fn list_elements_come_and_go_by_key() {
    let live = apply(None, "one", pod(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}])));
    let live = apply(Some(&live), "two", pod(json!([{"name": "side", "image": "s"}])));
    let live = apply(Some(&live), "one", pod(json!([{"name": "b", "image": "3"}])));
    let containers = &live["spec"]["template"]["spec"]["containers"];
    assert_eq!(*containers, json!([{"name": "b", "image": "3"}, {"name": "side", "image": "s"}]));
}

#[test]
fn order_of_elements_follows_the_applier() {
    let live = apply(None, "one", pod(json!([{"name": "a"}, {"name": "b"}, {"name": "c"}])));
    let live =
        apply(Some(&live), "one", pod(json!([{"name": "c"}, {"name": "a"}, {"name": "b"}, {"name": "d"}])));
    let names: Vec<&str> = live["spec"]["template"]["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|container| container["name"].as_str())
        .collect();
    assert_eq!(names, ["c", "a", "b", "d"]);
}

#[test]
fn updates_are_tracked_by_difference() {
    let gvk = deployment();
    let created = update_managers(
        None,
        config(json!({"spec": {"replicas": 1}, "metadata": {"labels": {"a": "b"}}})),
        &writer("kubectl-create", &gvk, 0),
    );
    assert_eq!(
        owned(&created, "kubectl-create"),
        json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {".": {}, "f:replicas": {}}})
    );
    let mut scaled = created.clone();
    scaled["spec"]["replicas"] = 2.into();
    let scaled = update_managers(Some(&created), scaled, &writer("scaler", &gvk, 5));
    assert_eq!(owned(&scaled, "scaler"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(
        owned(&scaled, "kubectl-create"),
        json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {}})
    );
    // Nothing changed: nothing is written down.
    let same = update_managers(Some(&scaled), scaled.clone(), &writer("idle", &gvk, 9));
    assert_eq!(same, scaled);
    let error =
        apply_patch(Some(&scaled), &config(json!({"spec": {"replicas": 4}})), &writer("x", &gvk, 9), false);
    let message = error.expect_err("conflict").to_string();
    assert_eq!(
        message,
        "Apply failed with 1 conflict: conflict with \"scaler\" using apps/v1: .spec.replicas"
    );
}

#[test]
fn status_goes_by_its_own_entry() {
    let gvk = deployment();
    let created = update_managers(None, config(json!({"spec": {"replicas": 1}})), &writer("a", &gvk, 0));
    let mut with_status = created.clone();
    with_status["status"] = json!({"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]});
    let ignored = Set::of_fields(&[&["spec"]]);
    let status = Writer { subresource: "status", ignored: Some(&ignored), ..writer("a", &gvk, 1) };
    let got = update_managers(Some(&created), with_status, &status);
    let entries = got["metadata"]["managedFields"].as_array().expect("entries");
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[1]["subresource"], "status");
    assert_eq!(
        entries[1]["fieldsV1"]["f:status"]["f:conditions"][r#"k:{"type":"Available"}"#]["f:status"],
        json!({})
    );
}

#[test]
fn forgetting_everything_and_never_tracked_objects() {
    let gvk = deployment();
    let created = update_managers(None, config(json!({"spec": {"replicas": 1}})), &writer("a", &gvk, 0));
    let mut reset = created.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    let reset = update_managers(Some(&created), reset, &writer("a", &gvk, 1));
    assert_eq!(reset["metadata"].get("managedFields"), None);
    let applied = apply(Some(&reset), "one", json!({"spec": {"paused": true}}));
    assert_eq!(owned(&applied, BEFORE_FIRST_APPLY), json!({"f:spec": {".": {}, "f:replicas": {}}}));
}

#[test]
fn client_side_apply_upgrades_without_conflict() {
    let gvk = deployment();
    let body = config(json!({"spec": {"replicas": 1}}));
    let mut created = body.clone();
    created["metadata"]["annotations"] = json!({LAST_APPLIED: body.to_string()});
    let created = update_managers(None, created, &writer("kubectl-client-side-apply", &gvk, 0));
    let wanted = config(json!({"spec": {"replicas": 2}}));
    let got =
        apply_patch(Some(&created), &wanted, &writer("kubectl", &gvk, 1), false).expect("no conflict").object;
    assert_eq!(got["spec"]["replicas"], 2);
    let annotation = got["metadata"]["annotations"][LAST_APPLIED].as_str().expect("refreshed");
    assert!(annotation.contains("\"replicas\":2"));
    assert!(apply_patch(Some(&created), &wanted, &writer("other", &gvk, 1), false).is_err());
}

#[test]
fn updaters_are_capped() {
    let gvk = deployment();
    let mut object = update_managers(None, config(json!({"spec": {"replicas": 1}})), &writer("m", &gvk, 0));
    for n in 0..30 {
        let mut next = object.clone();
        next["metadata"]["labels"][format!("l{n}")] = "x".into();
        object = update_managers(Some(&object), next, &writer(&format!("m{n}"), &gvk, n + 1));
    }
    let entries = object["metadata"]["managedFields"].as_array().expect("entries");
    assert_eq!(entries.len(), 10);
    assert!(entries.iter().any(|entry| entry["manager"] == "ancient-changes"));
    let all = managers::decode(&object)
        .expect("decodes")
        .into_values()
        .fold(Set::default(), |all, owned| all.union(&owned.fields));
    for n in 0..30 {
        let path = ["metadata".to_owned(), "labels".to_owned(), format!("l{n}")].map(PathElement::Field);
        assert!(all.has(&path), "{n}");
    }
}

#[test]
fn configurations_must_fit() {
    let gvk = deployment();
    let fail = |body: Value| {
        apply_patch(None, &config(body), &writer("x", &gvk, 0), false).expect_err("does not fit").to_string()
    };
    assert_eq!(
        fail(json!({"spec": {"unknownField": 1}})),
        "failed to create typed patch object (/d; apps/v1, Kind=Deployment): .spec.unknownField: field not declared in schema"
    );
    assert!(
        fail(json!({"spec": {"replicas": "x"}}))
            .contains(".spec.replicas: expected numeric (int or float), got \"x\"")
    );
    assert!(
        fail(pod(json!([{"name": "a"}, {"name": "a"}]))).contains("duplicate entries for key [name=\"a\"]")
    );
    assert!(fail(json!({"metadata": {"managedFields": []}})).contains("must be nil"));
    let wrong = json!({"apiVersion": "v1", "kind": "Pod"});
    assert!(apply_patch(None, &wrong, &writer("x", &gvk, 0), false).is_err());
}

#[test]
fn custom_resources_deduced_and_with_schema() {
    let gvk = GroupVersionKind::new("example.com", "v1", "Widget");
    let body = |spec: Value| json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec});
    let first =
        apply_patch(None, &body(json!({"a": {"x": 1, "y": 2}, "l": [1]})), &writer("one", &gvk, 0), false)
            .expect("applies")
            .object;
    let second = apply_patch(Some(&first), &body(json!({"a": {"x": 1}})), &writer("one", &gvk, 1), false)
        .expect("applies")
        .object;
    assert_eq!(second["spec"], json!({"a": {"x": 1}}));
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"ports": {"type": "array",
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"], "items": {"type": "object",
            "properties": {"port": {"type": "integer"}, "name": {"type": "string"}}}}}}}});
    let typed = |manager: &'static str| Writer { types: Types::OpenApi(&schema), ..writer(manager, &gvk, 0) };
    let first = apply_patch(None, &body(json!({"ports": [{"port": 1, "name": "a"}]})), &typed("one"), false)
        .expect("applies")
        .object;
    let second = apply_patch(Some(&first), &body(json!({"ports": [{"port": 2}]})), &typed("two"), false)
        .expect("applies")
        .object;
    assert_eq!(second["spec"]["ports"].as_array().map(Vec::len), Some(2));
    let unknown =
        apply_patch(None, &body(json!({"nope": 1})), &typed("one"), false).expect_err("unknown field");
    assert!(unknown.to_string().contains(".spec.nope: field not declared in schema"));
}

#[test]
fn fields_v1_round_trips() {
    let fields =
        json!({"f:a": {".": {}, "f:b": {}}, "f:c": {"k:{\"name\":\"x\"}": {}, "v:\"y\"": {}, "i:3": {}}});
    let set = Set::from_fields_v1(&fields).expect("reads");
    assert_eq!(set.to_fields_v1(), fields);
    assert_eq!(set.paths().len(), 5);
    for bad in [json!({"x:a": {}}), json!({"f:a": 1}), json!({"k:x": {}}), json!([])] {
        assert_eq!(Set::from_fields_v1(&bad), None);
    }
}

fn arb_spec() -> impl Strategy<Value = Value> {
    let labels = proptest::collection::btree_map("[a-c]", "[x-z]", 0..3);
    let containers = proptest::collection::btree_map("[a-d]", proptest::option::of("[1-3]"), 0..4);
    (labels, proptest::option::of(1..4i32), containers).prop_map(|(labels, replicas, containers)| {
        let containers: Vec<Value> = containers
            .into_iter()
            .map(|(name, image)| {
                image.map_or_else(|| json!({"name": name}), |image| json!({"name": name, "image": image}))
            })
            .collect();
        let mut body = pod(json!(containers));
        body["metadata"] = json!({"labels": labels});
        if let Some(replicas) = replicas {
            body["spec"]["replicas"] = replicas.into();
        }
        body
    })
}

/// Labels and containers with names of this range only.
fn arb_part(names: &'static str) -> impl Strategy<Value = Value> {
    let labels = proptest::collection::btree_map(names, "[x-z]", 0..3);
    let containers = proptest::collection::btree_map(names, "[1-3]", 0..3);
    (labels, containers).prop_map(|(labels, containers)| {
        let containers: Vec<Value> =
            containers.into_iter().map(|(name, image)| json!({"name": name, "image": image})).collect();
        let mut body = if containers.is_empty() { json!({}) } else { pod(json!(containers)) };
        body["metadata"] = if labels.is_empty() { json!({}) } else { json!({"labels": labels}) };
        body
    })
}

/// The object with its containers by name and without its bookkeeping, and who owns what.
fn essence(mut object: Value) -> (Value, Value, Value) {
    let owners = (owned(&object, "one"), owned(&object, "two"));
    managers::strip(&mut object);
    if let Some(list) = object.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut) {
        list.sort_by_key(|container| container["name"].to_string());
    }
    (object, owners.0, owners.1)
}

fn arb_set() -> impl Strategy<Value = Set> {
    proptest::collection::vec(proptest::collection::vec("[a-c]".prop_map(PathElement::Field), 1..4), 0..8)
        .prop_map(Set::of)
}

proptest! {
    #[test]
    fn apply_is_idempotent_and_apply_nothing_removes(body in arb_spec(), other in arb_spec()) {
        let gvk = deployment();
        let base = apply_patch(None, &config(other), &writer("other", &gvk, 0), true).expect("applies").object;
        let once = apply_patch(Some(&base), &config(body.clone()), &writer("one", &gvk, 1), true).expect("applies").object;
        let twice = apply_patch(Some(&once), &config(body), &writer("one", &gvk, 2), false).expect("no conflict with itself");
        prop_assert!(!twice.changed);
        prop_assert_eq!(&twice.object, &once);
        let gone = apply_patch(Some(&once), &config(json!({})), &writer("one", &gvk, 3), false).expect("applies").object;
        prop_assert_eq!(owned(&gone, "one"), Value::Null);
        // What is left, the other manager owns.
        let left = field_set(Types::of(&gvk).root(), &gone).difference(&managers::bookkeeping());
        let all = managers::decode(&gone).expect("decodes").into_values().fold(Set::default(), |all, owned| all.union(&owned.fields));
        let left: Set = Set::of(left.paths().into_iter().filter(|path| path.get(1) != Some(&PathElement::field("managedFields"))));
        let named = all.with_named_fields(Types::of(&gvk).root());
        prop_assert!(left.difference(&named).is_empty(), "{:?}", left.difference(&named));
    }

    #[test]
    fn managers_of_disjoint_fields_may_come_in_any_order(one in arb_part("[a-b]"), two in arb_part("[c-d]")) {
        let gvk = deployment();
        let apply = |live: Option<&Value>, manager: &str, body: &Value| {
            apply_patch(live, &config(body.clone()), &writer(manager, &gvk, 0), false).expect("no conflict").object
        };
        let first = apply(Some(&apply(None, "one", &one)), "two", &two);
        let second = apply(Some(&apply(None, "two", &two)), "one", &one);
        prop_assert_eq!(essence(first.clone()), essence(second));
        // Each leaves again, and what is left is what the other alone would have made.
        let left = apply(Some(&first), "two", &json!({}));
        prop_assert_eq!(essence(left).0, essence(apply(None, "one", &one)).0);
    }

    #[test]
    fn set_algebra(a in arb_set(), b in arb_set()) {
        let union = a.union(&b);
        prop_assert_eq!(&union, &b.union(&a));
        prop_assert_eq!(&a.union(&a), &a);
        prop_assert_eq!(&a.intersection(&b), &b.intersection(&a));
        prop_assert_eq!(&a.difference(&b).union(&a.intersection(&b)), &a);
        prop_assert!(a.difference(&union).is_empty());
        prop_assert!(a.recursive_difference(&a).is_empty());
        prop_assert_eq!(Set::from_fields_v1(&a.to_fields_v1()), Some(a));
    }
}
