//! Keeps the pods of a selector evenly spread over the values of a node label.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use skep_api::selector::LabelSelector;

use crate::affinity::selects;
use crate::cluster::Cluster;
use crate::framework::{Check, Normalize, Plugin, Rate};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

pub(crate) struct PodTopologySpread;

/// A constraint with the number of matching pods at each value of its label.
struct Spread<'a> {
    constraint: &'a TopologySpreadConstraint,
    counts: HashMap<&'a str, i64>,
    /// The pod itself counts once it is placed.
    own: i64,
}

impl<'a> Spread<'a> {
    fn new(constraint: &'a TopologySpreadConstraint, pod: &PodInfo, cluster: &'a Cluster) -> Self {
        let selector = selector(constraint, pod);
        let mut counts: HashMap<&str, i64> = HashMap::new();
        for node in cluster.nodes() {
            let Some(value) = node.label(&constraint.topology_key) else { continue };
            if !eligible(constraint, pod, node) {
                continue;
            }
            let matching = node.pods.iter().filter(|placed| {
                placed.key.namespace == pod.key.namespace
                    && placed.pod.metadata.deletion_timestamp.is_none()
                    && selector.matches_map(placed.pod.metadata.labels.as_ref())
            });
            *counts.entry(value).or_default() += i64::try_from(matching.count()).unwrap_or(0);
        }
        let own = i64::from(selector.matches_map(pod.pod.metadata.labels.as_ref()));
        Self { constraint, counts, own }
    }

    /// The smallest count; 0 while there are fewer places than `minDomains`.
    fn least(&self) -> i64 {
        let places = i32::try_from(self.counts.len()).unwrap_or(i32::MAX);
        if self.constraint.min_domains.is_some_and(|wanted| places < wanted) {
            return 0;
        }
        self.counts.values().min().copied().unwrap_or(0)
    }
}

/// The selector, with the pod's own values of `matchLabelKeys`.
fn selector(constraint: &TopologySpreadConstraint, pod: &PodInfo) -> LabelSelector {
    let mut own = constraint.label_selector.clone();
    let labels = pod.pod.metadata.labels.as_ref();
    for key in constraint.match_label_keys.iter().flatten() {
        if let Some(value) = labels.and_then(|labels| labels.get(key)) {
            let selector = own.get_or_insert_default();
            selector.match_labels.get_or_insert_default().insert(key.clone(), value.clone());
        }
    }
    LabelSelector::from_typed(own.as_ref()).unwrap_or_else(|_| LabelSelector::nothing())
}

/// Nodes that the pod could not go to do not count, unless the constraint says so.
fn eligible(constraint: &TopologySpreadConstraint, pod: &PodInfo, node: &NodeInfo) -> bool {
    if constraint.node_affinity_policy.as_deref() == Some("Ignore") {
        return true;
    }
    let Some(spec) = pod.pod.spec.as_ref() else { return true };
    let labels = spec.node_selector.iter().flatten().all(|(key, value)| node.label(key) == Some(value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    labels && required.is_none_or(|selector| selects(selector, node))
}

fn constraints<'a>(pod: &'a PodInfo, cluster: &'a Cluster, when: &str) -> Vec<Spread<'a>> {
    let all = pod
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.topology_spread_constraints.as_deref())
        .unwrap_or_default();
    all.iter()
        .filter(|constraint| constraint.when_unsatisfiable == when)
        .map(|constraint| Spread::new(constraint, pod, cluster))
        .collect()
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn check<'a>(&self, pod: &'a PodInfo, cluster: &'a Cluster) -> Option<Check<'a>> {
        let spreads = constraints(pod, cluster, "DoNotSchedule");
        if spreads.is_empty() {
            return None;
        }
        let least: Vec<i64> = spreads.iter().map(Spread::least).collect();
        Some(Box::new(move |node| {
            for (spread, least) in spreads.iter().zip(&least) {
                let Some(value) = node.label(&spread.constraint.topology_key) else {
                    return vec![
                        "node(s) didn't match pod topology spread constraints (missing required label)"
                            .into(),
                    ];
                };
                let here = spread.counts.get(value).copied().unwrap_or(0);
                if here + spread.own - least > i64::from(spread.constraint.max_skew) {
                    return vec!["node(s) didn't match pod topology spread constraints".into()];
                }
            }
            Vec::new()
        }))
    }

    fn rate<'a>(&self, pod: &'a PodInfo, cluster: &'a Cluster) -> Option<Rate<'a>> {
        let spreads = constraints(pod, cluster, "ScheduleAnyway");
        if spreads.is_empty() {
            return None;
        }
        Some(Box::new(move |node| {
            let crowd = |spread: &Spread<'_>| match node.label(&spread.constraint.topology_key) {
                Some(value) => spread.counts.get(value).copied().unwrap_or(0),
                // A node without the label is in no place: the worst choice.
                None => spread.counts.values().max().copied().unwrap_or(0) + 1,
            };
            spreads.iter().map(crowd).sum()
        }))
    }

    fn normalize(&self) -> Normalize {
        Normalize::Inverse
    }

    fn weight(&self) -> i64 {
        2
    }
}
