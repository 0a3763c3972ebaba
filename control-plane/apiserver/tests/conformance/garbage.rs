//! What goes, and what stays, when an owner is deleted.

use serde_json::{Value, json};

use super::{Cluster, name, template};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const CONTROLLERS: &str = "/api/v1/namespaces/default/replicationcontrollers";
const PODS: &str = "/api/v1/namespaces/default/pods";

async fn deployment(cluster: &Cluster) {
    let spec = json!({"replicas": 2, "selector": {"matchLabels": {"app": "d"}}, "template": template("d")});
    cluster.create(DEPLOYMENTS, json!({"metadata": {"name": "d"}, "spec": spec})).await;
    cluster.until(&format!("{DEPLOYMENTS}/d"), |d| d["status"]["readyReplicas"] == 2).await;
}

async fn controller(cluster: &Cluster, name: &str, replicas: usize, does: &str) {
    let mut template = template(name);
    template["spec"]["containers"][0]["args"] = json!([does]);
    if does == "stay" {
        template["spec"]["terminationGracePeriodSeconds"] = json!(30);
    }
    let spec = json!({"replicas": replicas, "selector": {"app": name}, "template": template});
    cluster.create(CONTROLLERS, json!({"metadata": {"name": name}, "spec": spec})).await;
    cluster.count(&format!("{PODS}?labelSelector=app%3D{name}"), replicas).await;
}

/// Holds AM-58.
#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_goes_with_what_it_made() {
    let cluster = Cluster::whole(1).await;
    deployment(&cluster).await;
    cluster.delete_with(&format!("{DEPLOYMENTS}/d"), "Background").await;
    cluster.count(SETS, 0).await;
    cluster.count(PODS, 0).await;
}

/// Holds AM-63.
#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_leaves_orphans() {
    let cluster = Cluster::whole(1).await;
    deployment(&cluster).await;
    cluster.delete_with(&format!("{DEPLOYMENTS}/d"), "Orphan").await;
    cluster.gone(&format!("{DEPLOYMENTS}/d")).await;
    cluster
        .stays(SETS, |sets| {
            let sets = sets["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            sets.len() == 1 && sets[0]["metadata"].get("ownerReferences").is_none()
        })
        .await;
    cluster
        .stays(PODS, |pods| {
            pods["items"].as_array().is_some_and(|pods| {
                pods.len() == 2 && pods.iter().all(|pod| pod["metadata"].get("deletionTimestamp").is_none())
            })
        })
        .await;
}

/// Holds AM-59.
#[tokio::test(flavor = "multi_thread")]
async fn a_controller_goes_with_its_pods() {
    let cluster = Cluster::whole(1).await;
    controller(&cluster, "rc", 3, "run").await;
    cluster.delete_with(&format!("{CONTROLLERS}/rc"), "Background").await;
    cluster.gone(&format!("{CONTROLLERS}/rc")).await;
    cluster.count(PODS, 0).await;
}

/// Holds AM-60.
#[tokio::test(flavor = "multi_thread")]
async fn a_controller_waits_for_its_pods() {
    let cluster = Cluster::whole(1).await;
    controller(&cluster, "rc", 3, "stay").await;
    cluster
        .until(PODS, |list| list["items"].as_array().is_some_and(|pods| pods.iter().all(super::is_ready)))
        .await;
    let path = format!("{CONTROLLERS}/rc");
    cluster.ok("DELETE", &path, Some(json!({"propagationPolicy": "Foreground"}))).await;
    let going = cluster.get(&path).await;
    assert_eq!(going["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    cluster
        .until(PODS, |list| {
            list["items"]
                .as_array()
                .is_some_and(|pods| pods.iter().all(|pod| pod["metadata"].get("deletionTimestamp").is_some()))
        })
        .await;
    cluster.stays(&path, |rc| rc["metadata"].get("deletionTimestamp").is_some()).await;
    for pod in cluster.items(PODS).await {
        cluster.ok("DELETE", &format!("{PODS}/{}?gracePeriodSeconds=0", name(&pod)), None).await;
    }
    cluster.gone(&path).await;
    cluster.count(PODS, 0).await;
}

/// Holds AM-64.
#[tokio::test(flavor = "multi_thread")]
async fn a_controller_leaves_orphans() {
    let cluster = Cluster::whole(1).await;
    controller(&cluster, "rc", 20, "run").await;
    cluster.delete_with(&format!("{CONTROLLERS}/rc"), "Orphan").await;
    cluster.gone(&format!("{CONTROLLERS}/rc")).await;
    cluster
        .stays(PODS, |pods| {
            pods["items"].as_array().is_some_and(|pods| {
                pods.len() == 20
                    && pods.iter().all(|pod| {
                        pod["metadata"].get("ownerReferences").is_none()
                            && pod["metadata"].get("deletionTimestamp").is_none()
                    })
            })
        })
        .await;
}

/// Half of the pods have a second owner, which stays: so do they.
///
/// Holds AM-62.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_owner_keeps_pods() {
    let cluster = Cluster::whole(1).await;
    controller(&cluster, "dying", 4, "run").await;
    controller(&cluster, "staying", 1, "run").await;
    let staying = cluster.get(&format!("{CONTROLLERS}/staying")).await;
    let owner = json!({"apiVersion": "v1", "kind": "ReplicationController", "name": "staying", "uid": staying["metadata"]["uid"]});
    let pods = cluster.items(&format!("{PODS}?labelSelector=app%3Ddying")).await;
    let mut kept: Vec<&Value> = Vec::new();
    for pod in &pods[..2] {
        cluster
            .update(&format!("{PODS}/{}", name(pod)), |pod| {
                pod["metadata"]["ownerReferences"].as_array_mut().expect("owners").push(owner.clone());
            })
            .await;
        kept.push(&pod["metadata"]["name"]);
    }
    cluster.delete_with(&format!("{CONTROLLERS}/dying"), "Foreground").await;
    cluster.gone(&format!("{CONTROLLERS}/dying")).await;
    let left = cluster.count(&format!("{PODS}?labelSelector=app%3Ddying"), 2).await;
    for pod in &left {
        assert!(kept.contains(&&pod["metadata"]["name"]), "{pod}");
        assert!(pod["metadata"].get("deletionTimestamp").is_none(), "{pod}");
        assert_eq!(pod["metadata"]["ownerReferences"], json!([owner]));
    }
}

/// Holds AM-61.
#[tokio::test(flavor = "multi_thread")]
async fn a_circle_of_owners_goes() {
    let cluster = Cluster::whole(1).await;
    let mut made = Vec::new();
    for name in ["a", "b", "c"] {
        let pod = json!({"metadata": {"name": name}, "spec": super::pod_spec(&["run"])});
        made.push(cluster.create(PODS, pod).await);
    }
    for (index, pod) in made.iter().enumerate() {
        let owner = &made[(index + 2) % 3];
        let reference = json!([{"apiVersion": "v1", "kind": "Pod", "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true}]);
        cluster
            .patch(&format!("{PODS}/{}", name(pod)), json!({"metadata": {"ownerReferences": reference}}))
            .await;
    }
    cluster.delete_with(&format!("{PODS}/a"), "Foreground").await;
    cluster.count(PODS, 0).await;
}
