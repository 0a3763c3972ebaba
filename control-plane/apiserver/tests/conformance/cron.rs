//! CronJobs: what they do at their time, when the last run goes on. It takes a minute by the clock.

use serde_json::{Value, json};

use super::{Cluster, name, pod_spec};

const ALL: &str = "/apis/batch/v1/namespaces/default/cronjobs";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";

async fn every_minute(cluster: &Cluster, policy: &str, suspend: bool) {
    let mut pod = pod_spec(&["run"]);
    pod["restartPolicy"] = json!("OnFailure");
    let spec = json!({"schedule": "*/1 * * * *", "concurrencyPolicy": policy, "suspend": suspend,
        "jobTemplate": {"spec": {"parallelism": 1, "template": {"spec": pod}}}});
    let name = if suspend { "suspended".to_owned() } else { policy.to_lowercase() };
    cluster.create(ALL, json!({"metadata": {"name": name}, "spec": spec})).await;
    if !suspend {
        // It ran last before the minute that is now.
        let past = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(61);
        let past = past.strftime("%Y-%m-%dT%H:%M:00Z").to_string();
        cluster.patch(&format!("{ALL}/{name}/status"), json!({"status": {"lastScheduleTime": past}})).await;
    }
}

async fn jobs(cluster: &Cluster, of: &str) -> Vec<Value> {
    let mut jobs = cluster.items(JOBS).await;
    jobs.retain(|job| {
        job["metadata"]["ownerReferences"][0]["name"] == of
            && job["metadata"].get("deletionTimestamp").is_none()
    });
    jobs
}

/// Holds AP-02, AP-03, AP-04, AP-05.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_is_as_the_policy_says() {
    let cluster = Cluster::whole(1).await;
    for policy in ["Allow", "Forbid", "Replace"] {
        every_minute(&cluster, policy, false).await;
    }
    every_minute(&cluster, "Allow", true).await;
    let mut first = Vec::new();
    for of in ["allow", "forbid", "replace"] {
        let path = format!("{ALL}/{of}");
        cluster
            .until(&path, |cron| cron["status"]["active"].as_array().is_some_and(|active| active.len() == 1))
            .await;
        first.push(name(&jobs(&cluster, of).await[0]).to_owned());
    }
    let began = tokio::time::Instant::now();
    loop {
        let allowed = jobs(&cluster, "allow").await;
        let replaced = jobs(&cluster, "replace").await;
        if allowed.len() > 1 && replaced.iter().any(|job| name(job) != first[2]) {
            break;
        }
        assert!(began.elapsed().as_secs() < 100, "no second run: {allowed:?} {replaced:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let active = cluster
        .until(&format!("{ALL}/allow"), |cron| {
            cron["status"]["active"].as_array().is_some_and(|a| a.len() > 1)
        })
        .await;
    assert!(active["status"]["lastScheduleTime"].is_string());
    cluster.gone(&format!("{JOBS}/{}", first[2])).await;
    assert_eq!(jobs(&cluster, "replace").await.len(), 1, "the old run makes way");
    let forbidden = jobs(&cluster, "forbid").await;
    assert_eq!(
        forbidden.iter().map(name).collect::<Vec<_>>(),
        [first[1].as_str()],
        "the old run goes on alone"
    );
    assert!(jobs(&cluster, "suspended").await.is_empty());
}
