//! Where pods go, where they can't, and who makes way: the real scheduler over nodes that are played.

use serde_json::{Value, json};

use super::{Cluster, condition, is_ready, name, nodes, pod_spec, template};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str, more: Value) -> Value {
    let mut spec = pod_spec(&["run"]);
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

fn asking(name: &str, resource: &str, amount: &str, more: Value) -> Value {
    let mut pod = pod(name, more);
    let amounts = json!({resource: amount});
    pod["spec"]["containers"][0]["resources"] = json!({"requests": amounts, "limits": amounts});
    pod
}

async fn runs(cluster: &Cluster, pod: &str) -> Value {
    cluster.until(&format!("{PODS}/{pod}"), is_ready).await
}

async fn waits(cluster: &Cluster, pod: &str) {
    let path = format!("{PODS}/{pod}");
    cluster.until(&path, |pod| condition(pod, "PodScheduled") == "False").await;
    cluster.stays(&path, |pod| pod["spec"].get("nodeName").is_none()).await;
}

/// Holds SC-03.
#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_waits() {
    let cluster = Cluster::whole(1).await;
    cluster.create(PODS, asking("most", "cpu", "12", json!({}))).await;
    runs(&cluster, "most").await;
    cluster.create(PODS, asking("rest", "cpu", "4", json!({}))).await;
    runs(&cluster, "rest").await;
    cluster.create(PODS, asking("more", "cpu", "1", json!({}))).await;
    waits(&cluster, "more").await;
    cluster.ok("DELETE", &format!("{PODS}/rest?gracePeriodSeconds=0"), None).await;
    runs(&cluster, "more").await;
    // An extended resource, and what the runtime takes for itself.
    let amounts = json!({"status": {"capacity": {"example.com/beardsecond": "1000"}, "allocatable": {"example.com/beardsecond": "1000"}}});
    cluster.patch("/api/v1/nodes/node-0/status", amounts).await;
    let class = json!({"metadata": {"name": "heavy"}, "handler": "h", "overhead": {"podFixed": {"example.com/beardsecond": "250"}}});
    cluster.create("/apis/node.k8s.io/v1/runtimeclasses", class).await;
    let heavy = json!({"runtimeClassName": "heavy"});
    cluster.create(PODS, asking("filler", "example.com/beardsecond", "700", heavy.clone())).await;
    runs(&cluster, "filler").await;
    cluster.create(PODS, asking("little", "example.com/beardsecond", "200", heavy)).await;
    waits(&cluster, "little").await;
}

/// Holds SC-04, SC-05.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_selector_selects() {
    let cluster = Cluster::whole(2).await;
    cluster.create(PODS, pod("nowhere", json!({"nodeSelector": {"label": "nonempty"}}))).await;
    waits(&cluster, "nowhere").await;
    cluster.patch("/api/v1/nodes/node-1", json!({"metadata": {"labels": {"random": "42"}}})).await;
    cluster
        .create(
            PODS,
            pod("there", json!({"nodeSelector": {"random": "42", "kubernetes.io/hostname": "node-1"}})),
        )
        .await;
    assert_eq!(runs(&cluster, "there").await["spec"]["nodeName"], "node-1");
    waits(&cluster, "nowhere").await;
}

fn with_port(name: &str, address: &str) -> Value {
    let mut pod = pod(name, json!({}));
    let mut port = json!({"containerPort": 8080, "hostPort": 54322, "protocol": "TCP"});
    if !address.is_empty() {
        port["hostIP"] = json!(address);
    }
    pod["spec"]["containers"][0]["ports"] = json!([port]);
    pod
}

/// Holds SC-06.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_all_addresses_conflicts_with_each() {
    let cluster = Cluster::whole(1).await;
    cluster.create(PODS, with_port("all", "0.0.0.0")).await;
    runs(&cluster, "all").await;
    cluster.create(PODS, with_port("one", "127.0.0.1")).await;
    waits(&cluster, "one").await;
}

async fn priorities(cluster: &Cluster, classes: &[(&str, i64)]) {
    for (name, value) in classes {
        cluster
            .create(
                "/apis/scheduling.k8s.io/v1/priorityclasses",
                json!({"metadata": {"name": name}, "value": value}),
            )
            .await;
    }
}

/// Holds SC-09, SC-10.
#[tokio::test(flavor = "multi_thread")]
async fn the_lowest_makes_way() {
    let cluster = Cluster::whole(2).await;
    priorities(&cluster, &[("low", 1), ("medium", 100), ("high", 1000)]).await;
    for (name, class) in [("low", "low"), ("medium", "medium")] {
        cluster.create(PODS, asking(name, "cpu", "10", json!({"priorityClassName": class}))).await;
        runs(&cluster, name).await;
    }
    cluster.create(PODS, asking("high", "cpu", "10", json!({"priorityClassName": "high"}))).await;
    runs(&cluster, "high").await;
    cluster.gone(&format!("{PODS}/low")).await;
    runs(&cluster, "medium").await;
    // A pod the cluster can't do without, of its own namespace.
    let system = "/api/v1/namespaces/kube-system/pods";
    cluster.until("/api/v1/namespaces/kube-system/serviceaccounts/default", |_| true).await;
    cluster
        .create(
            system,
            asking("critical", "cpu", "10", json!({"priorityClassName": "system-cluster-critical"})),
        )
        .await;
    cluster.until(&format!("{system}/critical"), is_ready).await;
    cluster.gone(&format!("{PODS}/medium")).await;
    runs(&cluster, "high").await;
}

/// Who is preempted is told why, while a finalizer keeps it.
///
/// Holds SC-11.
#[tokio::test(flavor = "multi_thread")]
async fn who_makes_way_is_told() {
    let cluster = Cluster::whole(1).await;
    priorities(&cluster, &[("low", 1), ("high", 1000)]).await;
    let mut victim = asking("victim", "cpu", "10", json!({"priorityClassName": "low"}));
    victim["metadata"]["finalizers"] = json!(["example.com/test-finalizer"]);
    cluster.create(PODS, victim).await;
    runs(&cluster, "victim").await;
    cluster.create(PODS, asking("high", "cpu", "10", json!({"priorityClassName": "high"}))).await;
    let told = cluster
        .until(&format!("{PODS}/victim"), |pod| {
            pod["metadata"].get("deletionTimestamp").is_some() && condition(pod, "DisruptionTarget") == "True"
        })
        .await;
    let conditions = told["status"]["conditions"].as_array().expect("conditions");
    assert!(conditions.iter().any(|c| c["reason"] == "PreemptionByScheduler"), "{told}");
    cluster.patch(&format!("{PODS}/victim"), json!({"metadata": {"finalizers": null}})).await;
    runs(&cluster, "high").await;
}

/// ReplicaSets of four priorities share a resource that is not enough for all.
///
/// Holds SC-07.
#[tokio::test(flavor = "multi_thread")]
async fn preemption_ends_with_the_expected_replicas() {
    const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
    let cluster = Cluster::whole(0).await;
    let mut node = nodes::node("node-0", "64");
    for part in ["capacity", "allocatable"] {
        node["status"][part]["example.com/fakecpu"] = json!("1000");
    }
    cluster.create("/api/v1/nodes", node).await;
    let lease = json!({"metadata": {"name": "node-0"}, "spec": {"renewTime": "2100-01-01T00:00:00.000000Z"}});
    cluster.create("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", lease).await;
    priorities(&cluster, &[("p1", 1), ("p2", 2), ("p3", 3), ("p4", 4)]).await;
    for (number, replicas, each) in [(1, 5, "200"), (2, 4, "300"), (3, 4, "450"), (4, 1, "10")] {
        let name = format!("rs-{number}");
        let mut template = template(&name);
        template["spec"]["priorityClassName"] = json!(format!("p{number}"));
        template["spec"]["containers"][0]["resources"] =
            json!({"requests": {"example.com/fakecpu": each}, "limits": {"example.com/fakecpu": each}});
        let spec =
            json!({"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template});
        cluster.create(SETS, json!({"metadata": {"name": name}, "spec": spec})).await;
        // As many of the new as fit, whatever was there.
        let fit = [5, 3, 2, 1][number - 1];
        cluster
            .until(&format!("{SETS}/{name}"), |set| {
                set["status"]["readyReplicas"].as_i64().unwrap_or(0) == fit
            })
            .await;
    }
    // 2 x 450 + 10 leaves 90: nothing of the others fits.
    for (number, fit) in [(1, 0), (2, 0), (3, 2), (4, 1)] {
        cluster
            .until(&format!("{SETS}/rs-{number}"), |set| {
                set["status"]["readyReplicas"].as_i64().unwrap_or(0) == fit
            })
            .await;
    }
    cluster
        .stays(PODS, |list| {
            let bound = list["items"].as_array().into_iter().flatten().filter(|pod| is_ready(pod));
            bound.map(name).count() == 3
        })
        .await;
}

/// Holds NO-79, NO-80.
#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_class_adds_its_overhead() {
    let cluster = Cluster::whole(1).await;
    let classes = "/apis/node.k8s.io/v1/runtimeclasses";
    cluster.create(classes, json!({"metadata": {"name": "plain"}, "handler": "h"})).await;
    let overhead = json!({"cpu": "10m", "memory": "1Mi"});
    cluster
        .create(
            classes,
            json!({"metadata": {"name": "heavy"}, "handler": "h", "overhead": {"podFixed": overhead}}),
        )
        .await;
    cluster.create(PODS, pod("plain", json!({"runtimeClassName": "plain"}))).await;
    assert!(runs(&cluster, "plain").await["spec"].get("overhead").is_none());
    cluster.create(PODS, pod("heavy", json!({"runtimeClassName": "heavy"}))).await;
    assert_eq!(runs(&cluster, "heavy").await["spec"]["overhead"], overhead);
}
