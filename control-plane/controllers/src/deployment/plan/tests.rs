//! Rollouts against a little model of ReplicaSets: each step is carried out, pods become available.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn deployment(replicas: i32, image: &str, strategy: &Value) -> Deployment {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "d", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
            "strategy": strategy,
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 2,
        },
    }))
    .expect("deployment")
}

/// The cluster: ReplicaSets with as many pods as asked.
struct World {
    deployment: Deployment,
    sets: Vec<Arc<ReplicaSet>>,
    made: i64,
}

impl World {
    fn new(deployment: Deployment) -> Self {
        Self { deployment, sets: Vec::new(), made: 0 }
    }

    fn total(&self) -> i32 {
        self.sets.iter().map(|s| size(s)).sum()
    }

    fn available(&self) -> i32 {
        self.sets.iter().map(|s| available(s)).sum()
    }

    /// Plans once and carries the plan out; returns whether anything was done.
    fn step(&mut self) -> bool {
        let running: Vec<usize> = self
            .sets
            .iter()
            .map(|s| usize::try_from(s.status.clone().unwrap_or_default().replicas).unwrap_or(0))
            .collect();
        let plan = plan(&Snapshot {
            deployment: &self.deployment,
            sets: &self.sets,
            running: &running,
            now: Timestamp::UNIX_EPOCH,
        });
        let acted = !plan.steps.is_empty() || !plan.annotations.is_empty();
        self.deployment.metadata.annotations.get_or_insert_default().extend(plan.annotations);
        for step in plan.steps {
            match step {
                Step::Create(mut set) => {
                    self.made += 1;
                    set.metadata.uid = Some(format!("u{}", self.made));
                    let at = Timestamp::from_second(self.made).expect("time");
                    set.metadata.creation_timestamp =
                        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at));
                    self.sets.push(Arc::new(*set));
                }
                Step::Change { set, replicas, annotations } => {
                    let known =
                        self.sets.iter_mut().find(|s| s.metadata.uid == set.metadata.uid).expect("known");
                    let known = Arc::make_mut(known);
                    known.spec.as_mut().expect("spec").replicas = Some(replicas);
                    known.metadata.annotations.get_or_insert_default().extend(annotations);
                }
                Step::Delete(set) => self.sets.retain(|s| s.metadata.uid != set.metadata.uid),
            }
        }
        if let Some(status) = plan.status {
            self.deployment.status = Some(serde_json::from_value(status).expect("status"));
        }
        acted
    }

    /// Pods go at once; at most `ready` more pods become available.
    fn settle(&mut self, mut ready: i32) {
        for set in &mut self.sets {
            let set = Arc::make_mut(set);
            let want = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
            let status = set.status.get_or_insert_default();
            let now = status.available_replicas.unwrap_or(0).min(want);
            let more = (want - now).min(ready);
            ready -= more;
            status.replicas = want;
            status.available_replicas = Some(now + more);
            status.ready_replicas = Some(now + more);
            status.observed_generation = set.metadata.generation;
        }
    }

    fn finish(&mut self) {
        for _ in 0..200 {
            let acted = self.step();
            self.settle(i32::MAX);
            if !acted && !self.step() {
                return;
            }
        }
        panic!("no end: {:?}", self.sets.iter().map(|s| size(s)).collect::<Vec<_>>());
    }

    fn change_image(&mut self, image: &str) {
        let fresh = deployment(1, image, &json!({}));
        let spec = self.deployment.spec.as_mut().expect("spec");
        spec.template = fresh.spec.expect("spec").template;
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let conditions =
            self.deployment.status.as_ref().and_then(|s| s.conditions.as_ref()).expect("conditions");
        let condition = conditions.iter().find(|c| c.type_ == kind).expect("condition");
        (condition.status.clone(), condition.reason.clone().unwrap_or_default())
    }
}

#[test]
fn rollout_rollback_and_history() {
    let mut world = World::new(deployment(3, "v1", &json!({})));
    world.finish();
    assert_eq!(world.sets.len(), 1);
    assert_eq!(world.condition("Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
    assert_eq!(world.condition("Available").0, "True");
    let first = world.sets[0].metadata.name.clone();
    world.change_image("v2");
    world.finish();
    assert_eq!((world.sets.len(), world.total()), (2, 3));
    assert_eq!(
        world.deployment.metadata.annotations.as_ref().and_then(|a| a.get(REVISION)).map(String::as_str),
        Some("2")
    );
    // Back to the old template: the old set grows again, with a new number.
    world.change_image("v1");
    world.finish();
    let back = world.sets.iter().find(|s| size(s) == 3).expect("grown");
    assert_eq!(back.metadata.name, first);
    assert_eq!(revision(back), 3);
    for image in ["v3", "v4", "v5"] {
        world.change_image(image);
        world.finish();
    }
    assert_eq!(world.sets.len(), 3, "the current one and two of history");
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut world = World::new(deployment(2, "v1", &json!({"type": "Recreate"})));
    world.finish();
    world.change_image("v2");
    world.step();
    assert_eq!(world.total(), 0);
    assert!(!world.step(), "old pods are still there");
    world.settle(i32::MAX);
    world.step();
    assert_eq!((world.sets.len(), world.total()), (2, 2));
}

#[test]
fn scaling_in_a_rollout_is_proportional() {
    let strategy = json!({"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}});
    let mut world = World::new(deployment(10, "v1", &strategy));
    world.finish();
    world.change_image("bad");
    for _ in 0..5 {
        world.step();
        world.settle(0);
    }
    let sizes: Vec<i32> = world.sets.iter().map(|s| size(s)).collect();
    assert_eq!(sizes, [8, 5]);
    world.deployment.spec.as_mut().expect("spec").replicas = Some(30);
    world.step();
    let sizes: Vec<i32> = world.sets.iter().map(|s| size(s)).collect();
    assert_eq!(sizes, [20, 13]);
}

#[test]
fn paused_scales_but_does_not_roll() {
    let mut world = World::new(deployment(2, "v1", &json!({})));
    world.finish();
    world.change_image("v2");
    let spec = world.deployment.spec.as_mut().expect("spec");
    (spec.paused, spec.replicas) = (Some(true), Some(4));
    world.finish();
    assert_eq!((world.sets.len(), world.total()), (1, 4));
    assert_eq!(world.condition("Progressing").1, "DeploymentPaused");
}

proptest! {
    #[test]
    fn never_beyond_the_surge_never_below_the_least(
        replicas in 1_i32..12,
        surge in 0_i32..4,
        unavailable in 0_i32..4,
        ready in prop::collection::vec(0_i32..4, 40),
    ) {
        let strategy = json!({"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
        let mut world = World::new(deployment(replicas, "v1", &strategy));
        world.finish();
        let (surge, unavailable) = numbers::bounds(&world.deployment);
        world.change_image("v2");
        for more in ready {
            world.step();
            prop_assert!(world.total() <= replicas + surge, "too many: {}", world.total());
            world.settle(more);
            prop_assert!(world.available() >= replicas - unavailable, "too few: {}", world.available());
        }
        world.finish();
        prop_assert_eq!(world.total(), replicas);
    }
}
