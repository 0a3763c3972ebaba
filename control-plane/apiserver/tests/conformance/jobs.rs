//! Jobs: how they succeed and fail, as a whole and by index.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Cluster, condition, name, pod_spec};

const ALL: &str = "/apis/batch/v1/namespaces/default/jobs";
const PODS: &str = "/api/v1/namespaces/default/pods";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

fn job(does: &[&str], more: Value) -> Value {
    let mut pod = pod_spec(does);
    pod["restartPolicy"] = json!("Never");
    let mut spec = json!({"template": {"spec": pod}});
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({"metadata": {"name": "j"}, "spec": spec})
}

async fn start(does: &[&str], more: Value) -> Cluster {
    let cluster = Cluster::whole(1).await;
    cluster.create(ALL, job(does, more)).await;
    cluster
}

async fn ends(cluster: &Cluster, kind: &str) -> Value {
    cluster.until(&format!("{ALL}/j"), |job| condition(job, kind) == "True").await
}

fn reason<'a>(job: &'a Value, kind: &str) -> &'a str {
    let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter(|c| c["type"] == kind).find_map(|c| c["reason"].as_str()).unwrap_or_default()
}

/// Holds AP-31.
#[tokio::test(flavor = "multi_thread")]
async fn each_index_has_a_pod_that_knows_it() {
    let cluster =
        start(&["exit", "0"], json!({"completions": 4, "parallelism": 2, "completionMode": "Indexed"})).await;
    let done = ends(&cluster, "Complete").await;
    assert_eq!(
        (&done["status"]["succeeded"], &done["status"]["completedIndexes"]),
        (&json!(4), &json!("0-3"))
    );
    let mut indexes: Vec<String> = Vec::new();
    for pod in cluster.items(PODS).await {
        let index = pod["metadata"]["annotations"][INDEX].as_str().expect("an index").to_owned();
        assert_eq!(pod["spec"]["hostname"], format!("j-{index}"));
        let env = pod["spec"]["containers"][0]["env"].as_array().expect("variables");
        assert!(env.iter().any(|v| v["name"] == "JOB_COMPLETION_INDEX"), "{pod}");
        indexes.push(index);
    }
    indexes.sort();
    assert_eq!(indexes, ["0", "1", "2", "3"]);
}

/// Holds AP-36.
#[tokio::test(flavor = "multi_thread")]
async fn tasks_may_fail_where_they_are_restarted() {
    let cluster = Cluster::whole(1).await;
    let mut task = job(&["fail-once"], json!({"completions": 4, "parallelism": 2}));
    task["spec"]["template"]["spec"]["restartPolicy"] = json!("OnFailure");
    cluster.create(ALL, task).await;
    let done = ends(&cluster, "Complete").await;
    assert_eq!(done["status"]["succeeded"], 4);
    let pods = cluster.items(PODS).await;
    assert_eq!(pods.len(), 4);
    assert!(
        pods.iter().all(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1),
        "restarted in place"
    );
}

/// Holds AP-32.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_takes_its_pods_with_it() {
    let cluster = start(&["run"], json!({"completions": 4, "parallelism": 2})).await;
    cluster.until(&format!("{ALL}/j"), |job| job["status"]["active"] == 2).await;
    cluster.delete_with(&format!("{ALL}/j"), "Foreground").await;
    cluster.gone(&format!("{ALL}/j")).await;
    cluster.count(PODS, 0).await;
}

/// Holds AP-27.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_adopts_and_releases() {
    let cluster = start(&["run"], json!({"completions": 4, "parallelism": 2})).await;
    let owner = cluster.until(&format!("{ALL}/j"), |job| job["status"]["active"] == 2).await;
    let pod = name(&cluster.items(PODS).await[0]).to_owned();
    let path = format!("{PODS}/{pod}");
    cluster.patch(&path, json!({"metadata": {"ownerReferences": null}})).await;
    cluster
        .until(&path, |pod| pod["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"])
        .await;
    cluster
        .patch(
            &path,
            json!({"metadata": {"labels": {"controller-uid": null, "batch.kubernetes.io/controller-uid": null,
        "job-name": null, "batch.kubernetes.io/job-name": null}}}),
        )
        .await;
    cluster.until(&path, |pod| pod["metadata"].get("ownerReferences").is_none()).await;
}

/// An eviction is no failure of the job.
///
/// Holds AP-28.
#[tokio::test(flavor = "multi_thread")]
async fn disruptions_may_be_ignored() {
    let policy = json!({"backoffLimit": 0, "completions": 1,
        "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]}});
    let cluster = start(&["run"], policy).await;
    let first =
        cluster.until(PODS, |list| list["items"][0]["status"]["phase"] == "Running").await["items"][0].take();
    let pod = name(&first).to_owned();
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}});
    // The container of an evicted pod fails.
    let path = format!("{PODS}/{pod}");
    cluster
        .patch(
            &path,
            json!({"metadata": {"finalizers": ["example.com/kept", "batch.kubernetes.io/job-tracking"]}}),
        )
        .await;
    cluster.create(&format!("{path}/eviction"), eviction).await;
    let evicted = cluster.until(&path, |pod| condition(pod, "DisruptionTarget") == "True").await;
    assert_eq!(reason(&evicted, "DisruptionTarget"), "EvictionByEvictionAPI");
    cluster.patch(&format!("{path}/status"), json!({"status": {"phase": "Failed"}})).await;
    let again = cluster
        .until(PODS, |list| {
            list["items"].as_array().is_some_and(|pods| {
                pods.iter().any(|other| name(other) != pod && other["status"]["phase"] == "Running")
            })
        })
        .await;
    cluster.patch(&path, json!({"metadata": {"finalizers": null}})).await;
    let second = again["items"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|other| name(other) != pod)
        .map(name)
        .unwrap_or_default()
        .to_owned();
    cluster.patch(&format!("{PODS}/{second}/status"), json!({"status": {"phase": "Succeeded"}})).await;
    let done = ends(&cluster, "Complete").await;
    assert_eq!(done["status"]["failed"].as_i64().unwrap_or(0), 0, "{done}");
}

/// Holds AP-29.
#[tokio::test(flavor = "multi_thread")]
async fn an_exit_code_may_fail_the_job() {
    let rule = json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}});
    let cluster =
        start(&["exit", "42"], json!({"backoffLimit": 6, "podFailurePolicy": {"rules": [rule]}})).await;
    let failed = ends(&cluster, "Failed").await;
    assert_eq!(reason(&failed, "Failed"), "PodFailurePolicy");
    assert_eq!(cluster.items(PODS).await.len(), 1, "there was no second try");
}

fn tries(pods: &[Value]) -> BTreeMap<&str, usize> {
    let mut tries = BTreeMap::new();
    for pod in pods {
        *tries.entry(pod["metadata"]["annotations"][INDEX].as_str().unwrap_or_default()).or_default() += 1;
    }
    tries
}

/// Holds AP-33.
#[tokio::test(flavor = "multi_thread")]
async fn each_index_fails_by_its_own_limit() {
    let spec =
        json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed", "backoffLimitPerIndex": 1});
    let cluster = start(&["fail-odd", "1"], spec).await;
    let failed = ends(&cluster, "Failed").await;
    assert_eq!(reason(&failed, "Failed"), "FailedIndexes");
    assert_eq!(
        (&failed["status"]["failedIndexes"], &failed["status"]["completedIndexes"]),
        (&json!("1,3"), &json!("0,2"))
    );
    assert_eq!((&failed["status"]["failed"], &failed["status"]["succeeded"]), (&json!(4), &json!(2)));
    let pods = cluster.items(PODS).await;
    assert_eq!(tries(&pods), BTreeMap::from([("0", 1), ("1", 2), ("2", 1), ("3", 2)]));
}

/// Holds AP-35.
#[tokio::test(flavor = "multi_thread")]
async fn an_exit_code_may_fail_an_index_at_once() {
    let rule = json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}});
    let spec = json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1,
        "podFailurePolicy": {"rules": [rule]}});
    let cluster = start(&["fail-odd", "42"], spec).await;
    let failed = ends(&cluster, "Failed").await;
    assert_eq!(
        (&failed["status"]["failedIndexes"], &failed["status"]["completedIndexes"]),
        (&json!("1"), &json!("0"))
    );
    assert_eq!(tries(&cluster.items(PODS).await), BTreeMap::from([("0", 1), ("1", 1)]));
}

/// Holds AP-37.
#[tokio::test(flavor = "multi_thread")]
async fn too_many_failed_indexes_end_the_job() {
    let spec = json!({"completions": 10, "parallelism": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 0, "maxFailedIndexes": 3});
    let cluster = start(&["exit", "1"], spec).await;
    let failed = ends(&cluster, "Failed").await;
    assert_eq!(reason(&failed, "Failed"), "MaxFailedIndexesExceeded");
    assert!(cluster.items(PODS).await.len() < 10);
}

fn with_policy(rule: Value) -> Value {
    json!({"completions": 5, "parallelism": 5, "completionMode": "Indexed", "successPolicy": {"rules": [rule]}})
}

/// Holds AP-38.
#[tokio::test(flavor = "multi_thread")]
async fn success_may_be_of_all_indexes() {
    let cluster = start(&["exit", "0"], with_policy(json!({"succeededIndexes": "0-4"}))).await;
    let done = ends(&cluster, "Complete").await;
    assert_eq!(condition(&done, "SuccessCriteriaMet"), "True", "{done}");
    assert_eq!(done["status"]["completedIndexes"], "0-4");
}

/// The pods of some indexes succeed, the others would run for ever.
async fn enough(rule: Value, succeed: &[&str]) {
    let cluster = start(&["run"], with_policy(rule)).await;
    let pods = cluster
        .until(PODS, |list| {
            list["items"].as_array().is_some_and(|pods| {
                pods.len() == 5 && pods.iter().all(|pod| pod["status"]["phase"] == "Running")
            })
        })
        .await;
    for pod in pods["items"].as_array().into_iter().flatten() {
        if succeed.contains(&pod["metadata"]["annotations"][INDEX].as_str().unwrap_or_default()) {
            cluster
                .patch(&format!("{PODS}/{}/status", name(pod)), json!({"status": {"phase": "Succeeded"}}))
                .await;
        }
    }
    let done = ends(&cluster, "Complete").await;
    assert_eq!(reason(&done, "SuccessCriteriaMet"), "SuccessPolicy", "{done}");
    assert_eq!(done["status"]["completedIndexes"], succeed.join(","));
    cluster
        .until(PODS, |list| {
            list["items"]
                .as_array()
                .is_some_and(|pods| pods.iter().all(|pod| pod["status"]["phase"] == "Succeeded"))
        })
        .await;
}

/// Holds AP-39.
#[tokio::test(flavor = "multi_thread")]
async fn success_may_be_of_some_count() {
    enough(json!({"succeededIndexes": "0-4", "succeededCount": 1}), &["2"]).await;
}

/// Holds AP-40.
#[tokio::test(flavor = "multi_thread")]
async fn success_may_be_of_certain_indexes() {
    enough(json!({"succeededIndexes": "0"}), &["0"]).await;
}

/// Holds AP-34, AP-30.
#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_job() {
    let cluster = Cluster::whole(1).await;
    let mut made = job(&["exit", "0"], json!({"suspend": true, "parallelism": 2, "completions": 2}));
    made["metadata"]["labels"] = json!({"e2e": "job"});
    cluster.create(ALL, made).await;
    let path = format!("{ALL}/j");
    cluster.until(&path, |job| condition(job, "Suspended") == "True").await;
    let patched = cluster.patch(&path, json!({"metadata": {"labels": {"patched": "yes"}}})).await;
    assert_eq!(patched["metadata"]["labels"]["patched"], "yes");
    cluster
        .update(&path, |job| {
            job["metadata"]["annotations"]["updated"] = json!("yes");
            job["spec"]["suspend"] = json!(false);
        })
        .await;
    ends(&cluster, "Complete").await;
    let status = format!("{path}/status");
    let told = cluster
        .update(&status, |job| {
            let more = json!({"type": "CustomConditionType", "status": "True", "reason": "E2E", "message": "m",
                "lastTransitionTime": "2026-01-01T00:00:00Z", "lastProbeTime": "2026-01-01T00:00:00Z"});
            job["status"]["conditions"].as_array_mut().expect("conditions").push(more);
        })
        .await;
    assert_eq!(condition(&told, "CustomConditionType"), "True");
    assert_eq!(cluster.items("/apis/batch/v1/jobs?labelSelector=e2e%3Djob").await.len(), 1);
    cluster
        .ok(
            "DELETE",
            &format!("{ALL}?labelSelector=e2e%3Djob"),
            Some(json!({"propagationPolicy": "Background"})),
        )
        .await;
    cluster.gone(&path).await;
    cluster.count(PODS, 0).await;
}
