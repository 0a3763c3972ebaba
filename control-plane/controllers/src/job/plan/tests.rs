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
        for index in &plan.create {
            self.made += 1;
            let mut pod = super::super::new_pod(&self.job, *index);
            pod.metadata.uid = Some(format!("p{}", self.made));
            self.pods.push(Arc::new(pod));
        }
        plan
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
    assert_eq!(world.step().create, [Some(0), Some(1), Some(2)]);
    world.end_all("Succeeded");
    assert_eq!(world.step().create, [Some(3), Some(4)]);
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
