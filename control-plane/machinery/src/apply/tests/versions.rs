//! Two versions of one kind: `v1` has `spec.name`, `v2` has it at `spec.meta.name`, and a list that is a set there
//! and one value here.

use super::*;

#[derive(Debug)]
struct Two {
    v1: Value,
    v2: Value,
}

impl Two {
    fn new() -> Self {
        let strings = |kind: &str| json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": kind});
        let schema = |spec: Value| json!({"type": "object", "properties": {"spec": {"type": "object", "properties": spec}}});
        let text = json!({"type": "string"});
        let meta = json!({"type": "object", "properties": {"name": text}});
        Self {
            v1: schema(json!({"name": text, "size": {"type": "integer"}, "tags": strings("atomic")})),
            v2: schema(json!({"meta": meta, "size": {"type": "integer"}, "tags": strings("set")})),
        }
    }
}

impl Versions for Two {
    fn convert(&self, object: &Value, api_version: &str) -> Option<Value> {
        let mut object = object.clone();
        let from = object["apiVersion"].as_str().unwrap_or_default().to_owned();
        if !["e/v1", "e/v2"].contains(&api_version) {
            return None;
        }
        object["apiVersion"] = api_version.into();
        if from == api_version || object.get("spec").is_none() {
            return Some(object);
        }
        let spec = object["spec"].as_object_mut().expect("a map");
        match api_version {
            "e/v2" => {
                if let Some(name) = spec.remove("name") {
                    spec.insert("meta".to_owned(), json!({"name": name}));
                }
            }
            _ => {
                if let Some(Value::Object(mut meta)) = spec.remove("meta")
                    && let Some(name) = meta.remove("name")
                {
                    spec.insert("name".to_owned(), name);
                }
            }
        }
        Some(object)
    }

    fn types(&self, api_version: &str) -> Option<Types<'_>> {
        match api_version {
            "e/v1" => Some(Types::OpenApi(&self.v1)),
            "e/v2" => Some(Types::OpenApi(&self.v2)),
            _ => None,
        }
    }
}

fn gvk(version: &str) -> GroupVersionKind {
    GroupVersionKind::new("e", version, "Thing")
}

fn through<T>(two: &Two, version: &str, manager: &str, work: impl FnOnce(&Writer<'_>) -> T) -> T {
    let gvk = gvk(version);
    let types = two.types(&gvk.api_version()).expect("known");
    work(&Writer {
        manager,
        subresource: "",
        gvk: &gvk,
        types,
        versions: Some(two),
        ignored: None,
        now: at(0),
    })
}

fn applied(
    two: &Two,
    live: Option<&Value>,
    version: &str,
    manager: &str,
    spec: Value,
    force: bool,
) -> Result<Value> {
    let config = json!({"apiVersion": format!("e/{version}"), "kind": "Thing", "metadata": {"name": "t"}, "spec": spec});
    let live = live.map(|live| two.convert(live, &format!("e/{version}")).expect("known"));
    through(two, version, manager, |writer| apply_patch(live.as_ref(), &config, writer, force))
        .map(|applied| applied.object)
}

fn updated(two: &Two, live: &Value, version: &str, manager: &str, change: impl FnOnce(&mut Value)) -> Value {
    let live = two.convert(live, &format!("e/{version}")).expect("known");
    let mut new = live.clone();
    change(&mut new);
    through(two, version, manager, |writer| update_managers(Some(&live), new, writer))
}

#[test]
fn what_was_applied_in_one_version_is_lost_to_an_update_in_another() {
    let two = Two::new();
    let live = applied(&two, None, "v1", "a", json!({"name": "n", "size": 1}), false).expect("applied");
    let live = updated(&two, &live, "v2", "b", |new| new["spec"]["meta"]["name"] = "other".into());
    assert_eq!(owned(&live, "a"), json!({"f:spec": {"f:size": {}}}), "the name is b's now");
    assert_eq!(owned(&live, "b"), json!({"f:spec": {"f:meta": {"f:name": {}}}}));
    // And a conflict is seen from the other side too.
    let conflict =
        applied(&two, Some(&live), "v1", "c", json!({"name": "mine"}), false).expect_err("a conflict");
    let Error::Conflict { causes, .. } = conflict else { panic!("{conflict:?}") };
    assert_eq!(causes[0].field, ".spec.meta.name", "as its owner has noted it");
    let live = applied(&two, Some(&live), "v1", "c", json!({"name": "mine"}), true).expect("forced");
    assert_eq!(owned(&live, "b"), Value::Null);
}

#[test]
fn an_applier_may_change_its_version() {
    let two = Two::new();
    let live = applied(&two, None, "v1", "a", json!({"name": "n", "size": 1}), false).expect("applied");
    let live = applied(&two, Some(&live), "v2", "a", json!({"meta": {"name": "n"}}), false).expect("applied");
    assert_eq!(live["spec"], json!({"meta": {"name": "n"}}), "the size is gone: it is applied no more");
    let entries = live["metadata"]["managedFields"].as_array().expect("entries");
    assert_eq!((entries.len(), &entries[0]["apiVersion"]), (1, &json!("e/v2")));
}

#[test]
fn what_another_owns_in_another_version_stays() {
    let two = Two::new();
    let live = applied(&two, None, "v1", "a", json!({"name": "n", "size": 1}), false).expect("applied");
    let live = applied(&two, Some(&live), "v2", "b", json!({"meta": {"name": "n"}, "tags": ["x"]}), false)
        .expect("agreed");
    let live = applied(&two, Some(&live), "v1", "a", json!({"size": 1}), false).expect("applied");
    assert_eq!(live["spec"], json!({"name": "n", "size": 1, "tags": ["x"]}), "b still wants the name");
    let live = applied(&two, Some(&live), "v2", "b", json!({"tags": ["x", "y"]}), false).expect("applied");
    assert_eq!(live["spec"], json!({"size": 1, "tags": ["x", "y"]}), "nobody wants the name any more");
}

#[test]
fn lists_are_owned_as_their_version_says() {
    let two = Two::new();
    let live = applied(&two, None, "v2", "a", json!({"tags": ["x"]}), false).expect("applied");
    // Through v1 the whole list is written; what a has noted is one item, which is still there.
    let live = updated(&two, &live, "v1", "b", |new| new["spec"]["tags"] = json!(["x", "y"]));
    assert_eq!(owned(&live, "a"), json!({"f:spec": {"f:tags": {"v:\"x\"": {}}}}));
    assert_eq!(owned(&live, "b"), json!({"f:spec": {"f:tags": {}}}));
    let live = updated(&two, &live, "v1", "b", |new| new["spec"]["tags"] = json!(["y"]));
    assert_eq!(owned(&live, "a"), Value::Null, "its item is gone");
}

#[test]
fn who_wrote_in_a_version_that_is_no_more_owns_nothing() {
    let two = Two::new();
    let mut live = applied(&two, None, "v1", "a", json!({"name": "n"}), false).expect("applied");
    live["metadata"]["managedFields"][0]["apiVersion"] = "e/v0".into();
    let live = applied(&two, Some(&live), "v1", "b", json!({"name": "other"}), false).expect("no conflict");
    assert_eq!(owned(&live, "a"), Value::Null);
}

proptest! {
    /// Whatever versions appliers use: nobody owns what is not there, and who applied last has what it said.
    #[test]
    fn ownership_follows_the_object(steps in proptest::collection::vec((0..3_usize, any::<bool>(), any::<bool>(), 0..3_u8, proptest::option::of(0..3_i64)), 1..8)) {
        let two = Two::new();
        let mut live: Option<Value> = None;
        for (who, second, named, name, size) in steps {
            let (version, manager) = (if second { "v2" } else { "v1" }, ["a", "b", "c"][who]);
            let mut spec = json!({});
            if named {
                let name = format!("n{name}");
                if second { spec["meta"] = json!({"name": name}) } else { spec["name"] = json!(name) }
            }
            // An empty map is owned as such, and not what this is about.
            if let Some(size) = size.or((!named).then_some(0)) {
                spec["size"] = json!(size);
            }
            let now = applied(&two, live.as_ref(), version, manager, spec.clone(), true).expect("forced");
            for (field, value) in spec.as_object().expect("a map") {
                prop_assert_eq!(&now["spec"][field], value);
            }
            // Everything in the spec is somebody's, and everything owned is there.
            let managers = managers::decode(&now).expect("readable");
            let mut all = Set::default();
            for owned in managers.values() {
                let there = two.convert(&now, &owned.api_version).expect("known");
                let root = two.types(&owned.api_version).expect("known").root();
                let set = field_set(root, &there).with_named_fields(root);
                prop_assert!(owned.fields.difference(&set).is_empty(), "{:?} owns what is not in {}", owned, there);
                let v1 = two.convert(&there, "e/v1").expect("known");
                if let Some(spec) = v1.get("spec").and_then(Value::as_object) {
                    for field in spec.keys() {
                        let inner = if owned.api_version == "e/v2" && field == "name" { vec!["spec", "meta", "name"] } else { vec!["spec", field.as_str()] };
                        if !owned.fields.intersection(&Set::of_fields(&[&inner])).is_empty() {
                            all = all.union(&Set::of_fields(&[&["spec", field.as_str()]]));
                        }
                    }
                }
            }
            let v1 = two.convert(&now, "e/v1").expect("known");
            for field in v1.get("spec").and_then(Value::as_object).into_iter().flat_map(|spec| spec.keys()) {
                let wanted = Set::of_fields(&[&["spec", field.as_str()]]);
                prop_assert!(!all.intersection(&wanted).is_empty(), "{} is nobody's in {}", field, now);
            }
            live = Some(now);
        }
    }
}
