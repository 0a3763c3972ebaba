//! Deployments: how new pods replace old ones.

use serde_json::{Value, json};

use super::{Cluster, condition, is_ready, name, template};

const ALL: &str = "/apis/apps/v1/namespaces/default/deployments";
const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn deployment(name: &str, replicas: u32, more: Value) -> Value {
    let mut spec =
        json!({"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template(name)});
    spec.as_object_mut().expect("a map").extend(more.as_object().cloned().unwrap_or_default());
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec})
}

fn complete(deployment: &Value) -> bool {
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    status["observedGeneration"] == deployment["metadata"]["generation"]
        && spec["replicas"].as_i64().is_some_and(|n| {
            ["replicas", "updatedReplicas", "availableReplicas"].iter().all(|f| count(f) == n)
        })
}

async fn image(cluster: &Cluster, path: &str, image: &str) {
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"image": image}}}}});
    cluster.patch(path, patch).await;
}

/// Holds AP-15.
#[tokio::test(flavor = "multi_thread")]
async fn recreate_lets_no_two_generations_run() {
    let cluster = Cluster::whole(1).await;
    let made = deployment("re", 1, json!({"strategy": {"type": "Recreate"}}));
    cluster.create(ALL, made).await;
    let path = format!("{ALL}/re");
    cluster.until(&path, complete).await;
    let version =
        cluster.get(PODS).await["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let old = name(&cluster.items(PODS).await[0]).to_owned();
    let mut watch = cluster.watch(&format!("{PODS}?resourceVersion={version}")).await;
    image(&cluster, &path, "2").await;
    let mut gone = false;
    loop {
        let (kind, pod) = watch.next().await;
        gone |= kind == "DELETED" && name(&pod) == old;
        if name(&pod) != old {
            assert!(gone, "a new pod while the old one is there: {pod}");
            break;
        }
    }
    cluster.until(&path, complete).await;
}

/// A deployment takes over a ReplicaSet that has its template, and rolls it.
///
/// Holds AP-16.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_update_adopts_and_replaces() {
    let cluster = Cluster::whole(1).await;
    let mut old = deployment("roll", 1, json!({}));
    old["metadata"]["name"] = json!("older");
    old["metadata"]["annotations"] = json!({"deployment.kubernetes.io/revision": "3546343826724305832"});
    old["spec"]["template"]["metadata"]["annotations"] = json!({"image": "old"});
    cluster.create(SETS, old).await;
    cluster.until(&format!("{SETS}/older"), |set| set["status"]["readyReplicas"] == 1).await;
    cluster.create(ALL, deployment("roll", 1, json!({}))).await;
    let path = format!("{ALL}/roll");
    let done = cluster.until(&path, complete).await;
    assert_eq!(done["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3546343826724305833");
    let older = cluster.until(&format!("{SETS}/older"), |set| set["status"]["replicas"] == 0).await;
    assert_eq!(older["metadata"]["ownerReferences"][0]["uid"], done["metadata"]["uid"], "adopted");
    assert_eq!(older["spec"]["replicas"], 0);
    assert_eq!(cluster.items(SETS).await.len(), 2);
    assert_eq!(condition(&done, "Progressing"), "True");
}

/// Holds AP-17.
#[tokio::test(flavor = "multi_thread")]
async fn old_replica_sets_are_cleaned_up() {
    let cluster = Cluster::whole(1).await;
    cluster.create(ALL, deployment("tidy", 1, json!({"revisionHistoryLimit": 0}))).await;
    let path = format!("{ALL}/tidy");
    cluster.until(&path, complete).await;
    image(&cluster, &path, "2").await;
    cluster.until(&path, complete).await;
    let left = cluster.count(SETS, 1).await;
    assert_eq!(left[0]["spec"]["template"]["metadata"]["annotations"]["image"], "2");
}

/// During a rollout that is stuck, a scale-up is spread over both ReplicaSets by their sizes.
///
/// Holds AP-18.
#[tokio::test(flavor = "multi_thread")]
async fn a_scale_up_is_spread_by_proportion() {
    let cluster = Cluster::whole(1).await;
    let strategy =
        json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}});
    cluster.create(ALL, deployment("prop", 10, strategy)).await;
    let path = format!("{ALL}/prop");
    cluster.until(&path, complete).await;
    let wait = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "registry.example/none:404", "args": ["wait"]}]}}}});
    cluster.patch(&path, wait).await;
    // Eight of the old and five of the new: as far as it goes.
    let sizes = async |wanted: [i64; 2]| {
        cluster
            .until(SETS, |sets| {
                let mut found: Vec<i64> = sets["items"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|s| s["spec"]["replicas"].as_i64())
                    .collect();
                found.sort_unstable();
                found == wanted
            })
            .await
    };
    sizes([5, 8]).await;
    cluster.until(&path, |d| d["status"]["observedGeneration"] == d["metadata"]["generation"]).await;
    cluster.patch(&path, json!({"spec": {"replicas": 30}})).await;
    // 33 pods, those that are new by proportion of 5 to 13.
    sizes([13, 20]).await;
}

/// Holds AP-19.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_template_takes_over_a_rollout() {
    let cluster = Cluster::whole(1).await;
    let strategy =
        json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}});
    cluster.create(ALL, deployment("over", 2, strategy)).await;
    let path = format!("{ALL}/over");
    cluster.until(&path, complete).await;
    let stuck = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "x", "args": ["wait"]}]}}}});
    cluster.patch(&path, stuck).await;
    cluster
        .until(SETS, |sets| {
            sets["items"]
                .as_array()
                .is_some_and(|s| s.len() == 2 && s.iter().any(|s| s["status"]["replicas"] == 1))
        })
        .await;
    let fine = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "y", "args": ["run"]}]}}}});
    cluster.patch(&path, fine).await;
    cluster.until(&path, complete).await;
    cluster
        .until(SETS, |sets| {
            sets["items"].as_array().is_some_and(|sets| {
                sets.len() == 3
                    && sets.iter().all(|set| {
                        let current = set["spec"]["template"]["spec"]["containers"][0]["image"] == "y";
                        set["status"]["replicas"] == if current { 2 } else { 0 }
                    })
            })
        })
        .await;
}

/// Holds AP-20, AP-14.
#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_deployment_is_seen() {
    let cluster = Cluster::whole(1).await;
    let version =
        cluster.get(ALL).await["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let mut watch = cluster.watch(&format!("{ALL}?labelSelector=app%3Dlife&resourceVersion={version}")).await;
    cluster.create(ALL, deployment("life", 1, json!({}))).await;
    watch.see("ADDED", |d| name(d) == "life").await;
    watch.see("MODIFIED", complete).await;
    let path = format!("{ALL}/life");
    cluster.patch(&path, json!({"metadata": {"labels": {"patched": "yes"}}, "spec": {"replicas": 2}})).await;
    watch.see("MODIFIED", |d| d["metadata"]["labels"]["patched"] == "yes" && complete(d)).await;
    let scale = format!("{path}/scale");
    assert_eq!(cluster.get(&scale).await["status"]["replicas"], 2);
    cluster.update(&scale, |scale| scale["spec"]["replicas"] = json!(1)).await;
    watch.see("MODIFIED", |d| d["spec"]["replicas"] == 1 && complete(d)).await;
    cluster.patch(&scale, json!({"spec": {"replicas": 3}})).await;
    watch.see("MODIFIED", |d| d["spec"]["replicas"] == 3 && complete(d)).await;
    let told = json!({"status": {"conditions": [{"type": "StatusPatched", "status": "True"}]}});
    cluster.patch(&format!("{path}/status"), told).await;
    watch.see("MODIFIED", |d| condition(d, "StatusPatched") == "True").await;
    cluster.ok("DELETE", &format!("{ALL}?labelSelector=patched%3Dyes"), None).await;
    watch.see("DELETED", |d| name(d) == "life").await;
}

/// An eviction waits for the budget; the budget is told by its controller.
///
/// Holds AP-23, AP-25.
#[tokio::test(flavor = "multi_thread")]
async fn evictions_obey_the_budget() {
    const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let cluster = Cluster::whole(1).await;
    cluster.create(ALL, deployment("pdb", 3, json!({}))).await;
    cluster.until(&format!("{ALL}/pdb"), complete).await;
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 3, "selector": {"matchLabels": {"app": "pdb"}}}});
    cluster.create(BUDGETS, budget).await;
    let path = format!("{BUDGETS}/b");
    let told = cluster
        .until(&path, |b| b["status"]["observedGeneration"] == 1 && b["status"]["currentHealthy"] == 3)
        .await;
    assert_eq!(
        (&told["status"]["disruptionsAllowed"], &told["status"]["expectedPods"]),
        (&json!(0), &json!(3))
    );
    let pod = name(&cluster.items(PODS).await[0]).to_owned();
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "default"}});
    let evict = format!("{PODS}/{pod}/eviction");
    let refused = cluster.refused("POST", &evict, Some(eviction.clone()), 429).await;
    assert_eq!(refused["reason"], "TooManyRequests");
    assert_eq!(refused["details"]["causes"][0]["reason"], "DisruptionBudget", "{refused}");
    cluster.patch(&path, json!({"spec": {"minAvailable": 2}})).await;
    cluster.until(&path, |b| b["status"]["disruptionsAllowed"] == 1).await;
    cluster.create(&evict, eviction).await;
    cluster
        .until(PODS, |list| {
            list["items"].as_array().is_some_and(|pods| {
                pods.iter().all(|p| name(p) != pod) && pods.iter().filter(|p| is_ready(p)).count() == 3
            })
        })
        .await;
}
