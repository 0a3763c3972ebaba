//! StatefulSets against a little model of the cluster: each step is carried out, pods come and go.

use proptest::prelude::*;

use super::*;

struct World {
    set: StatefulSet,
    pods: Vec<Arc<Pod>>,
    claims: HashMap<String, Arc<PersistentVolumeClaim>>,
    update: &'static str,
    made: u32,
}

impl World {
    fn new(replicas: i32, more: &Value) -> Self {
        let mut set = json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "set"},
            "spec": {
                "replicas": replicas, "serviceName": "svc",
                "selector": {"matchLabels": {"app": "w"}},
                "template": {"metadata": {"labels": {"app": "w"}}, "spec": {"containers": []}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
            },
        });
        for (key, value) in more.as_object().expect("an object") {
            set["spec"][key] = value.clone();
        }
        let set = serde_json::from_value(set).expect("a set");
        Self { set, pods: Vec::new(), claims: HashMap::new(), update: "web-one", made: 0 }
    }

    fn change(&mut self, change: impl FnOnce(&mut k8s_openapi::api::apps::v1::StatefulSetSpec)) {
        change(self.set.spec.as_mut().expect("spec"));
    }

    fn scale(&mut self, replicas: i32) {
        self.change(|s| s.replicas = Some(replicas));
    }

    fn look(&self) -> Plan {
        let recorded = self.set.status.as_ref().and_then(|s| s.current_revision.clone());
        plan(&Snapshot {
            set: &self.set,
            pods: &self.pods,
            claims: &self.claims,
            current: recorded.as_deref().unwrap_or(self.update),
            update: self.update,
            now: Timestamp::from_second(1_000).expect("time"),
        })
    }

    /// Carries a step out; deleted pods leave but are there until `bury`.
    fn step(&mut self) -> Plan {
        let plan = self.look();
        let current = self.set.status.as_ref().and_then(|s| s.current_revision.clone());
        for (claim, references) in &plan.hand_over {
            let mut claim = PersistentVolumeClaim::clone(claim);
            claim.metadata.owner_references = Some(references.clone());
            self.claims.insert(claim.metadata.name.clone().expect("a name"), Arc::new(claim));
        }
        for pod in &plan.delete {
            let known = self.pods.iter_mut().find(|p| p.metadata.uid == pod.metadata.uid).expect("known");
            assert!(known.metadata.deletion_timestamp.is_none(), "deleted twice");
            Arc::make_mut(known).metadata.deletion_timestamp =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
        }
        for (number, is_current) in &plan.create {
            let revision = if *is_current { current.as_deref().unwrap_or(self.update) } else { self.update };
            let template = self.set.spec.as_ref().expect("spec").template.clone();
            let mut pod = identity::new_pod(&self.set, &template, revision, *number);
            assert!(!self.pods.iter().any(|p| p.metadata.name == pod.metadata.name), "made twice");
            self.made += 1;
            pod.metadata.uid = Some(format!("p{}", self.made));
            pod.status.get_or_insert_default().phase = Some("Pending".into());
            self.pods.push(Arc::new(pod));
            for claim in identity::claims(&self.set, *number) {
                self.claims.entry(claim.metadata.name.clone().expect("a name")).or_insert(Arc::new(claim));
            }
        }
        if let Some(status) = &plan.status {
            self.set.status = Some(serde_json::from_value(status.clone()).expect("status"));
        }
        plan
    }

    fn set_ready(&mut self, name: &str, ready: bool) {
        let pod =
            self.pods.iter_mut().find(|p| p.metadata.name.as_deref() == Some(name)).expect("a known pod");
        let word = if ready { "True" } else { "False" };
        let status = json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": word, "lastTransitionTime": "1970-01-01T00:00:00Z"}]});
        Arc::make_mut(pod).status = Some(serde_json::from_value(status).expect("status"));
    }

    fn all_ready(&mut self) {
        for name in self.names() {
            self.set_ready(&name, true);
        }
    }

    /// Pods that leave are gone, and the claims that go with them.
    fn bury(&mut self) {
        let leaving: Vec<String> =
            self.pods.iter().filter(|p| leaves(p)).filter_map(|p| p.metadata.uid.clone()).collect();
        self.pods.retain(|p| !leaves(p));
        self.claims
            .retain(|_, c| !c.metadata.owner_references.iter().flatten().any(|o| leaving.contains(&o.uid)));
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            self.bury();
            self.all_ready();
            let plan = self.step();
            if plan.create.is_empty() && plan.delete.is_empty() && plan.status.is_none() {
                return;
            }
        }
        panic!("never at rest");
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.pods.iter().filter_map(|p| p.metadata.name.clone()).collect();
        names.sort();
        names
    }

    fn revisions(&self) -> Vec<&str> {
        let mut pods: Vec<_> = self.pods.iter().collect();
        pods.sort_by_key(|p| p.metadata.name.clone());
        pods.into_iter().filter_map(|p| revision_of(p)).collect()
    }
}

fn numbers(plan: &Plan) -> Vec<i32> {
    plan.create.iter().map(|(n, _)| *n).collect()
}

fn deleted(plan: &Plan) -> Vec<&str> {
    plan.delete.iter().filter_map(|p| p.metadata.name.as_deref()).collect()
}

#[test]
fn names_tell_numbers() {
    let world = World::new(1, &json!({}));
    let cases = [
        ("web-0", Some(0)),
        ("web-12", Some(12)),
        ("web-01", None),
        ("web-", None),
        ("we-1", None),
        ("web-x", None),
    ];
    for (name, want) in cases {
        assert_eq!(identity::ordinal(&world.set, name), want, "{name}");
    }
}

#[test]
fn in_order_up_and_down() {
    let mut world = World::new(3, &json!({}));
    assert_eq!(numbers(&world.step()), [0]);
    assert!(numbers(&world.step()).is_empty(), "the first is not ready");
    world.all_ready();
    assert_eq!(numbers(&world.step()), [1]);
    world.all_ready();
    world.set_ready("web-0", false);
    assert!(numbers(&world.step()).is_empty(), "halts while one ails");
    world.settle();
    assert_eq!(world.names(), ["web-0", "web-1", "web-2"]);
    world.scale(0);
    world.set_ready("web-1", false);
    world.set_ready("web-2", false);
    assert!(world.step().delete.is_empty(), "halts on the way down too");
    world.all_ready();
    assert_eq!(deleted(&world.step()), ["web-2"]);
    assert!(world.step().delete.is_empty(), "waits until it is gone");
    world.bury();
    assert_eq!(deleted(&world.step()), ["web-1"]);
}

#[test]
fn in_parallel_all_at_once() {
    let mut world = World::new(3, &json!({"podManagementPolicy": "Parallel", "ordinals": {"start": 5}}));
    assert_eq!(numbers(&world.step()), [5, 6, 7]);
    world.scale(1);
    assert_eq!(deleted(&world.step()), ["web-7", "web-6"], "though none is ready");
}

#[test]
fn ended_pods_are_made_anew() {
    let mut world = World::new(1, &json!({}));
    world.settle();
    Arc::make_mut(&mut world.pods[0]).status.get_or_insert_default().phase = Some("Failed".into());
    assert_eq!(deleted(&world.step()), ["web-0"]);
    assert!(world.step().create.is_empty(), "its name is still taken");
    world.bury();
    assert_eq!(numbers(&world.step()), [0]);
}

#[test]
fn rolls_from_the_top_to_the_partition() {
    let mut world = World::new(3, &json!({"updateStrategy": {"rollingUpdate": {"partition": 2}}}));
    world.settle();
    world.update = "web-two";
    assert_eq!(deleted(&world.step()), ["web-2"]);
    world.settle();
    assert_eq!(world.revisions(), ["web-one", "web-one", "web-two"]);
    // A pod below the partition comes back as it was.
    world.pods.retain(|p| p.metadata.name.as_deref() != Some("web-0"));
    world.settle();
    assert_eq!(world.revisions(), ["web-one", "web-one", "web-two"]);
    let status = world.set.status.clone().expect("status");
    assert_eq!(status.current_revision.as_deref(), Some("web-one"));
    assert_eq!((status.current_replicas, status.updated_replicas), (Some(2), Some(1)));
    world.change(|s| s.update_strategy = None);
    assert_eq!(deleted(&world.step()), ["web-1"]);
    world.settle();
    assert_eq!(world.revisions(), ["web-two"; 3]);
    let status = world.set.status.clone().expect("status");
    assert_eq!(status.current_revision.as_deref(), Some("web-two"));
    assert_eq!((status.current_replicas, status.updated_replicas), (Some(3), Some(3)));
}

#[test]
fn more_at_once_when_told() {
    let rolling = json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": "50%"}}});
    let mut world = World::new(5, &rolling);
    world.settle();
    world.update = "web-two";
    assert_eq!(deleted(&world.step()), ["web-4", "web-3"]);
}

#[test]
fn on_delete_waits_for_people() {
    let mut world = World::new(2, &json!({"updateStrategy": {"type": "OnDelete"}}));
    world.settle();
    world.update = "web-two";
    world.settle();
    assert_eq!(world.revisions(), ["web-one", "web-one"]);
    world.pods.remove(0);
    world.settle();
    assert_eq!(world.revisions(), ["web-two", "web-one"]);
}

#[test]
fn claims_go_with_whom_the_policy_says() {
    // Deleted, scaled, and the owners of the claims of a pod that stays and of one that goes.
    let cases = [
        ("Retain", "Retain", [None, None]),
        ("Delete", "Retain", [Some("set"), Some("set")]),
        ("Retain", "Delete", [None, Some("p2")]),
        ("Delete", "Delete", [Some("set"), Some("p2")]),
    ];
    for (when_deleted, when_scaled, want) in cases {
        let policy = json!({"persistentVolumeClaimRetentionPolicy":
            {"whenDeleted": when_deleted, "whenScaled": when_scaled}});
        let mut world = World::new(2, &policy);
        world.settle();
        world.scale(1);
        world.step();
        let owner = |name: &str| {
            let references = world.claims[name].metadata.owner_references.clone().unwrap_or_default();
            assert!(references.len() <= 1);
            references.first().map(|o| o.uid.clone())
        };
        let got = [owner("data-web-0"), owner("data-web-1")];
        assert_eq!(got, want.map(|w| w.map(str::to_owned)), "{when_deleted} {when_scaled}");
    }
}

#[test]
fn no_pod_gets_a_claim_that_goes() {
    let policy = json!({"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}});
    let mut world = World::new(2, &policy);
    world.settle();
    world.scale(1);
    world.step();
    world.pods.retain(|p| !leaves(p));
    world.scale(2);
    let plan = world.step();
    assert!(plan.create.is_empty() && plan.again.is_some());
    world.claims.remove("data-web-1");
    assert_eq!(numbers(&world.step()), [1]);
}

proptest! {
    /// Whatever happens on the way: steps keep to the order and to the limit, and in the end there are
    /// the pods that were asked for, of the revision that was asked for.
    #[test]
    fn gets_there_within_the_limits(
        parallel in any::<bool>(),
        limit in 1i32..4,
        events in prop::collection::vec((0u8..4, 0usize..8), 0..40),
    ) {
        let policy = if parallel { "Parallel" } else { "OrderedReady" };
        let mut world = World::new(3, &json!({"podManagementPolicy": policy,
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": limit}}}));
        for (event, which) in events {
            let names = world.names();
            let some = names.get(which % names.len().max(1));
            match (event, some) {
                (0, _) => world.scale(i32::try_from(which).expect("small")),
                (1, Some(name)) => world.set_ready(name, which % 2 == 0),
                (2, _) => world.update = if which % 2 == 0 { "web-one" } else { "web-two" },
                _ => world.bury(),
            }
            let before = world.look();
            let serving = |pod: &&Arc<Pod>| !leaves(pod) && pods::is_ready(pod);
            let wanted = world.set.spec.as_ref().and_then(|s| s.replicas).expect("replicas");
            let rolled = before.delete.iter().filter(serving).filter(|p| {
                !pods::is_finished(p) && ordinal_of(&world.set, p).is_some_and(|n| n < wanted)
            });
            prop_assert!(int(rolled.count()) <= limit);
            if !parallel {
                prop_assert!(before.create.len() <= 1);
            }
            world.step();
        }
        world.settle();
        let wanted = world.set.spec.as_ref().and_then(|s| s.replicas).expect("replicas");
        let want: Vec<String> = (0..wanted).map(|n| format!("web-{n}")).collect();
        prop_assert_eq!(world.names(), want);
        prop_assert!(world.revisions().iter().all(|r| *r == world.update));
        prop_assert_eq!(world.set.status.clone().expect("status").ready_replicas, Some(wanted));
    }
}
