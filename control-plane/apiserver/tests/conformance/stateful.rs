//! StatefulSets: order, names, revisions.

use serde_json::{Value, json};

use super::{Cluster, is_ready, name, template};

const ALL: &str = "/apis/apps/v1/namespaces/default/statefulsets";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn set(replicas: u32, does: &str, more: Value) -> Value {
    let mut template = template("ss");
    template["spec"]["containers"][0]["args"] = json!([does]);
    let mut spec = json!({"replicas": replicas, "serviceName": "ss", "selector": {"matchLabels": {"app": "ss"}}, "template": template});
    spec.as_object_mut().expect("a map").extend(more.as_object().cloned().unwrap_or_default());
    json!({"metadata": {"name": "ss"}, "spec": spec})
}

/// Makes a pod ready or not, whatever it does.
async fn ready(cluster: &Cluster, pod: &str, ready: bool) {
    let path = format!("{PODS}/{pod}");
    cluster.until(&path, |pod| pod["status"]["phase"] == "Running").await;
    cluster
        .update_at(&path, &format!("{path}/status"), |pod| {
            for condition in pod["status"]["conditions"].as_array_mut().expect("conditions") {
                if condition["type"] == "Ready" || condition["type"] == "ContainersReady" {
                    condition["status"] = json!(if ready { "True" } else { "False" });
                }
            }
        })
        .await;
}

async fn names(cluster: &Cluster, wanted: &[&str]) {
    cluster
        .until(PODS, |list| {
            let mut found: Vec<&str> = list["items"].as_array().into_iter().flatten().map(name).collect();
            found.sort_unstable();
            found == wanted
        })
        .await;
}

/// Holds AP-54.
#[tokio::test(flavor = "multi_thread")]
async fn pods_come_in_order_and_go_in_reverse() {
    let cluster = Cluster::whole(1).await;
    cluster.create(ALL, set(3, "wait", json!({}))).await;
    for number in 0..3 {
        let upto: Vec<String> = (0..=number).map(|n| format!("ss-{n}")).collect();
        let upto: Vec<&str> = upto.iter().map(String::as_str).collect();
        names(&cluster, &upto).await;
        cluster
            .stays(PODS, |list| list["items"].as_array().is_some_and(|pods| pods.len() == upto.len()))
            .await;
        ready(&cluster, upto[number], true).await;
    }
    cluster.until(&format!("{ALL}/ss"), |set| set["status"]["readyReplicas"] == 3).await;
    // With unhealthy pods, neither more nor fewer.
    for pod in ["ss-0", "ss-1", "ss-2"] {
        ready(&cluster, pod, false).await;
    }
    cluster
        .until(&format!("{ALL}/ss"), |set| set["status"]["readyReplicas"].as_i64().unwrap_or(0) == 0)
        .await;
    cluster.patch(&format!("{ALL}/ss"), json!({"spec": {"replicas": 0}})).await;
    cluster.stays(PODS, |list| list["items"].as_array().is_some_and(|pods| pods.len() == 3)).await;
    let version =
        cluster.get(PODS).await["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let mut watch = cluster.watch(&format!("{PODS}?resourceVersion={version}")).await;
    // The last one goes as soon as it is the only unhealthy one.
    for pod in ["ss-0", "ss-1"] {
        ready(&cluster, pod, true).await;
    }
    for wanted in ["ss-2", "ss-1", "ss-0"] {
        let gone = watch.see("DELETED", |_| true).await;
        assert_eq!(name(&gone), wanted);
    }
}

/// Holds AP-53, AP-56.
#[tokio::test(flavor = "multi_thread")]
async fn parallel_pods_wait_for_nobody() {
    let cluster = Cluster::whole(1).await;
    cluster.create(ALL, set(2, "wait", json!({"podManagementPolicy": "Parallel"}))).await;
    names(&cluster, &["ss-0", "ss-1"]).await;
    let scale = format!("{ALL}/ss/scale");
    assert_eq!(cluster.get(&scale).await["spec"]["replicas"], 2);
    cluster.update(&scale, |scale| scale["spec"]["replicas"] = json!(4)).await;
    names(&cluster, &["ss-0", "ss-1", "ss-2", "ss-3"]).await;
    let patched = cluster.patch(&scale, json!({"spec": {"replicas": 1}})).await;
    assert_eq!((&patched["kind"], &patched["spec"]["replicas"]), (&json!("Scale"), &json!(1)));
    names(&cluster, &["ss-0"]).await;
}

/// Holds AP-55.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_failed_comes_again() {
    let cluster = Cluster::whole(1).await;
    cluster.create(ALL, set(1, "run", json!({}))).await;
    let path = format!("{PODS}/ss-0");
    let first = cluster.until(&path, is_ready).await;
    let evicted = json!({"status": {"phase": "Failed", "reason": "NodePorts", "message": "Node didn't have free ports"}});
    cluster.patch(&format!("{path}/status"), evicted).await;
    cluster.until(&path, |pod| pod["metadata"]["uid"] != first["metadata"]["uid"] && is_ready(pod)).await;
}

/// The revision of a pod.
fn revision(pod: &Value) -> &str {
    pod["metadata"]["labels"]["controller-revision-hash"].as_str().unwrap_or_default()
}

async fn image(cluster: &Cluster, image: &str) -> Value {
    let container = json!({"name": "main", "image": image, "args": ["run"]});
    cluster
        .patch(&format!("{ALL}/ss"), json!({"spec": {"template": {"spec": {"containers": [container]}}}}))
        .await;
    cluster
        .until(&format!("{ALL}/ss"), |set| {
            set["status"]["observedGeneration"] == set["metadata"]["generation"]
        })
        .await
}

async fn revisions(cluster: &Cluster, wanted: &[&Value]) {
    cluster
        .until(PODS, |list| {
            let mut pods: Vec<&Value> = list["items"].as_array().into_iter().flatten().collect();
            pods.sort_by_key(|pod| name(pod));
            pods.len() == wanted.len()
                && pods.iter().all(|pod| is_ready(pod))
                && pods
                    .iter()
                    .zip(wanted)
                    .all(|(pod, wanted)| revision(pod) == wanted.as_str().unwrap_or_default())
        })
        .await;
}

/// Holds AP-59.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_rolls_and_rolls_back() {
    let cluster = Cluster::whole(1).await;
    cluster.create(ALL, set(3, "run", json!({}))).await;
    let first = cluster.until(&format!("{ALL}/ss"), |set| set["status"]["readyReplicas"] == 3).await;
    let old = first["status"]["currentRevision"].clone();
    assert_eq!(old, first["status"]["updateRevision"]);
    let rolling = image(&cluster, "other").await;
    let new = rolling["status"]["updateRevision"].clone();
    assert_ne!(old, new);
    revisions(&cluster, &[&new, &new, &new]).await;
    let done = cluster.until(&format!("{ALL}/ss"), |set| set["status"]["currentRevision"] == new).await;
    assert_eq!(done["status"]["updatedReplicas"], 3);
    let back = image(&cluster, "registry.example/image:1").await;
    assert_eq!(back["status"]["updateRevision"], old, "an old template has its old revision");
    revisions(&cluster, &[&old, &old, &old]).await;
}

/// Holds AP-58.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_holds_pods_back() {
    let cluster = Cluster::whole(1).await;
    let partition = |partition: u32| json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}});
    cluster.create(ALL, set(3, "run", partition(3))).await;
    let first = cluster.until(&format!("{ALL}/ss"), |set| set["status"]["readyReplicas"] == 3).await;
    let old = first["status"]["currentRevision"].clone();
    let waiting = image(&cluster, "other").await;
    let new = waiting["status"]["updateRevision"].clone();
    cluster
        .stays(PODS, |list| {
            list["items"].as_array().is_some_and(|pods| pods.iter().all(|pod| revision(pod) == old))
        })
        .await;
    cluster.patch(&format!("{ALL}/ss"), json!({"spec": partition(2)})).await;
    revisions(&cluster, &[&old, &old, &new]).await;
    // Deleted pods come back as their side of the partition says.
    for pod in ["ss-0", "ss-2"] {
        cluster.ok("DELETE", &format!("{PODS}/{pod}?gracePeriodSeconds=0"), None).await;
    }
    revisions(&cluster, &[&old, &old, &new]).await;
    for (number, wanted) in [(1, [&old, &new, &new]), (0, [&new, &new, &new])] {
        cluster.patch(&format!("{ALL}/ss"), json!({"spec": partition(number)})).await;
        revisions(&cluster, &wanted).await;
    }
}
