//! Decisions by table, and what must never happen by property.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::*;

fn node(name: &str, cpu: &str, more: &Value) -> Arc<Node> {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "10"}},
    });
    merge(&mut node, more);
    Arc::new(serde_json::from_value(node).expect("a node"))
}

fn pod(name: &str, cpu: &str, more: &Value) -> PodInfo {
    let mut pod = json!({
        "metadata": {"namespace": "default", "name": name, "uid": name, "labels": {"app": "a"}},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]},
    });
    merge(&mut pod, more);
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    PodInfo::new(Arc::new(pod))
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn cluster(nodes: Vec<Arc<Node>>, placed: Vec<(PodInfo, &str)>) -> Cluster {
    let mut cluster = Cluster::default();
    for node in nodes {
        cluster.set_node(node);
    }
    for (pod, node) in placed {
        cluster.place(Arc::new(pod), node);
    }
    cluster
}

fn decide(pod: &PodInfo, cluster: &Cluster) -> Result<String, String> {
    schedule(pod, cluster, &mut 0, &mut StdRng::seed_from_u64(1)).map_err(|unfit| unfit.to_string())
}

#[test]
fn no_nodes_is_said_so() {
    let got = decide(&pod("p", "1", &json!({})), &Cluster::default());
    assert_eq!(got, Err("no nodes available to schedule pods".to_owned()));
}

#[test]
fn refusals_are_counted_in_the_words_users_know() {
    let nodes = vec![
        node("full", "1", &json!({})),
        node("cordoned", "8", &json!({"spec": {"unschedulable": true}})),
        node(
            "tainted",
            "8",
            &json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}}),
        ),
    ];
    let got = decide(&pod("p", "2", &json!({})), &cluster(nodes, vec![]));
    let want = "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {k: v}, 1 node(s) were unschedulable.";
    assert_eq!(got, Err(want.to_owned()));
}

#[test]
fn decisions() {
    let two = || vec![node("a", "4", &json!({})), node("b", "4", &json!({}))];
    let busy = || (pod("busy", "3", &json!({})), "a");
    let anti = json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "a"}}}]}}}});
    let near = json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "a"}}}]}}}});
    let port = json!({"spec": {"containers": [{"name": "c", "image": "i", "ports": [{"hostPort": 80, "containerPort": 80}]}]}});
    let spread = json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "a"}}}]}});
    // What, the pod, what is placed, and where it goes; "" is anywhere.
    type Case<'a> = (&'a str, PodInfo, Vec<(PodInfo, &'a str)>, Option<&'a str>);
    let cases: Vec<Case<'_>> = vec![
        ("the emptier node", pod("p", "1", &json!({})), vec![busy()], Some("b")),
        ("what still fits", pod("p", "2", &json!({})), vec![busy()], Some("b")),
        (
            "the node selector",
            pod("p", "1", &json!({"spec": {"nodeSelector": {"kubernetes.io/hostname": "a"}}})),
            vec![],
            Some("a"),
        ),
        (
            "a node selector of no node",
            pod("p", "1", &json!({"spec": {"nodeSelector": {"x": "y"}}})),
            vec![],
            None,
        ),
        ("away from its like", pod("p", "1", &anti), vec![busy()], Some("b")),
        ("placed pods keep it away", pod("p", "1", &json!({})), vec![(pod("q", "1", &anti), "a")], Some("b")),
        ("near its like", pod("p", "1", &near), vec![busy()], Some("a")),
        ("the first of a group", pod("p", "1", &near), vec![], Some("")),
        ("a free host port", pod("p", "1", &port), vec![(pod("q", "1", &port), "b")], Some("a")),
        ("evenly spread", pod("p", "1", &spread), vec![(pod("q", "1", &json!({})), "a")], Some("b")),
    ];
    for (what, pod, placed, want) in cases {
        let got = decide(&pod, &cluster(two(), placed));
        match (want, &got) {
            (None, Err(_)) => {}
            (Some(want), Ok(node)) if want.is_empty() || want == node => {}
            _ => panic!("{what}: {got:?}, want {want:?}"),
        }
    }
}

proptest! {
    /// Whatever comes, a pod goes only where it fits, and no node promises more than it has.
    #[test]
    fn never_overcommits(
        nodes in prop::collection::vec(1u32..8, 1..6),
        pods in prop::collection::vec((1u32..4000, any::<bool>()), 1..40),
        seed in any::<u64>(),
    ) {
        let mut cluster = Cluster::default();
        for (at, cpus) in nodes.iter().enumerate() {
            cluster.set_node(node(&format!("n{at}"), &cpus.to_string(), &json!({})));
        }
        let (mut rng, mut start) = (StdRng::seed_from_u64(seed), 0);
        for (at, (milli_cpu, port)) in pods.iter().enumerate() {
            let ports = if *port { json!([{"hostPort": 80, "containerPort": 80}]) } else { json!([]) };
            let more = json!({"spec": {"containers": [{"name": "c", "image": "i", "ports": ports,
                "resources": {"requests": {"cpu": format!("{milli_cpu}m")}}}]}});
            let pod = pod(&format!("p{at}"), "0", &more);
            match schedule(&pod, &cluster, &mut start, &mut rng) {
                Ok(chosen) => {
                    prop_assert!(fits(&pod, &cluster, &chosen));
                    cluster.place(Arc::new(pod), &chosen);
                }
                Err(_) => {
                    for own in cluster.nodes() {
                        prop_assert!(!fits(&pod, &cluster, &own.name));
                    }
                }
            }
        }
        for own in cluster.nodes() {
            prop_assert!(own.requested.milli_cpu <= own.allocatable.milli_cpu);
            prop_assert!(own.requested.pods <= own.allocatable.pods);
            let ports = own.host_ports().count();
            prop_assert!(ports <= 1);
        }
    }

    /// Placing and displacing in any order leaves sums as if only the rest had been placed.
    #[test]
    fn sums_follow_placements(steps in prop::collection::vec((0usize..6, any::<bool>()), 0..60)) {
        let mut cluster = cluster(vec![node("a", "64", &json!({})), node("b", "64", &json!({}))], vec![]);
        let mut there = BTreeMap::new();
        for (which, place) in steps {
            let pod = pod(&format!("p{which}"), &format!("{}m", 100 + which), &json!({}));
            if place {
                let home = if which % 2 == 0 { "a" } else { "b" };
                cluster.place(Arc::new(pod), home);
                there.insert(which, home);
            } else {
                prop_assert_eq!(cluster.displace(&pod.key), there.remove(&which).is_some());
            }
        }
        for own in cluster.nodes() {
            let want: i64 = there.iter().filter(|(_, home)| **home == own.name).map(|(which, _)| 100 + *which as i64).sum();
            prop_assert_eq!(own.requested.milli_cpu, want);
        }
        prop_assert!(!cluster.any_affinity());
    }
}
