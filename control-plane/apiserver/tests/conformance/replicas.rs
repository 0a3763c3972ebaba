//! ReplicaSets and ReplicationControllers: how many, whose, and how they tell that they can't.

use serde_json::{Value, json};

use super::{Cluster, condition, is_ready, name, template};

const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const CONTROLLERS: &str = "/api/v1/namespaces/default/replicationcontrollers";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn set(name: &str, replicas: u32) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template(name)}})
}

fn controller(name: &str, replicas: u32) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}},
        "spec": {"replicas": replicas, "selector": {"app": name}, "template": template(name)}})
}

fn orphan(app: &str) -> Value {
    json!({"metadata": {"name": format!("{app}-orphan"), "labels": {"app": app}}, "spec": template(app)["spec"]})
}

/// An orphan is taken in; one that is relabelled is let go, and replaced.
async fn adopts_and_releases(owners: &str, kind: &str, object: Value) {
    let cluster = Cluster::whole(1).await;
    let app = name(&object).to_owned();
    cluster.create(PODS, orphan(&app)).await;
    let owner = cluster.create(owners, object).await;
    let pod = format!("{PODS}/{app}-orphan");
    let adopted = cluster
        .until(&pod, |pod| pod["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"])
        .await;
    assert_eq!(adopted["metadata"]["ownerReferences"][0]["kind"], kind);
    assert_eq!(adopted["metadata"]["ownerReferences"][0]["controller"], true);
    assert_eq!(cluster.items(PODS).await.len(), 1, "the orphan is the one that is wanted");
    cluster.patch(&pod, json!({"metadata": {"labels": {"app": "other"}}})).await;
    cluster.until(&pod, |pod| pod["metadata"].get("ownerReferences").is_none()).await;
    cluster.count(&format!("{PODS}?labelSelector=app%3D{app}"), 1).await;
}

/// Holds AP-43.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_set_adopts_and_releases() {
    adopts_and_releases(SETS, "ReplicaSet", set("pick", 1)).await;
}

/// Holds AP-47, AP-49.
#[tokio::test(flavor = "multi_thread")]
async fn a_replication_controller_adopts_and_releases() {
    adopts_and_releases(CONTROLLERS, "ReplicationController", controller("pick", 1)).await;
}

/// Holds AP-41, AP-42.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_set_is_scaled_and_patched() {
    let cluster = Cluster::whole(1).await;
    cluster.create(SETS, set("s", 1)).await;
    let path = format!("{SETS}/s");
    cluster.until(&path, |s| s["status"]["readyReplicas"] == 1).await;
    let scale = format!("{path}/scale");
    let found = cluster.get(&scale).await;
    assert_eq!((&found["kind"], &found["spec"]["replicas"]), (&json!("Scale"), &json!(1)));
    assert_eq!(found["status"]["selector"], "app=s");
    cluster.update(&scale, |scale| scale["spec"]["replicas"] = json!(2)).await;
    cluster.until(&path, |s| s["status"]["readyReplicas"] == 2).await;
    cluster.patch(&scale, json!({"spec": {"replicas": 4}})).await;
    cluster.until(&path, |s| s["status"]["readyReplicas"] == 4).await;
    let patch = json!({"metadata": {"labels": {"patched": "yes"}}, "spec": {"replicas": 3, "template": {"spec":
        {"terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": "other", "args": ["run"]}]}}}});
    let patched = cluster.patch(&path, patch).await;
    assert_eq!(patched["metadata"]["labels"]["patched"], "yes");
    let done =
        cluster.until(&path, |s| s["status"]["readyReplicas"] == 3 && s["status"]["replicas"] == 3).await;
    assert_eq!(done["spec"]["template"]["spec"]["containers"][0]["image"], "other");
}

/// Holds AP-48, AP-52.
#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_replication_controller_is_seen() {
    let cluster = Cluster::whole(1).await;
    let version =
        cluster.get(CONTROLLERS).await["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let mut watch =
        cluster.watch(&format!("{CONTROLLERS}?labelSelector=app%3Drc&resourceVersion={version}")).await;
    cluster.create(CONTROLLERS, controller("rc", 1)).await;
    watch.see("ADDED", |rc| name(rc) == "rc").await;
    watch.see("MODIFIED", |rc| rc["status"]["readyReplicas"] == 1).await;
    let path = format!("{CONTROLLERS}/rc");
    cluster.patch(&path, json!({"metadata": {"labels": {"patched": "yes"}}})).await;
    watch.see("MODIFIED", |rc| rc["metadata"]["labels"]["patched"] == "yes").await;
    let told = json!({"status": {"readyReplicas": 0, "availableReplicas": 0}});
    cluster.patch(&format!("{path}/status"), told).await;
    watch.see("MODIFIED", |rc| rc["status"]["readyReplicas"].as_i64().unwrap_or(0) == 0).await;
    assert_eq!(name(&cluster.get(&format!("{path}/status")).await), "rc");
    let scale = format!("{path}/scale");
    assert_eq!(cluster.get(&scale).await["spec"]["replicas"], 1);
    cluster.patch(&scale, json!({"spec": {"replicas": 2}})).await;
    watch.see("MODIFIED", |rc| rc["status"]["readyReplicas"] == 2).await;
    cluster.update(&scale, |scale| scale["spec"]["replicas"] = json!(1)).await;
    watch.see("MODIFIED", |rc| rc["status"]["replicas"] == 1).await;
    let everywhere = cluster.items("/api/v1/replicationcontrollers?labelSelector=patched%3Dyes").await;
    assert_eq!(everywhere.len(), 1);
    cluster.ok("DELETE", &format!("{CONTROLLERS}?labelSelector=patched%3Dyes"), None).await;
    watch.see("DELETED", |rc| name(rc) == "rc").await;
}

/// Holds AP-51.
#[tokio::test(flavor = "multi_thread")]
async fn a_controller_tells_that_the_quota_is_full() {
    let cluster = Cluster::whole(1).await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "2"}}});
    cluster.create("/api/v1/namespaces/default/resourcequotas", quota).await;
    cluster
        .until("/api/v1/namespaces/default/resourcequotas/q", |q| q["status"]["used"]["pods"] == "0")
        .await;
    cluster.create(CONTROLLERS, controller("rc", 3)).await;
    let path = format!("{CONTROLLERS}/rc");
    let failing = cluster.until(&path, |rc| condition(rc, "ReplicaFailure") == "True").await;
    assert_eq!(failing["status"]["conditions"][0]["reason"], "FailedCreate", "{failing}");
    cluster.patch(&format!("{path}/scale"), json!({"spec": {"replicas": 2}})).await;
    cluster
        .until(&path, |rc| condition(rc, "ReplicaFailure").is_empty() && rc["status"]["replicas"] == 2)
        .await;
    cluster
        .until(PODS, |list| {
            list["items"].as_array().is_some_and(|pods| pods.len() == 2 && pods.iter().all(is_ready))
        })
        .await;
}
