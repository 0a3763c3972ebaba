//! One scheduling cycle: which node is best for a pod. Pure.

use std::collections::BTreeMap;
use std::fmt;

use rand::Rng;

use crate::cluster::Cluster;
use crate::framework::{Check, Reason, normalize};
use crate::node_info::NodeInfo;
use crate::plugins;
use crate::pod_info::PodInfo;
use crate::preemption;

/// Clusters up to this size are always looked through.
const LEAST_TO_FIND: usize = 100;

/// Why no node fits: how many nodes for which reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unfit {
    nodes: usize,
    reasons: BTreeMap<Reason, usize>,
    /// The plug-ins that refused.
    pub(crate) plugins: Vec<&'static str>,
    /// The nodes that might fit if some of their pods went.
    pub(crate) resolvable: Vec<String>,
    /// Why no pods are made to go.
    pub(crate) preemption: Option<String>,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available: ", self.nodes)?;
        let mut texts: Vec<String> =
            self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        texts.sort();
        write!(f, "{}.", texts.join(", "))?;
        match &self.preemption {
            Some(why) => write!(f, " preemption: {why}"),
            None => Ok(()),
        }
    }
}

/// How many fitting nodes are enough: all in small clusters, a part of large ones (upstream's rule).
fn enough(nodes: usize) -> usize {
    if nodes <= LEAST_TO_FIND {
        return nodes;
    }
    let percent = 50usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(LEAST_TO_FIND)
}

/// The best node for a pod. `start` is where the search begins; it moves on, so that large clusters are
/// filled evenly although not every node is looked at each time.
pub(crate) fn schedule(
    pod: &PodInfo,
    cluster: &Cluster,
    start: &mut usize,
    rng: &mut impl Rng,
) -> Result<String, Unfit> {
    let nodes = cluster.nodes();
    let later = cluster.with_nominated(pod);
    let checks = Checks::new(pod, cluster, later.as_ref());
    // The room that others made for it is on the node it is nominated for.
    let nominated = cluster.nomination(&pod.key).and_then(|own| cluster.node(&own.node));
    if let Some(node) = nominated.filter(|node| checks.refusal(node).is_none()) {
        return Ok(node.name.clone());
    }
    let mut unfit = Unfit { nodes: nodes.len(), ..Unfit::default() };
    let mut fitting: Vec<&NodeInfo> = Vec::new();
    let (first, wanted) = (if nodes.is_empty() { 0 } else { *start % nodes.len() }, enough(nodes.len()));
    let mut seen = 0;
    for node in nodes[first..].iter().chain(&nodes[..first]) {
        seen += 1;
        match checks.refusal(node) {
            None => fitting.push(node),
            Some((plugin, reasons)) => {
                if !unfit.plugins.contains(&plugin) {
                    unfit.plugins.push(plugin);
                }
                if preemption::may_help(pod, node, plugin, &reasons) {
                    unfit.resolvable.push(node.name.clone());
                }
                for reason in reasons {
                    *unfit.reasons.entry(reason).or_default() += 1;
                }
            }
        }
        if fitting.len() >= wanted {
            break;
        }
    }
    *start = first + seen;
    match fitting.as_slice() {
        [] => Err(unfit),
        [only] => Ok(only.name.clone()),
        several => Ok(best(pod, cluster, several, rng)),
    }
}

/// The node of the highest sum of scores; among equals any.
fn best(pod: &PodInfo, cluster: &Cluster, nodes: &[&NodeInfo], rng: &mut impl Rng) -> String {
    let mut totals = vec![0i64; nodes.len()];
    for plugin in plugins::ALL {
        let Some(rate) = plugin.rate(pod, cluster) else { continue };
        let mut scores: Vec<i64> = nodes.iter().map(|node| rate(node)).collect();
        normalize(&mut scores, plugin.normalize());
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += score * plugin.weight();
        }
    }
    let highest = totals.iter().max().copied().unwrap_or(0);
    let equals: Vec<&&NodeInfo> =
        nodes.iter().zip(&totals).filter(|(_, total)| **total == highest).map(|(node, _)| node).collect();
    equals[rng.random_range(0..equals.len())].name.clone()
}

/// The checks of all plug-ins for a pod.
struct Checks<'a> {
    pod: &'a PodInfo,
    cluster: &'a Cluster,
    now: Vec<(&'static str, Check<'a>)>,
    /// The same for when nominated pods are placed: what fits must fit before and after.
    later: Option<(&'a Cluster, Vec<(&'static str, Check<'a>)>)>,
}

/// The plug-in that refuses, and why.
type Refusal = (&'static str, Vec<Reason>);

impl<'a> Checks<'a> {
    fn new(pod: &'a PodInfo, cluster: &'a Cluster, later: Option<&'a Cluster>) -> Self {
        let make = |cluster: &'a Cluster| -> Vec<(&'static str, Check<'a>)> {
            let checks = plugins::ALL.iter();
            checks.filter_map(|plugin| Some((plugin.name(), plugin.check(pod, cluster)?))).collect()
        };
        Self { pod, cluster, now: make(cluster), later: later.map(|later| (later, make(later))) }
    }

    fn refusal(&self, node: &NodeInfo) -> Option<Refusal> {
        first_refusal(&self.now, node).or_else(|| {
            let (later, checks) = self.later.as_ref()?;
            let kept = self.cluster.is_kept(&node.name, self.pod);
            later.node(&node.name).filter(|_| kept).and_then(|node| first_refusal(checks, node))
        })
    }
}

fn first_refusal(checks: &[(&'static str, Check<'_>)], node: &NodeInfo) -> Option<Refusal> {
    checks.iter().find_map(|(plugin, check)| {
        let reasons = check(node);
        (!reasons.is_empty()).then_some((*plugin, reasons))
    })
}

/// Would every plug-in accept this pod on this node now?
pub(crate) fn fits(pod: &PodInfo, cluster: &Cluster, node: &str) -> bool {
    let Some(node) = cluster.node(node) else { return false };
    plugins::ALL.iter().all(|plugin| plugin.check(pod, cluster).is_none_or(|check| check(node).is_empty()))
}

#[cfg(test)]
mod tests;
