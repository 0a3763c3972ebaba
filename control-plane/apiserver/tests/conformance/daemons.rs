//! DaemonSets: one pod on each node that is meant.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Cluster, is_ready, name, template};

const ALL: &str = "/apis/apps/v1/namespaces/default/daemonsets";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn set(more: Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": "ds"}}, "template": template("ds")});
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({"metadata": {"name": "ds"}, "spec": spec})
}

/// Exactly these nodes have a ready pod each.
async fn on(cluster: &Cluster, nodes: &[&str]) -> Vec<Value> {
    let list = cluster
        .until(PODS, |list| {
            let pods = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            let there: BTreeSet<&str> =
                pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
            pods.len() == nodes.len() && there == nodes.iter().copied().collect() && pods.iter().all(is_ready)
        })
        .await;
    list["items"].as_array().cloned().unwrap_or_default()
}

/// Holds AP-11, AP-08.
#[tokio::test(flavor = "multi_thread")]
async fn each_node_has_a_pod_always() {
    let cluster = Cluster::whole(2).await;
    cluster.create(ALL, set(json!({}))).await;
    let pods = on(&cluster, &["node-0", "node-1"]).await;
    cluster.ok("DELETE", &format!("{PODS}/{}?gracePeriodSeconds=0", name(&pods[0])), None).await;
    let pods = on(&cluster, &["node-0", "node-1"]).await;
    let failed = name(&pods[1]).to_owned();
    cluster.patch(&format!("{PODS}/{failed}/status"), json!({"status": {"phase": "Failed"}})).await;
    cluster.gone(&format!("{PODS}/{failed}")).await;
    on(&cluster, &["node-0", "node-1"]).await;
}

/// Holds AP-10.
#[tokio::test(flavor = "multi_thread")]
async fn labels_of_nodes_choose() {
    let cluster = Cluster::whole(2).await;
    let mut chosen = set(json!({}));
    chosen["spec"]["template"]["spec"]["nodeSelector"] = json!({"color": "blue"});
    cluster.create(ALL, chosen).await;
    cluster.until(&format!("{ALL}/ds"), |set| set["status"]["observedGeneration"] == 1).await;
    on(&cluster, &[]).await;
    cluster.patch("/api/v1/nodes/node-1", json!({"metadata": {"labels": {"color": "blue"}}})).await;
    on(&cluster, &["node-1"]).await;
    cluster.patch("/api/v1/nodes/node-1", json!({"metadata": {"labels": {"color": "green"}}})).await;
    on(&cluster, &[]).await;
    let green = json!({"spec": {"updateStrategy": {"type": "RollingUpdate"}, "template": {"spec": {"nodeSelector": {"color": "green"}}}}});
    cluster.patch(&format!("{ALL}/ds"), green).await;
    on(&cluster, &["node-1"]).await;
}

/// Holds AP-12, AP-01.
#[tokio::test(flavor = "multi_thread")]
async fn templates_are_rolled_and_remembered() {
    const REVISIONS: &str = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let cluster = Cluster::whole(2).await;
    cluster.create(ALL, set(json!({}))).await;
    on(&cluster, &["node-0", "node-1"]).await;
    let first = cluster.count(&format!("{REVISIONS}?labelSelector=app%3Dds"), 1).await.remove(0);
    assert_eq!(first["revision"], 1);
    let path = format!("{REVISIONS}/{}", name(&first));
    let patched = cluster.patch(&path, json!({"metadata": {"labels": {name(&first): "patched"}}})).await;
    assert_eq!(patched["metadata"]["labels"][name(&first)], "patched");
    let mut copy = first.clone();
    copy["metadata"] = json!({"name": "copy", "labels": {"app": "copied"}});
    copy["revision"] = json!(2);
    cluster.create(REVISIONS, copy).await;
    cluster.delete(&format!("{REVISIONS}/copy")).await;
    cluster.refused("GET", &format!("{REVISIONS}/copy"), None, 404).await;
    let updated =
        cluster.update(&path, |object| object["metadata"]["labels"][name(&first)] = json!("updated")).await;
    assert_eq!(updated["metadata"]["labels"][name(&first)], "updated");
    for (number, image) in [(2, "other"), (3, "third")] {
        let container = json!({"name": "main", "image": image, "args": ["run"]});
        cluster.patch(&format!("{ALL}/ds"), json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}}}})).await;
        cluster
            .until(PODS, |list| {
                list["items"].as_array().is_some_and(|pods| {
                    pods.len() == 2
                        && pods
                            .iter()
                            .all(|pod| is_ready(pod) && pod["spec"]["containers"][0]["image"] == image)
                })
            })
            .await;
        cluster
            .until(&format!("{REVISIONS}?labelSelector=app%3Dds"), |list| {
                list["items"].as_array().is_some_and(|all| all.iter().any(|one| one["revision"] == number))
            })
            .await;
    }
    let label = format!("{}%3Dupdated", name(&first));
    cluster.ok("DELETE", &format!("{REVISIONS}?labelSelector={label}"), None).await;
    cluster.gone(&path).await;
}

/// A rollback in the middle of a rollout leaves alone the pods that are already what is wanted.
///
/// Holds AP-09.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_restarts_no_pod_in_vain() {
    let cluster = Cluster::whole(3).await;
    cluster.create(ALL, set(json!({}))).await;
    let before = on(&cluster, &["node-0", "node-1", "node-2"]).await;
    let bad = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "bad", "args": ["wait"]}]}}}});
    cluster.patch(&format!("{ALL}/ds"), bad).await;
    cluster
        .until(PODS, |list| {
            list["items"].as_array().is_some_and(|pods| {
                pods.iter().any(|pod| {
                    pod["spec"]["containers"][0]["image"] == "bad" && pod["status"]["phase"] == "Running"
                })
            })
        })
        .await;
    let kept: BTreeSet<String> = cluster
        .items(PODS)
        .await
        .iter()
        .filter(|pod| before.iter().any(|old| old["metadata"]["uid"] == pod["metadata"]["uid"]))
        .map(|pod| name(pod).to_owned())
        .collect();
    assert_eq!(kept.len(), 2, "one at a time");
    let good = before[0]["spec"]["containers"][0]["image"].clone();
    let back = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": good, "args": ["run"]}]}}}});
    cluster.patch(&format!("{ALL}/ds"), back).await;
    let after = on(&cluster, &["node-0", "node-1", "node-2"]).await;
    let after: BTreeSet<String> = after.iter().map(|pod| name(pod).to_owned()).collect();
    assert!(kept.is_subset(&after), "{kept:?} of {after:?}");
}
