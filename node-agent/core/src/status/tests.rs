//! Statuses of pods in various states.

use k8s_openapi::jiff::SignedDuration;
use serde_json::json;

use super::*;
use crate::{
    backoff::Backoff,
    observed::{Attempt, Container, Exit, Hindrance, Run},
};

fn now() -> Timestamp {
    Timestamp::from_second(1000).unwrap()
}

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u", "generation": 3 },
        "spec": { "containers": [{ "name": "a", "image": "img" }], "initContainers": [{ "name": "i", "image": "img" }] },
    }))
    .unwrap()
}

fn container(run: Run) -> Container {
    let attempt =
        Attempt { id: "id".into(), number: 2, run, image: "img:1".into(), image_id: "img@x".into() };
    Container { attempt: Some(attempt), started: true, ready: true, ..Container::default() }
}

fn exit(code: i32) -> Run {
    Run::Exited(Exit {
        code,
        started_at: None,
        finished_at: now(),
        reason: "Error".into(),
        message: String::new(),
    })
}

fn condition(status: &PodStatus, kind: &str) -> (String, Option<String>) {
    let found = status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap();
    (found.status.clone(), found.reason.clone())
}

#[test]
fn a_new_pod_is_pending() {
    let status =
        compute(&pod(), &Stage::Preparing, &Observed::default(), &["1.1.1.1".parse().unwrap()], now());
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(status.host_ip.as_deref(), Some("1.1.1.1"));
    assert_eq!(condition(&status, "Initialized"), ("False".into(), Some("ContainersNotInitialized".into())));
    assert_eq!(condition(&status, "Ready").0, "False");
    let state = status.container_statuses.as_ref().unwrap()[0].state.clone().unwrap();
    assert_eq!(state.waiting.unwrap().reason.as_deref(), Some("PodInitializing"));
    assert_eq!((status.qos_class.as_deref(), status.observed_generation), (Some("BestEffort"), Some(3)));
}

#[test]
fn a_running_pod_is_ready_and_keeps_its_times() {
    let mut seen = Observed { network: Some(vec!["10.0.0.1".parse().unwrap()]), ..Observed::default() };
    seen.containers.insert("i".into(), container(exit(0)));
    seen.containers.insert("a".into(), container(Run::Running(now())));
    let mut pod = pod();
    let first = compute(&pod, &Stage::Running, &seen, &[], now());
    assert_eq!(first.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&first, "Ready"), ("True".into(), None));
    assert_eq!(first.pod_ip.as_deref(), Some("10.0.0.1"));
    let main = &first.container_statuses.as_ref().unwrap()[0];
    assert_eq!(
        (main.ready, main.restart_count, main.container_id.as_deref()),
        (true, 2, Some("containerd://id"))
    );
    pod.status = Some(first.clone());
    let later = compute(&pod, &Stage::Running, &seen, &[], now() + SignedDuration::from_secs(5));
    assert_eq!(later, first, "nothing changed, so nothing is written");
}

#[test]
fn a_crashing_container_says_so() {
    let mut seen = Observed::default();
    seen.containers.insert("i".into(), container(exit(0)));
    seen.containers.insert("a".into(), Container { backoff: Backoff::resumed(3), ..container(exit(1)) });
    let status = compute(&pod(), &Stage::Running, &seen, &[], now());
    let main = &status.container_statuses.as_ref().unwrap()[0];
    let waiting = main.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(waiting.message.as_deref(), Some("back-off 20s restarting failed container=a pod=p_ns(u)"));
    assert_eq!(main.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 1);
    assert_eq!(status.phase.as_deref(), Some("Running"));
}

#[test]
fn hindrances_and_outcomes_are_told() {
    let mut seen = Observed::default();
    let hindrance = Hindrance { reason: "ErrImagePull".into(), message: "no".into(), retry_at: now() };
    seen.containers.insert("i".into(), Container { hindrance: Some(hindrance), ..Container::default() });
    let status = compute(&pod(), &Stage::Initializing, &seen, &[], now());
    let init = status.init_container_statuses.unwrap()[0].state.clone().unwrap().waiting.unwrap();
    assert_eq!(init.reason.as_deref(), Some("ErrImagePull"));

    let mut seen = Observed::default();
    seen.containers.insert("i".into(), container(exit(0)));
    seen.containers.insert("a".into(), container(exit(0)));
    let mut finished = pod();
    let stage = Stage::Finished { outcome: Outcome::Succeeded, verdict: None };
    let status = compute(&finished, &stage, &seen, &[], now());
    assert_eq!(status.phase.as_deref(), Some("Succeeded"));
    assert_eq!(condition(&status, "Ready"), ("False".into(), Some("PodCompleted".into())));
    assert_eq!(condition(&status, "Initialized").0, "True");
    finished.status = Some(status.clone());
    let later = compute(&finished, &Stage::Preparing, &Observed::default(), &[], now());
    assert_eq!(later.phase, status.phase, "a terminal phase never changes");
    assert_eq!(later.container_statuses, status.container_statuses);
}
