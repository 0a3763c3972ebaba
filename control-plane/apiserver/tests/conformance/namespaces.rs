//! Namespaces: their life, their end, and what ends with them in which order.

use serde_json::json;

use super::{Cluster, name, pod_spec};

const ALL: &str = "/api/v1/namespaces";

/// Holds AM-74, AM-75, AM-78, AM-73.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_labelled_told_of_and_finalized() {
    let cluster = Cluster::whole(0).await;
    let made = cluster.create(ALL, json!({"metadata": {"name": "n"}})).await;
    assert_eq!(
        (&made["status"]["phase"], &made["spec"]["finalizers"]),
        (&json!("Active"), &json!(["kubernetes"]))
    );
    let path = format!("{ALL}/n");
    let patched = cluster.patch(&path, json!({"metadata": {"labels": {"testLabel": "testValue"}}})).await;
    assert_eq!(patched["metadata"]["labels"]["testLabel"], "testValue");
    let updated = cluster.update(&path, |object| object["metadata"]["labels"]["e2e"] = json!("n")).await;
    assert_eq!(updated["metadata"]["labels"]["e2e"], "n");
    let status = format!("{path}/status");
    assert_eq!(cluster.get(&status).await["status"]["phase"], "Active");
    let told = json!([{"type": "StatusPatch", "status": "True", "reason": "E2E", "message": "Patched by an e2e test",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let patched = cluster
        .patch(&status, json!({"metadata": {"annotations": {"e2e": "yes"}}, "status": {"conditions": told}}))
        .await;
    assert_eq!(patched["status"]["conditions"][0]["reason"], "E2E", "{patched}");
    let updated = cluster
        .update(&status, |object| {
            let more =
                json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Updated"});
            object["status"]["conditions"].as_array_mut().expect("conditions").push(more);
        })
        .await;
    assert_eq!(updated["status"]["conditions"].as_array().map(Vec::len), Some(2), "{updated}");
    assert_eq!(updated["status"]["phase"], "Active");
    let finalize = format!("{path}/finalize");
    let kept = cluster
        .update_at(&path, &finalize, |object| {
            object["spec"]["finalizers"] = json!(["kubernetes", "e2e.example.com/fakeFinalizer"]);
        })
        .await;
    assert_eq!(kept["spec"]["finalizers"], json!(["kubernetes", "e2e.example.com/fakeFinalizer"]));
    let freed = cluster
        .update_at(&path, &finalize, |object| object["spec"]["finalizers"] = json!(["kubernetes"]))
        .await;
    assert_eq!(freed["spec"]["finalizers"], json!(["kubernetes"]));
    cluster.delete(&path).await;
    cluster.gone(&path).await;
}

/// Holds AM-76, AM-77.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_a_namespace_goes_with_it() {
    let cluster = Cluster::whole(1).await;
    for space in ["n", "m"] {
        cluster.namespace(space).await;
        let pods = format!("{ALL}/{space}/pods");
        cluster.create(&pods, json!({"metadata": {"name": "p"}, "spec": pod_spec(&["run"])})).await;
        let services = format!("{ALL}/{space}/services");
        cluster
            .create(&services, json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}))
            .await;
    }
    cluster.until(&format!("{ALL}/n/pods/p"), |pod| pod["status"]["phase"] == "Running").await;
    cluster.delete(&format!("{ALL}/n")).await;
    cluster.gone(&format!("{ALL}/n")).await;
    // Somebody makes a namespace of that name again: nothing of the old one is in it.
    cluster.create(ALL, json!({"metadata": {"name": "n"}})).await;
    assert!(cluster.items(&format!("{ALL}/n/pods")).await.is_empty());
    assert!(cluster.items(&format!("{ALL}/n/services")).await.is_empty());
    assert_eq!(cluster.items(&format!("{ALL}/m/pods")).await.len(), 1);
    assert_eq!(cluster.items(&format!("{ALL}/m/services")).await.len(), 1);
}

/// Pods go first; while one is held, everything else stays.
///
/// Holds AM-79.
#[tokio::test(flavor = "multi_thread")]
async fn pods_go_before_everything_else() {
    let cluster = Cluster::whole(1).await;
    cluster.namespace("n").await;
    let held =
        json!({"metadata": {"name": "p", "finalizers": ["example.com/held"]}, "spec": pod_spec(&["run"])});
    cluster.create(&format!("{ALL}/n/pods"), held).await;
    cluster.create(&format!("{ALL}/n/configmaps"), json!({"metadata": {"name": "c"}})).await;
    cluster.delete(&format!("{ALL}/n")).await;
    let pod = format!("{ALL}/n/pods/p");
    cluster.until(&pod, |pod| pod["metadata"].get("deletionTimestamp").is_some()).await;
    cluster
        .until(&format!("{ALL}/n"), |n| {
            super::condition(n, "NamespaceDeletionContentFailure") == "False"
                || super::condition(n, "NamespaceFinalizersRemaining") == "True"
        })
        .await;
    cluster
        .stays(&format!("{ALL}/n/configmaps"), |list| {
            list["items"].as_array().is_some_and(|items| {
                items
                    .iter()
                    .any(|item| name(item) == "c" && item["metadata"].get("deletionTimestamp").is_none())
            })
        })
        .await;
    cluster.patch(&pod, json!({"metadata": {"finalizers": null}})).await;
    cluster.gone(&format!("{ALL}/n")).await;
}
