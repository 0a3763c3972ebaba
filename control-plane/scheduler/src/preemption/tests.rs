//! Who goes for whom, by table; and what must never happen, by property.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::*;
use crate::cluster::Nomination;
use crate::cycle::schedule;

fn node(name: &str, cpu: &str) -> Arc<Node> {
    let node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "20"}},
    });
    Arc::new(serde_json::from_value(node).expect("a node"))
}

/// A pod of so many CPUs; its label is its name.
fn pod(name: &str, cpu: u32, priority: i32, more: &Value) -> PodInfo {
    let mut pod = json!({
        "metadata": {"namespace": "default", "name": name, "uid": name, "labels": {"app": name}},
        "spec": {"priority": priority,
            "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu.to_string()}}}]},
    });
    for (part, fields) in more.as_object().into_iter().flatten() {
        for (key, value) in fields.as_object().into_iter().flatten() {
            pod[part][key] = value.clone();
        }
    }
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    PodInfo::new(Arc::new(pod))
}

fn plain(name: &str, cpu: u32, priority: i32) -> PodInfo {
    pod(name, cpu, priority, &json!({}))
}

fn cluster(nodes: &[(&str, &str)], placed: Vec<(PodInfo, &str)>) -> Cluster {
    let mut cluster = Cluster::default();
    for (name, cpu) in nodes {
        cluster.set_node(node(name, cpu));
    }
    for (pod, node) in placed {
        cluster.place(Arc::new(pod), node);
    }
    cluster
}

fn budget(app: &str, allowed: i32) -> Arc<PodDisruptionBudget> {
    let budget = json!({
        "metadata": {"namespace": "default", "name": app},
        "spec": {"selector": {"matchLabels": {"app": app}}},
        "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1},
    });
    Arc::new(serde_json::from_value(budget).expect("a budget"))
}

/// What happens to a pod that fits nowhere.
fn outcome(pod: &PodInfo, cluster: &Cluster, budgets: &[Arc<PodDisruptionBudget>]) -> Outcome {
    let unfit = schedule(pod, cluster, &mut 0, &mut StdRng::seed_from_u64(1)).expect_err("it fits");
    plan(pod, cluster, &unfit.resolvable, budgets)
}

fn names(victims: &[Arc<PodInfo>]) -> Vec<&str> {
    let mut names: Vec<&str> = victims.iter().map(|victim| victim.key.name.as_str()).collect();
    names.sort_unstable();
    names
}

#[test]
fn the_least_harm_is_chosen() {
    let since = |time: &str| json!({"status": {"startTime": time}});
    type Case<'a> = (&'a str, Vec<(PodInfo, &'a str)>, Vec<Arc<PodDisruptionBudget>>, &'a str, &'a [&'a str]);
    let cases: Vec<Case<'_>> = vec![
        ("the less important", vec![(plain("x", 4, 5), "a"), (plain("y", 4, 3), "b")], vec![], "b", &["y"]),
        (
            "no more than needed",
            vec![(plain("x", 2, 1), "a"), (plain("y", 2, 2), "a"), (plain("z", 4, 9), "b")],
            vec![],
            "a",
            &["x"],
        ),
        (
            "fewer",
            vec![(plain("x", 1, 1), "a"), (plain("y", 3, 1), "a"), (plain("z", 4, 1), "b")],
            vec![],
            "a",
            &["y"],
        ),
        (
            "what no budget keeps",
            vec![(plain("x", 4, 1), "a"), (plain("y", 4, 5), "b")],
            vec![budget("x", 0)],
            "b",
            &["y"],
        ),
        (
            "a kept one, when there is no other",
            vec![(plain("x", 4, 1), "a"), (plain("y", 4, 10), "b")],
            vec![budget("x", 0)],
            "a",
            &["x"],
        ),
        (
            "a budget that allows it",
            vec![(plain("x", 4, 1), "a"), (plain("y", 4, 5), "b")],
            vec![budget("x", 1)],
            "a",
            &["x"],
        ),
        (
            "the younger",
            vec![
                (pod("x", 4, 1, &since("2026-01-01T00:00:00Z")), "a"),
                (pod("y", 4, 1, &since("2026-01-02T00:00:00Z")), "b"),
            ],
            vec![],
            "b",
            &["y"],
        ),
    ];
    for (what, placed, budgets, want_node, want) in cases {
        let cluster = cluster(&[("a", "4"), ("b", "4")], placed);
        match outcome(&plain("p", 2, 10), &cluster, &budgets) {
            Outcome::Preempt { node, victims } => {
                assert_eq!((node.as_str(), names(&victims).as_slice()), (want_node, want), "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn what_nothing_helps_is_told() {
    let never = json!({"spec": {"preemptionPolicy": "Never"}});
    let elsewhere = json!({"spec": {"nodeSelector": {"x": "y"}}});
    let cases = [
        (pod("p", 2, 10, &never), "not eligible due to preemptionPolicy=Never."),
        (plain("p", 2, 1), "0/2 nodes are available: 2 No preemption victims found for incoming pod."),
        (pod("p", 2, 10, &elsewhere), "0/2 nodes are available: 2 Preemption is not helpful for scheduling."),
        (
            plain("p", 6, 9),
            "0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling.",
        ),
    ];
    let cluster = cluster(&[("a", "4"), ("b", "8")], vec![(plain("x", 4, 1), "a"), (plain("y", 8, 9), "b")]);
    for (pod, want) in cases {
        match outcome(&pod, &cluster, &[]) {
            Outcome::Nothing(text) => assert_eq!(text, want),
            other => panic!("{want}: {other:?}"),
        }
    }
}

#[test]
fn a_nominated_pod_waits_and_others_keep_off() {
    let mut cluster = cluster(&[("a", "4")], vec![(plain("x", 4, 1), "a")]);
    let important = Arc::new(plain("p", 4, 10));
    let nomination = Nomination { pod: Arc::clone(&important), node: "a".into(), victims: vec!["x".into()] };
    cluster.nominate(nomination);
    assert!(matches!(outcome(&important, &cluster, &[]), Outcome::Wait(_)));
    cluster.displace(&plain("x", 4, 1).key);
    let mut rng = StdRng::seed_from_u64(1);
    for (priority, fits) in [(1, false), (10, false), (11, true)] {
        let got = schedule(&plain("q", 1, priority), &cluster, &mut 0, &mut rng);
        assert_eq!(got.is_ok(), fits, "{priority}");
    }
    assert_eq!(schedule(&important, &cluster, &mut 0, &mut rng).as_deref(), Ok("a"));
}

#[test]
fn room_that_is_kept_is_not_there_to_be_had() {
    let mut cluster = cluster(&[("a", "4")], vec![(plain("x", 2, 1), "a"), (plain("y", 2, 1), "a")]);
    let first = Arc::new(plain("p", 4, 10));
    cluster.nominate(Nomination { pod: first, node: "a".into(), victims: vec!["x".into(), "y".into()] });
    assert!(matches!(outcome(&plain("q", 2, 10), &cluster, &[]), Outcome::Nothing(_)));
}

proptest! {
    /// Only less important pods go, the pod fits without them, each of them is needed, and nothing that
    /// was asked has changed the cluster.
    #[test]
    fn victims_are_few_and_enough(
        placed in prop::collection::vec((0usize..4, 1u32..4, 0i32..6), 0..24),
        cpu in 1u32..9,
        priority in 0i32..8,
        kept in prop::collection::vec(any::<bool>(), 24),
    ) {
        let homes = ["a", "b", "c", "d"];
        let mut cluster = cluster(&homes.map(|name| (name, "8")), vec![]);
        let mut left = BTreeMap::from(homes.map(|name| (name, 8u32)));
        let mut budgets = Vec::new();
        for (at, (home, cpu, priority)) in placed.into_iter().enumerate() {
            let (home, name) = (homes[home], format!("v{at}"));
            if left[home] >= cpu {
                left.entry(home).and_modify(|free| *free -= cpu);
                cluster.place(Arc::new(plain(&name, cpu, priority)), home);
                budgets.extend(kept[at].then(|| budget(&name, 0)));
            }
        }
        let pod = plain("p", cpu, priority);
        let Err(unfit) = schedule(&pod, &cluster, &mut 0, &mut StdRng::seed_from_u64(1)) else {
            return Ok(());
        };
        let before: Vec<i64> = cluster.nodes().iter().map(|node| node.requested.milli_cpu).collect();
        match plan(&pod, &cluster, &unfit.resolvable, &budgets) {
            Outcome::Preempt { node, victims } => {
                prop_assert!(!victims.is_empty());
                for victim in &victims {
                    prop_assert!(victim.priority < pod.priority);
                    prop_assert_eq!(cluster.node_of(&victim.key), Some(node.as_str()));
                    cluster.displace(&victim.key);
                }
                prop_assert!(fits(&pod, &cluster, &node));
                for victim in &victims {
                    cluster.place(Arc::clone(victim), &node);
                    prop_assert!(!fits(&pod, &cluster, &node));
                    cluster.displace(&victim.key);
                }
                for victim in victims {
                    cluster.place(victim, &node);
                }
            }
            Outcome::Wait(_) => prop_assert!(false, "nobody leaves"),
            Outcome::Nothing(_) => {
                // Not even all the less important together would do.
                for name in homes {
                    let mut bare = cluster.clone();
                    for victim in &cluster.node(name).expect("a node").pods {
                        if victim.priority < pod.priority {
                            bare.displace(&victim.key);
                        }
                    }
                    prop_assert!(!fits(&pod, &bare, name));
                }
            }
        }
        let after: Vec<i64> = cluster.nodes().iter().map(|node| node.requested.milli_cpu).collect();
        prop_assert_eq!(before, after);
    }
}
