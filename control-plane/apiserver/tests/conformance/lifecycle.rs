//! The life of an object of any kind, as the list's "CRUD+" means it: found by discovery; created, read,
//! listed (in its namespace and over all), watched, patched, replaced; its status read, patched and replaced;
//! deleted by itself and with others by label, while what has not the label stays.

use serde_json::{Value, json};

use super::{Cluster, name};

/// A kind to live through.
pub(crate) struct Case {
    /// `/api/v1`, `/apis/apps/v1`.
    pub(crate) version: &'static str,
    /// The plural.
    pub(crate) plural: &'static str,
    /// The namespace, empty for kinds outside of them.
    pub(crate) namespace: &'static str,
    /// The names of four objects.
    pub(crate) names: [&'static str; 4],
    /// Everything but the metadata.
    pub(crate) body: Value,
    /// A status to merge in; null for kinds without one.
    pub(crate) status: Value,
    /// Something of the body to merge in; null for kinds that stay as they are.
    pub(crate) change: Value,
}

/// A namespaced kind without a status.
pub(crate) fn case(version: &'static str, plural: &'static str, body: Value) -> Case {
    Case {
        version,
        plural,
        namespace: "lives",
        names: ["a", "b", "c", "d"],
        body,
        status: Value::Null,
        change: Value::Null,
    }
}

impl Case {
    /// A kind outside of namespaces.
    pub(crate) fn cluster(self) -> Self {
        Self { namespace: "", ..self }
    }

    /// With a status.
    pub(crate) fn status(self, status: Value) -> Self {
        Self { status, ..self }
    }

    /// With a change.
    pub(crate) fn change(self, change: Value) -> Self {
        Self { change, ..self }
    }

    /// With other names.
    pub(crate) fn names(self, names: [&'static str; 4]) -> Self {
        Self { names, ..self }
    }
}

/// Is everything of `part` in `whole`?
fn has(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, value)| whole.get(key).is_some_and(|found| has(found, value)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| has(whole, part))
        }
        _ => whole == part,
    }
}

/// Group, version and resource are in discovery, from the root down.
async fn discovered(cluster: &Cluster, case: &Case) {
    let Case { version, plural, .. } = case;
    let mut verbs = vec!["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    if let Some(gv) = version.strip_prefix("/apis/") {
        let (group, _) = gv.split_once('/').expect("a group");
        let groups = cluster.get("/apis").await;
        let of = |group: &Value| {
            group["versions"].as_array().is_some_and(|v| v.iter().any(|v| v["groupVersion"] == gv))
        };
        let found = groups["groups"].as_array().expect("groups").iter().find(|g| g["name"] == group);
        assert!(found.is_some_and(of), "{gv} in /apis");
        assert!(of(&cluster.get(&format!("/apis/{group}")).await), "{gv} in /apis/{group}");
    }
    let list = cluster.get(version).await;
    let find =
        |name: &str| list["resources"].as_array().expect("resources").iter().find(|r| r["name"] == name);
    let found = find(plural).unwrap_or_else(|| panic!("{plural} in {version}"));
    verbs.retain(|verb| !found["verbs"].as_array().expect("verbs").iter().any(|v| v == verb));
    assert!(verbs.is_empty(), "{plural} lacks {verbs:?}");
    assert_eq!(found["namespaced"], !case.namespace.is_empty());
    if !case.status.is_null() {
        let found =
            find(&format!("{plural}/status")).unwrap_or_else(|| panic!("{plural}/status in {version}"));
        assert!(has(&found["verbs"], &json!(["get", "patch", "update"])), "{found}");
    }
}

/// Lives through it.
pub(crate) async fn live(cluster: &Cluster, case: &Case) {
    let Case { version, plural, namespace, names, body, status, change } = case;
    discovered(cluster, case).await;
    let all = format!("{version}/{plural}");
    let own =
        if namespace.is_empty() { all.clone() } else { format!("{version}/namespaces/{namespace}/{plural}") };
    let label = format!("labelSelector=life%3D{plural}");
    let object = |name: &str, life: &str| {
        let mut object = body.clone();
        object["metadata"] = json!({"name": name, "labels": {"life": life}});
        object
    };
    let begin = cluster.get(&format!("{own}?{label}")).await;
    assert_eq!(begin["items"].as_array().map(Vec::len), Some(0), "{plural}: {begin}");
    let version = begin["metadata"]["resourceVersion"].as_str().expect("a version");
    let mut watch = cluster.watch(&format!("{own}?{label}&resourceVersion={version}")).await;
    let mut uids = Vec::new();
    for life in &names[..3] {
        let made = cluster.create(&own, object(life, plural)).await;
        assert!(has(&made, body), "{plural}: {made} has not all of {body}");
        uids.push(made["metadata"]["uid"].clone());
        let (kind, seen) = watch.next().await;
        assert_eq!((kind.as_str(), name(&seen)), ("ADDED", *life));
    }
    cluster.create(&own, object(names[3], "other")).await;

    let one = format!("{own}/{}", names[0]);
    let found = cluster.get(&one).await;
    assert_eq!(found["metadata"]["uid"], uids[0]);
    for path in [&own, &all] {
        let list = cluster.items(&format!("{path}?{label}")).await;
        let mut found: Vec<&Value> = list.iter().map(|item| &item["metadata"]["uid"]).collect();
        found.sort_by_key(|uid| uids.iter().position(|other| other == *uid));
        assert_eq!(found, uids.iter().collect::<Vec<_>>(), "{path}");
    }

    let note = |object: &Value, key: &str| object["metadata"]["annotations"][key] == "yes";
    let mut patch = change.clone();
    patch["metadata"]["annotations"] = json!({"patched": "yes"});
    let patched = cluster.patch(&one, patch).await;
    assert!(note(&patched, "patched") && (change.is_null() || has(&patched, change)), "{patched}");
    watch.see("MODIFIED", |object| note(object, "patched")).await;
    let replaced =
        cluster.update(&one, |object| object["metadata"]["annotations"]["replaced"] = json!("yes")).await;
    assert!(note(&replaced, "patched") && note(&replaced, "replaced"), "{replaced}");
    watch.see("MODIFIED", |object| note(object, "replaced")).await;
    if !status.is_null() {
        let path = format!("{one}/status");
        let before = cluster.get(&path).await;
        assert_eq!(before["metadata"]["uid"], uids[0]);
        // A status alone is written here, whatever else is sent.
        let patched = cluster.patch(&path, json!({"status": status})).await;
        assert!(has(&patched["status"], status), "{patched}");
        watch.see("MODIFIED", |object| has(&object["status"], status)).await;
        let replaced = cluster
            .update(&path, |object| {
                object["metadata"]["annotations"]["patched"] = json!("yes");
                object["status"] = status.clone();
            })
            .await;
        assert!(has(&replaced["status"], status), "{replaced}");
        for field in body.as_object().expect("a map").keys().filter(|field| *field != "status") {
            assert_eq!(replaced[field], before[field], "{field} of {plural} stays by a write of the status");
        }
        // What is written beside the status does not touch the status.
        let beside = cluster.update(&one, |object| object["status"] = json!({})).await;
        assert!(has(&beside["status"], status), "{beside}");
    }

    cluster.delete(&one).await;
    watch.see("DELETED", |object| name(object) == names[0]).await;
    cluster.refused("GET", &one, None, 404).await;
    cluster.ok("DELETE", &format!("{own}?{label}"), None).await;
    for _ in 0..2 {
        watch.see("DELETED", |object| names[1..3].contains(&name(object))).await;
    }
    assert!(cluster.items(&format!("{own}?{label}")).await.is_empty(), "{plural}");
    let rest = cluster.items(&format!("{own}?labelSelector=life%3Dother")).await;
    assert_eq!(rest.iter().map(name).collect::<Vec<_>>(), [names[3]], "what has not the label stays");
    cluster.delete(&format!("{own}/{}", names[3])).await;
}
