//! Whole lives of pods, played against a simulated node.

use k8s_openapi::jiff::SignedDuration;
use serde_json::{Value, json};

use super::*;
use crate::observed::{Attempt, Container, Exit, Hindrance, Run};

/// A node that does at once what it is told.
struct Node {
    pod: Pod,
    stage: Stage,
    seen: Observed,
    now: Timestamp,
    log: Vec<String>,
    wake: Option<Timestamp>,
}

impl Node {
    #[expect(clippy::needless_pass_by_value, reason = "called with literals")]
    fn new(spec: Value) -> Self {
        let pod = json!({ "metadata": { "name": "p", "namespace": "ns", "uid": "u" }, "spec": spec });
        Self {
            pod: serde_json::from_value(pod).unwrap(),
            stage: Stage::default(),
            seen: Observed::default(),
            now: Timestamp::from_second(1000).unwrap(),
            log: Vec::new(),
            wake: None,
        }
    }

    /// Acts until nothing more is asked.
    fn settle(&mut self) -> String {
        self.log.clear();
        for _ in 0..100 {
            let step = advance(&self.pod, &self.stage, &self.seen, self.now);
            let again = advance(&self.pod, &step.stage, &self.seen, self.now);
            assert_eq!(again.stage, step.stage, "a stage is stable until something happens");
            self.stage = step.stage;
            self.wake = step.wake_at;
            if step.actions.is_empty() {
                break;
            }
            let finalized = step.actions.contains(&Action::Finalize);
            for action in step.actions {
                self.act(action);
            }
            if finalized {
                break;
            }
        }
        std::mem::take(&mut self.log).join(" ")
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::PrepareVolumes => self.seen.volumes = true,
            Action::SetUpNetwork => self.seen.network = Some(vec!["10.0.0.1".parse().unwrap()]),
            Action::Start { container, attempt } => {
                self.log.push(format!("+{container}{attempt}"));
                let entry = self.seen.containers.entry(container).or_default();
                entry.previous = entry.attempt.take();
                let run = Run::Running(self.now);
                entry.attempt = Some(Attempt {
                    id: String::new(),
                    number: attempt,
                    run,
                    image: String::new(),
                    image_id: String::new(),
                });
                (entry.started, entry.ready, entry.unhealthy) = (true, true, None);
            }
            Action::Stop { container, grace, .. } => {
                self.log.push(format!("-{container}/{grace}"));
                self.exit(&container, 143);
            }
            Action::CleanUp { .. } => {
                self.log.push("clean".to_owned());
                self.seen.cleaned = true;
            }
            Action::Finalize => self.log.push("finalize".to_owned()),
        }
    }

    fn exit(&mut self, name: &str, code: i32) {
        let now = self.now;
        let entry = self.seen.containers.get_mut(name).unwrap();
        entry.backoff.failed(None, now);
        let exit =
            Exit { code, started_at: None, finished_at: now, reason: String::new(), message: String::new() };
        entry.attempt.as_mut().unwrap().run = Run::Exited(exit);
    }

    fn after(&mut self, seconds: i64) -> String {
        self.now += SignedDuration::from_secs(seconds);
        self.settle()
    }

    fn delete(&mut self, grace: i64) {
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
        let at = self.now + SignedDuration::from_secs(grace);
        self.pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at));
    }
}

#[test]
fn init_containers_run_in_order_then_the_others_together() {
    let mut node = Node::new(json!({ "restartPolicy": "Never",
        "initContainers": [{ "name": "i" }, { "name": "s", "restartPolicy": "Always" }, { "name": "j" }],
        "containers": [{ "name": "a" }, { "name": "b" }] }));
    assert_eq!(node.settle(), "+i0");
    node.exit("i", 0);
    assert_eq!(node.settle(), "+s0 +j0");
    node.exit("j", 0);
    assert_eq!(node.settle(), "+a0 +b0");
    node.exit("s", 1);
    assert_eq!(node.settle(), "+s1", "a sidecar restarts whatever the pod's policy");
    node.exit("a", 0);
    assert_eq!(node.settle(), "");
    node.exit("b", 0);
    assert_eq!(node.settle(), "-s/30", "sidecars go after the last container");
    assert_eq!(node.stage, Stage::Finished { outcome: Outcome::Succeeded, verdict: None });
    node.delete(30);
    assert_eq!(node.settle(), "clean finalize");
}

#[test]
fn a_failing_init_container_decides() {
    let spec = |policy| json!({ "restartPolicy": policy, "initContainers": [{ "name": "i" }], "containers": [{ "name": "a" }] });
    let mut never = Node::new(spec("Never"));
    never.settle();
    never.exit("i", 1);
    assert_eq!(never.settle(), "");
    assert_eq!(never.stage, Stage::Finished { outcome: Outcome::Failed, verdict: None });
    let mut always = Node::new(spec("Always"));
    always.settle();
    always.exit("i", 1);
    assert_eq!(always.settle(), "+i1");
    always.exit("i", 1);
    assert_eq!(always.settle(), "");
    assert_eq!(always.wake, Some(always.now + SignedDuration::from_secs(10)));
    assert_eq!(always.after(10), "+i2");
}

#[test]
fn crashes_back_off_and_policies_hold() {
    for (policy, code, again) in
        [("Always", 0, true), ("OnFailure", 1, true), ("OnFailure", 0, false), ("Never", 1, false)]
    {
        let mut node = Node::new(json!({ "restartPolicy": policy, "containers": [{ "name": "a" }] }));
        assert_eq!(node.settle(), "+a0");
        node.exit("a", code);
        assert_eq!(node.settle(), if again { "+a1" } else { "" }, "{policy} {code}");
        if again {
            node.exit("a", code);
            assert_eq!(
                (node.settle(), node.after(9), node.after(1)),
                (String::new(), String::new(), "+a2".to_owned())
            );
        }
    }
}

#[test]
fn an_unhealthy_container_is_stopped_and_restarted() {
    let mut node = Node::new(json!({ "containers": [{ "name": "a" }], "terminationGracePeriodSeconds": 5 }));
    node.settle();
    node.seen.containers.get_mut("a").unwrap().unhealthy = Some("failed".to_owned());
    assert_eq!(node.settle(), "-a/5 +a1");
}

#[test]
fn deletion_waits_for_the_grace_and_for_starts_under_way() {
    let mut node = Node::new(json!({ "containers": [{ "name": "a" }] }));
    node.settle();
    node.delete(7);
    node.seen.starting = true;
    assert_eq!(node.settle(), "-a/7");
    assert!(matches!(node.stage, Stage::Terminating { .. }));
    node.seen.starting = false;
    assert_eq!(node.settle(), "clean finalize");
    assert_eq!(node.stage, Stage::Gone);
}

#[test]
fn a_pod_past_its_deadline_fails() {
    let mut node = Node::new(json!({ "activeDeadlineSeconds": 60, "containers": [{ "name": "a" }] }));
    let start = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(node.now);
    node.pod.status =
        Some(k8s_openapi::api::core::v1::PodStatus { start_time: Some(start), ..Default::default() });
    assert_eq!(node.settle(), "+a0");
    assert_eq!(node.wake, Some(node.now + SignedDuration::from_secs(60)));
    assert_eq!(node.after(60), "-a/30");
    assert!(
        matches!(&node.stage, Stage::Finished { outcome: Outcome::Failed, verdict: Some(v) } if v.reason == "DeadlineExceeded")
    );
}

#[test]
fn hindrances_are_waited_for() {
    let mut node = Node::new(json!({ "containers": [{ "name": "a" }] }));
    let retry_at = node.now + SignedDuration::from_secs(10);
    let hindrance = Some(Hindrance { reason: "ErrImagePull".into(), message: String::new(), retry_at });
    node.seen.containers.insert("a".into(), Container { hindrance, ..Container::default() });
    assert_eq!(node.settle(), "");
    assert_eq!(node.wake, Some(retry_at));
    assert_eq!(node.after(10), "+a0");
}

proptest::proptest! {
    /// Whatever happens, a deleted pod is gone in the end, and nothing starts after the deletion.
    #[test]
    fn every_life_ends(codes in proptest::collection::vec((0..4_usize, 0..2_i32, 0..400_i64), 0..40)) {
        let mut node = Node::new(json!({
            "initContainers": [{ "name": "i" }, { "name": "s", "restartPolicy": "Always" }],
            "containers": [{ "name": "a" }, { "name": "b" }] }));
        node.settle();
        for (index, code, pause) in codes {
            let name = ["i", "s", "a", "b"][index];
            if node.seen.container(name).is_some_and(Container::is_running) {
                node.exit(name, code);
            }
            node.after(pause);
        }
        node.delete(30);
        let log = node.settle();
        proptest::prop_assert!(!log.contains('+') && log.ends_with("clean finalize"), "{}", log);
    }
}
