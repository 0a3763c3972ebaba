//! Jobs against a little model of pods: each step is carried out, pods end.

use super::*;
use serde_json::json;

struct World {
    job: Job,
    pods: Vec<Arc<Pod>>,
    made: u32,
}

impl World {
    fn new(spec: &Value) -> Self {
        let job = json!({"metadata": {"name": "j", "namespace": "ns", "uid": "j"}, "spec": spec});
        let mut job: Job = serde_json::from_value(job).expect("job");
        job.spec.as_mut().expect("spec").template = k8s_openapi::api::core::v1::PodTemplateSpec::default();
        Self { job, pods: Vec::new(), made: 0 }
    }

    fn step(&mut self) -> Plan {
        let now = Timestamp::from_second(1_000).expect("time");
        let plan = plan(&Snapshot { job: &self.job, pods: &self.pods, settled: true, now });
        if let Some(status) = &plan.status {
            let mut status = status.clone();
            status.as_object_mut().expect("object").retain(|_, v| !v.is_null());
            self.job.status = Some(serde_json::from_value(status).expect("status"));
        }
        for pod in &plan.untrack {
            let known = self.pods.iter_mut().find(|p| p.metadata.uid == pod.metadata.uid).expect("known");
            Arc::make_mut(known).metadata.finalizers = None;
        }
        self.pods.retain(|p| !plan.delete.iter().any(|d| d.metadata.uid == p.metadata.uid));
        for start in &plan.create {
            self.made += 1;
            let mut pod = super::super::new_pod(&self.job, *start);
            pod.metadata.uid = Some(format!("p{}", self.made));
            self.pods.push(Arc::new(pod));
        }
        plan
    }

    /// The next pods' indexes.
    fn next(&mut self) -> Vec<u32> {
        self.step().create.iter().filter_map(|start| start.index).collect()
    }

    /// Ends the pod that runs for an index.
    fn end(&mut self, index: u32, phase: &str, code: i32) {
        let mine = |pod: &&mut Arc<Pod>| pods::is_active(pod) && index_of(pod) == Some(index);
        let pod = Arc::make_mut(self.pods.iter_mut().find(mine).expect("a pod runs"));
        let status = json!({"phase": phase, "containerStatuses": [{"name": "c", "image": "i", "imageID": "i",
            "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code}}}]});
        pod.status = Some(serde_json::from_value(status).expect("status"));
    }

    fn end_all(&mut self, phase: &str) {
        for pod in self.pods.iter_mut().filter(|p| pods::is_active(p)) {
            Arc::make_mut(pod).status.get_or_insert_default().phase = Some(phase.into());
        }
    }

    fn status(&self) -> JobStatus {
        self.job.status.clone().expect("status")
    }
}

#[test]
fn counts_each_pod_once_and_completes() {
    let mut world = World::new(&json!({"parallelism": 2, "completions": 3}));
    assert_eq!(world.step().create.len(), 2);
    world.end_all("Succeeded");
    assert_eq!(world.step().create.len(), 1, "one is left");
    for _ in 0..3 {
        assert!(world.step().create.is_empty());
    }
    world.end_all("Succeeded");
    for _ in 0..3 {
        world.step();
    }
    let status = world.status();
    assert_eq!((status.succeeded, status.active), (Some(3), Some(0)));
    assert!(has_condition(&status, "Complete") && has_condition(&status, "SuccessCriteriaMet"));
    assert!(status.uncounted_terminated_pods.is_none() && status.completion_time.is_some());
}

#[test]
fn indexed_runs_every_index_once() {
    let mut world = World::new(&json!({"parallelism": 3, "completions": 5, "completionMode": "Indexed"}));
    assert_eq!(world.next(), [0, 1, 2]);
    world.end_all("Succeeded");
    assert_eq!(world.next(), [3, 4]);
    world.end_all("Succeeded");
    for _ in 0..3 {
        world.step();
    }
    let status = world.status();
    assert_eq!(status.completed_indexes.as_deref(), Some("0-4"));
    assert_eq!(status.succeeded, Some(5));
    assert!(has_condition(&status, "Complete"));
}

#[test]
fn too_many_failures_end_it() {
    let mut world = World::new(&json!({"parallelism": 1, "completions": 1, "backoffLimit": 1}));
    for _ in 0..2 {
        world.step();
        world.end_all("Failed");
    }
    for _ in 0..3 {
        world.step();
    }
    let status = world.status();
    assert_eq!(status.failed, Some(2));
    assert!(has_condition(&status, "Failed") && !has_condition(&status, "Complete"));
}

#[test]
fn suspended_has_no_pods_and_resumes() {
    let mut world = World::new(&json!({"parallelism": 2, "completions": 2}));
    world.step();
    world.job.spec.as_mut().expect("spec").suspend = Some(true);
    world.step();
    assert!(world.pods.is_empty() && has_condition(&world.status(), "Suspended"));
    world.job.spec.as_mut().expect("spec").suspend = Some(false);
    assert_eq!(world.step().create.len(), 2);
    assert!(!has_condition(&world.status(), "Suspended"));
}

fn by_index(more: &Value) -> World {
    let mut spec = json!({"parallelism": 2, "completions": 2, "completionMode": "Indexed", "backoffLimit": i32::MAX,
        "backoffLimitPerIndex": 1});
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    World::new(&spec)
}

#[test]
fn each_index_has_its_own_limit() {
    let mut world = by_index(&json!({}));
    assert_eq!(world.next(), [0, 1]);
    world.end(0, "Succeeded", 0);
    world.end(1, "Failed", 1);
    assert_eq!(world.next(), [1]);
    // The number of failures has been taken over: the first pod is counted, even if somebody deletes it.
    world.step();
    world.pods.retain(|pod| pods::phase(pod) != "Failed");
    world.end(1, "Failed", 1);
    for _ in 0..4 {
        assert!(world.next().is_empty());
    }
    let status = world.status();
    assert_eq!(
        (status.completed_indexes.as_deref(), status.failed_indexes.as_deref()),
        (Some("0"), Some("1"))
    );
    assert_eq!((status.failed, status.succeeded), (Some(2), Some(1)));
    let failed = status.conditions.iter().flatten().find(|c| c.type_ == "Failed").expect("it failed");
    assert_eq!(failed.reason.as_deref(), Some("FailedIndexes"));
}

#[test]
fn a_policy_gives_an_index_up() {
    let rule = json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}});
    let mut world = by_index(&json!({"podFailurePolicy": {"rules": [rule]}}));
    world.next();
    world.end(1, "Failed", 42);
    assert!(world.next().is_empty());
    assert_eq!(world.status().failed_indexes.as_deref(), Some("1"));
}

#[test]
fn too_many_failed_indexes_end_it() {
    let mut world = by_index(&json!({"completions": 5, "backoffLimitPerIndex": 0, "maxFailedIndexes": 1}));
    world.next();
    world.end(0, "Failed", 1);
    assert_eq!(world.next(), [2]);
    world.end(1, "Failed", 1);
    assert!(world.next().is_empty());
    assert!(has_condition(&world.status(), "FailureTarget"));
    for _ in 0..3 {
        world.step();
    }
    let status = world.status();
    assert!(has_condition(&status, "Failed") && status.uncounted_terminated_pods.is_none());
}

#[test]
fn the_end_waits_for_pods_that_leave() {
    let policy = json!({"rules": [{"succeededIndexes": "0"}]});
    let mut world = World::new(
        &json!({"parallelism": 2, "completions": 2, "completionMode": "Indexed", "successPolicy": policy}),
    );
    world.next();
    world.end(0, "Succeeded", 0);
    // The other pod does not stop at once.
    let now = Timestamp::from_second(1_000).expect("time");
    let kept = world.pods.clone();
    assert_eq!(world.step().delete.len(), 1);
    world.pods = kept;
    for pod in &mut world.pods {
        let pod = Arc::make_mut(pod);
        pod.metadata.finalizers = None;
        if index_of(pod) == Some(1) {
            pod.metadata.deletion_timestamp = Some(Time(now));
        }
    }
    world.step();
    world.step();
    let status = world.status();
    assert!(has_condition(&status, "SuccessCriteriaMet") && !has_condition(&status, "Complete"));
    world.pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    world.step();
    let status = world.status();
    let complete = status.conditions.iter().flatten().find(|c| c.type_ == "Complete").expect("complete");
    assert_eq!(complete.reason.as_deref(), Some("SuccessPolicy"));
    assert_eq!(status.completed_indexes.as_deref(), Some("0"));
}
