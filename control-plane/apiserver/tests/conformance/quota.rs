//! Quotas: what they count, what they refuse, what they give back.

use serde_json::{Value, json};

use super::{Cluster, pod_spec, template};

const SPACE: &str = "/api/v1/namespaces/q";
const QUOTAS: &str = "/api/v1/namespaces/q/resourcequotas";

async fn start(hard: Value, scopes: Value) -> Cluster {
    let cluster = Cluster::whole(0).await;
    cluster.namespace("q").await;
    // What a namespace has by itself is there before it is counted.
    cluster.until(&format!("{SPACE}/configmaps/kube-root-ca.crt"), |_| true).await;
    cluster.until(&format!("{SPACE}/serviceaccounts/default"), |_| true).await;
    let mut quota = json!({"metadata": {"name": "quota"}, "spec": {"hard": hard}});
    if !scopes.is_null() {
        quota["spec"]["scopes"] = scopes;
    }
    cluster.create(QUOTAS, quota).await;
    cluster
}

#[track_caller]
fn used<'a>(cluster: &'a Cluster, wanted: Value) -> impl Future<Output = Value> + 'a {
    cluster.until("/api/v1/namespaces/q/resourcequotas/quota", move |quota| {
        let used = &quota["status"]["used"];
        quota["status"]["hard"] == quota["spec"]["hard"]
            && wanted
                .as_object()
                .is_some_and(|wanted| wanted.iter().all(|(key, amount)| used[key] == *amount))
    })
}

fn pod(name: &str, requests: Value) -> Value {
    let mut pod = json!({"metadata": {"name": name}, "spec": pod_spec(&["run"])});
    if !requests.is_null() {
        pod["spec"]["containers"][0]["resources"] = json!({"requests": requests, "limits": requests});
    }
    pod
}

/// Holds AM-88, AM-80, AM-81.
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_tells_changes_and_goes() {
    let hard = json!({"pods": "5", "services": "10", "secrets": "10", "requests.cpu": "1", "count/replicasets.apps": "5"});
    let cluster = start(hard, Value::Null).await;
    used(&cluster, json!({"pods": "0", "services": "0", "secrets": "0", "requests.cpu": "0", "count/replicasets.apps": "0"})).await;
    let path = format!("{QUOTAS}/quota");
    cluster.update(&path, |quota| quota["spec"]["hard"] = json!({"pods": "3", "cpu": "2"})).await;
    let found = used(&cluster, json!({"pods": "0", "cpu": "0"})).await;
    assert_eq!(found["status"]["hard"], json!({"cpu": "2", "pods": "3"}));
    // What is written into the status does not change the spec, and the status follows the spec again.
    let status = format!("{path}/status");
    let patched = cluster
        .patch(
            &status,
            json!({"spec": {"hard": {"pods": "9"}}, "status": {"hard": {"pods": "9", "cpu": "9"}}}),
        )
        .await;
    assert_eq!(patched["spec"]["hard"]["pods"], "3", "{patched}");
    assert_eq!(patched["status"]["hard"]["pods"], "9", "{patched}");
    let written = cluster.get(&status).await;
    assert_eq!(written["metadata"]["name"], "quota");
    cluster.update(&status, |quota| quota["status"]["hard"] = json!({"pods": "8", "cpu": "8"})).await;
    used(&cluster, json!({"pods": "0", "cpu": "0"})).await;
    cluster.delete(&path).await;
    cluster.refused("GET", &path, None, 404).await;
    cluster.create(&format!("{SPACE}/pods"), pod("free", Value::Null)).await;
}

/// Each of the kinds that are counted: one more is one more, and one less when it goes.
///
/// Holds AM-82, AM-84, AM-85, AM-86, AM-87.
#[tokio::test(flavor = "multi_thread")]
async fn objects_are_counted_and_given_back() {
    let hard = json!({"configmaps": "2", "secrets": "1", "count/replicasets.apps": "1", "replicationcontrollers": "1",
        "services": "4", "services.nodeports": "2", "services.loadbalancers": "1"});
    let cluster = start(hard, Value::Null).await;
    used(&cluster, json!({"configmaps": "1", "secrets": "0", "services": "0"})).await;
    let none = json!({"replicas": 0, "selector": {"matchLabels": {"app": "a"}}, "template": template("a")});
    let mut controller = none.clone();
    controller["selector"] = json!({"app": "a"});
    for (resource, path, body, before, after) in [
        ("configmaps", format!("{SPACE}/configmaps"), json!({"data": {"a": "b"}}), "1", "2"),
        ("secrets", format!("{SPACE}/secrets"), json!({"data": {"a": "Yg=="}}), "0", "1"),
        (
            "count/replicasets.apps",
            "/apis/apps/v1/namespaces/q/replicasets".to_owned(),
            json!({"spec": none}),
            "0",
            "1",
        ),
        (
            "replicationcontrollers",
            format!("{SPACE}/replicationcontrollers"),
            json!({"spec": controller}),
            "0",
            "1",
        ),
    ] {
        let mut object = body.clone();
        object["metadata"] = json!({"name": "one"});
        cluster.create(&path, object.clone()).await;
        used(&cluster, json!({resource: after})).await;
        object["metadata"]["name"] = json!("two");
        let refused = cluster.refused("POST", &path, Some(object), 403).await;
        assert!(
            refused["message"].as_str().is_some_and(|m| m.contains("exceeded quota: quota")),
            "{refused}"
        );
        cluster.delete(&format!("{path}/one")).await;
        used(&cluster, json!({resource: before})).await;
    }
    let service = |name: &str, kind: &str| json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}]}});
    let services = format!("{SPACE}/services");
    cluster.create(&services, service("cluster", "ClusterIP")).await;
    cluster.create(&services, service("node", "NodePort")).await;
    let mut balancer = service("balancer", "LoadBalancer");
    balancer["spec"]["allocateLoadBalancerNodePorts"] = json!(true);
    cluster.create(&services, balancer).await;
    used(&cluster, json!({"services": "3", "services.nodeports": "2", "services.loadbalancers": "1"})).await;
    cluster.refused("POST", &services, Some(service("more", "NodePort")), 403).await;
    cluster.refused("POST", &services, Some(service("more", "LoadBalancer")), 403).await;
    for name in ["cluster", "node", "balancer"] {
        cluster.delete(&format!("{services}/{name}")).await;
    }
    used(&cluster, json!({"services": "0", "services.nodeports": "0", "services.loadbalancers": "0"})).await;
}

/// Holds AM-83.
#[tokio::test(flavor = "multi_thread")]
async fn pods_are_counted_with_what_they_ask_for() {
    let hard = json!({"pods": "2", "requests.cpu": "1", "requests.memory": "500Mi", "requests.ephemeral-storage": "50Gi",
        "requests.example.com/dongle": "3"});
    let cluster = start(hard, Value::Null).await;
    used(&cluster, json!({"pods": "0"})).await;
    let pods = format!("{SPACE}/pods");
    let fits =
        json!({"cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi", "example.com/dongle": "2"});
    cluster.create(&pods, pod("fits", fits.clone())).await;
    used(
        &cluster,
        json!({"pods": "1", "requests.cpu": "500m", "requests.memory": "252Mi",
        "requests.ephemeral-storage": "30Gi", "requests.example.com/dongle": "2"}),
    )
    .await;
    for (field, amount) in
        [("cpu", "600m"), ("memory", "300Mi"), ("ephemeral-storage", "30Gi"), ("example.com/dongle", "2")]
    {
        let mut small =
            json!({"cpu": "100m", "memory": "100Mi", "ephemeral-storage": "1Gi", "example.com/dongle": "1"});
        small[field] = json!(amount);
        let refused = cluster.refused("POST", &pods, Some(pod("large", small)), 403).await;
        assert!(
            refused["message"].as_str().is_some_and(|m| m.contains(&format!("requests.{field}"))),
            "{refused}"
        );
    }
    // A pod may not grow either.
    let mut larger = cluster.get(&format!("{pods}/fits")).await;
    larger["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("100");
    let (status, answer) = cluster.server.send("PUT", &format!("{pods}/fits"), Some(larger)).await;
    assert!(status == 422 || status == 403, "{answer}");
    cluster.ok("DELETE", &format!("{pods}/fits?gracePeriodSeconds=0"), None).await;
    used(
        &cluster,
        json!({"pods": "0", "requests.cpu": "0", "requests.memory": "0", "requests.ephemeral-storage": "0",
        "requests.example.com/dongle": "0"}),
    )
    .await;
}

/// Holds AM-90, AM-91.
#[tokio::test(flavor = "multi_thread")]
async fn scopes_count_their_pods_alone() {
    let cluster = start(json!({"pods": "5"}), json!(["BestEffort"])).await;
    for scope in ["NotBestEffort", "Terminating", "NotTerminating"] {
        let quota = json!({"metadata": {"name": scope.to_lowercase()}, "spec": {"hard": {"pods": "5"}, "scopes": [scope]}});
        cluster.create(QUOTAS, quota).await;
    }
    let counts = async |wanted: [&'static str; 4]| {
        for (name, wanted) in
            ["quota", "notbesteffort", "terminating", "notterminating"].into_iter().zip(wanted)
        {
            cluster
                .until(&format!("{QUOTAS}/{name}"), |quota| quota["status"]["used"]["pods"] == wanted)
                .await;
        }
    };
    counts(["0", "0", "0", "0"]).await;
    let pods = format!("{SPACE}/pods");
    cluster.create(&pods, pod("best", Value::Null)).await;
    counts(["1", "0", "0", "1"]).await;
    cluster.ok("DELETE", &format!("{pods}/best?gracePeriodSeconds=0"), None).await;
    counts(["0", "0", "0", "0"]).await;
    let mut ends = pod("ends", json!({"cpu": "100m"}));
    ends["spec"]["activeDeadlineSeconds"] = json!(3600);
    cluster.create(&pods, ends).await;
    counts(["0", "1", "1", "0"]).await;
    cluster.ok("DELETE", &format!("{pods}/ends?gracePeriodSeconds=0"), None).await;
    counts(["0", "0", "0", "0"]).await;
}

/// Holds AM-89.
#[tokio::test(flavor = "multi_thread")]
async fn quotas_are_listed_everywhere_and_removed_by_label() {
    let cluster = Cluster::api().await;
    cluster.namespace("q").await;
    let quota =
        json!({"metadata": {"name": "e2e", "labels": {"e2e": "quota"}}, "spec": {"hard": {"pods": "5"}}});
    cluster.create(QUOTAS, quota).await;
    let everywhere = "/api/v1/resourcequotas?labelSelector=e2e%3Dquota";
    assert_eq!(cluster.items(everywhere).await.len(), 1);
    let patched = cluster
        .patch(
            &format!("{QUOTAS}/e2e"),
            json!({"metadata": {"labels": {"p": "yes"}}, "spec": {"hard": {"memory": "750Mi"}}}),
        )
        .await;
    assert_eq!(patched["spec"]["hard"], json!({"memory": "750Mi", "pods": "5"}));
    cluster.ok("DELETE", &format!("{QUOTAS}?labelSelector=p%3Dyes"), None).await;
    assert!(cluster.items(everywhere).await.is_empty());
}
