//! Pods that want to be near, or away from, other pods, counted by the topology of their nodes.

use std::collections::{HashMap, HashSet};

use crate::cluster::Cluster;
use crate::framework::{Check, Normalize, Plugin, Rate, Reason};
use crate::node_info::NodeInfo;
use crate::pod_info::{PodInfo, Term};

pub(crate) struct InterPodAffinity;

/// A topology: a label's key and value.
type Place = (String, String);

/// The places where a pod that the term is about runs.
fn places(term: &Term, cluster: &Cluster) -> HashSet<String> {
    let mut found = HashSet::new();
    for node in cluster.nodes() {
        let Some(value) = node.label(&term.topology_key) else { continue };
        if !found.contains(value) && node.pods.iter().any(|pod| term.matches(pod, &cluster.namespaces)) {
            found.insert(value.to_owned());
        }
    }
    found
}

/// The places that placed pods keep this pod away from.
fn forbidden(pod: &PodInfo, cluster: &Cluster) -> HashSet<Place> {
    let mut found = HashSet::new();
    if !cluster.any_affinity() {
        return found;
    }
    for node in cluster.nodes() {
        for term in node.pods.iter().flat_map(|placed| &placed.anti_affinity) {
            if let Some(value) = node.label(&term.topology_key)
                && term.matches(pod, &cluster.namespaces)
            {
                found.insert((term.topology_key.clone(), value.to_owned()));
            }
        }
    }
    found
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn check<'a>(&self, pod: &'a PodInfo, cluster: &'a Cluster) -> Option<Check<'a>> {
        let forbidden = forbidden(pod, cluster);
        if pod.affinity.is_empty() && pod.anti_affinity.is_empty() && forbidden.is_empty() {
            return None;
        }
        let near: Vec<_> = pod.affinity.iter().map(|term| (term, places(term, cluster))).collect();
        let away: Vec<_> = pod.anti_affinity.iter().map(|term| (term, places(term, cluster))).collect();
        // The first pod of a group that wants to be together may go anywhere.
        let first = near.iter().all(|(_, places)| places.is_empty())
            && pod.affinity.iter().all(|term| term.matches(pod, &cluster.namespaces));
        Some(Box::new(move |node| {
            let is_in = |term: &Term, places: &HashSet<String>| {
                node.label(&term.topology_key).is_some_and(|value| places.contains(value))
            };
            let mut reasons: Vec<Reason> = Vec::new();
            let has_keys = near.iter().all(|(term, _)| node.label(&term.topology_key).is_some());
            if !(has_keys && (first || near.iter().all(|(term, places)| is_in(term, places)))) {
                reasons.push("node(s) didn't match pod affinity rules".into());
            }
            if away.iter().any(|(term, places)| is_in(term, places)) {
                reasons.push("node(s) didn't match pod anti-affinity rules".into());
            }
            if forbidden.iter().any(|(key, value)| node.label(key) == Some(value)) {
                reasons.push("node(s) didn't satisfy existing pods anti-affinity rules".into());
            }
            reasons
        }))
    }

    fn rate<'a>(&self, pod: &'a PodInfo, cluster: &'a Cluster) -> Option<Rate<'a>> {
        if pod.preferred.is_empty() && !cluster.any_affinity() {
            return None;
        }
        let mut weights: HashMap<Place, i64> = HashMap::new();
        for node in cluster.nodes() {
            for placed in &node.pods {
                for (weight, term) in
                    pod.preferred.iter().filter(|(_, term)| term.matches(placed, &cluster.namespaces))
                {
                    count(&mut weights, node, term, *weight);
                }
                // The wish is mutual: placed pods prefer newcomers too.
                for (weight, term) in
                    placed.preferred.iter().filter(|(_, term)| term.matches(pod, &cluster.namespaces))
                {
                    count(&mut weights, node, term, *weight);
                }
            }
        }
        if weights.is_empty() {
            return None;
        }
        Some(Box::new(move |node| {
            let here = weights.iter().filter(|((key, value), _)| node.label(key) == Some(value));
            here.map(|(_, weight)| weight).sum()
        }))
    }

    fn normalize(&self) -> Normalize {
        Normalize::Spread
    }

    fn weight(&self) -> i64 {
        2
    }
}

fn count(weights: &mut HashMap<Place, i64>, node: &NodeInfo, term: &Term, weight: i64) {
    if let Some(value) = node.label(&term.topology_key) {
        *weights.entry((term.topology_key.clone(), value.to_owned())).or_default() += weight;
    }
}
