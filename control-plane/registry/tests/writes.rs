//! The verbs: what they keep, refuse and do in which order.

use serde_json::{Value, json};
use skep_api::error::Reason;
use skep_registry::{DeleteOptions, Patch, Preconditions, Propagation, WriteOptions};

use crate::support::{World, core, options};

fn pod(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    })
}

#[tokio::test]
async fn pods_are_bound_then_deleted_gracefully_by_their_node() {
    let world = World::new(usize::MAX).await;
    let created = world.create(&core("pods", "n", ""), pod("p")).await;
    assert_eq!(created["status"]["phase"], "Pending");
    let target = core("pods", "n", "p");
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "node"}});
    let registry = &world.registry;
    registry.bind(&target.clone().below("binding"), &binding, &options()).await.expect("bound");
    let again = registry.bind(&target.clone().below("binding"), &binding, &options()).await;
    assert!(again.expect_err("it has a node").is_conflict());
    let deleted = registry.delete(&target, &DeleteOptions::default(), &options()).await.expect("begun");
    assert!(!deleted.gone);
    assert_eq!(deleted.object["metadata"]["deletionGracePeriodSeconds"], 30);
    let shorter = DeleteOptions { grace_period: Some(5), ..DeleteOptions::default() };
    let deleted = registry.delete(&target, &shorter, &options()).await.expect("shortened");
    assert_eq!(deleted.object["metadata"]["deletionGracePeriodSeconds"], 5);
    let now = DeleteOptions { grace_period: Some(0), ..DeleteOptions::default() };
    assert!(registry.delete(&target, &now, &options()).await.expect("deleted").gone);
    assert!(registry.get(&target, None).await.expect_err("gone").is_not_found());
}

#[tokio::test]
async fn the_last_finalizer_lets_go() {
    let world = World::new(usize::MAX).await;
    let registry = &world.registry;
    world.create(&core("configmaps", "n", ""), json!({"metadata": {"name": "a"}})).await;
    let target = core("configmaps", "n", "a");
    let how = DeleteOptions { propagation: Some(Propagation::Foreground), ..DeleteOptions::default() };
    let deleted = registry.delete(&target, &how, &options()).await.expect("begun");
    assert!(!deleted.gone);
    assert_eq!(deleted.object["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    registry.patch(&target, &free, &options()).await.expect("patched");
    assert!(registry.get(&target, None).await.expect_err("gone").is_not_found());
}

#[tokio::test]
async fn preconditions_hold() {
    let world = World::new(usize::MAX).await;
    let registry = &world.registry;
    world.create(&core("configmaps", "n", ""), json!({"metadata": {"name": "a"}})).await;
    let target = core("configmaps", "n", "a");
    for preconditions in [
        Preconditions { uid: Some("other".to_owned()), resource_version: None },
        Preconditions { uid: None, resource_version: Some(99999) },
    ] {
        let how = DeleteOptions { preconditions, ..DeleteOptions::default() };
        let error = registry.delete(&target, &how, &options()).await.expect_err("refused");
        assert_eq!(error.reason, Reason::Conflict);
    }
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let world = World::new(usize::MAX).await;
    let dry = WriteOptions { dry_run: true, ..options() };
    let collection = core("configmaps", "n", "");
    let object = json!({"metadata": {"name": "a"}});
    let written = world.registry.create(&collection, object, &dry).await.expect("tried");
    assert_eq!(written.object["metadata"]["name"], "a");
    let target = core("configmaps", "n", "a");
    assert!(world.registry.get(&target, None).await.expect_err("not stored").is_not_found());
}

#[tokio::test]
async fn patches_meet_each_other_without_losing_any() {
    let world = World::new(usize::MAX).await;
    world.create(&core("configmaps", "n", ""), json!({"metadata": {"name": "a"}})).await;
    let target = core("configmaps", "n", "a");
    let mut all = tokio::task::JoinSet::new();
    for index in 0..12 {
        let (registry, target) = (world.registry.clone(), target.clone());
        all.spawn(async move {
            let patch = Patch::Merge(json!({"data": {format!("k{index}"): "v"}}));
            registry.patch(&target, &patch, &options()).await.expect("patched");
        });
    }
    while let Some(done) = all.join_next().await {
        done.expect("no panic");
    }
    let object = world.registry.get(&target, None).await.expect("there");
    assert_eq!(object.value["data"].as_object().map(serde_json::Map::len), Some(12));
}

#[tokio::test]
async fn a_patch_that_names_a_version_conflicts() {
    let world = World::new(usize::MAX).await;
    let created = world.create(&core("configmaps", "n", ""), json!({"metadata": {"name": "a"}})).await;
    let target = core("configmaps", "n", "a");
    let version = created["metadata"]["resourceVersion"].clone();
    let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version}, "data": {"k": "v"}}));
    world.registry.patch(&target, &patch, &options()).await.expect("the first is right");
    let error = world.registry.patch(&target, &patch, &options()).await.expect_err("the second is late");
    assert!(error.is_conflict(), "{error}");
}

#[tokio::test]
async fn apply_creates_owns_and_meets_conflicts() {
    let world = World::new(usize::MAX).await;
    let target = core("configmaps", "n", "a");
    let config = |value: &str| {
        Patch::Apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": value},
        }))
    };
    let by = |manager: &str, force| WriteOptions {
        field_manager: manager.to_owned(),
        force,
        ..WriteOptions::default()
    };
    let registry = &world.registry;
    let made = registry.patch(&target, &config("1"), &by("one", false)).await.expect("applied");
    assert!(made.created);
    let same = registry.patch(&target, &config("1"), &by("one", false)).await.expect("applied again");
    assert_eq!(same.object["metadata"]["resourceVersion"], made.object["metadata"]["resourceVersion"]);
    let error = registry.patch(&target, &config("2"), &by("two", false)).await.expect_err("owned by one");
    assert!(error.is_conflict(), "{error}");
    let forced = registry.patch(&target, &config("2"), &by("two", true)).await.expect("forced");
    assert_eq!(forced.object["data"]["k"], "2");
}

#[tokio::test]
async fn generated_names_differ() {
    let world = World::new(usize::MAX).await;
    let collection = core("configmaps", "n", "");
    let one = world.create(&collection, json!({"metadata": {"generateName": "a-"}})).await;
    let two = world.create(&collection, json!({"metadata": {"generateName": "a-"}})).await;
    assert_ne!(one["metadata"]["name"], two["metadata"]["name"]);
    let error = world.registry.create(&collection, json!({"metadata": {}}), &options()).await;
    assert_eq!(error.expect_err("no name").code, 422);
}
