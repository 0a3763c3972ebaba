//! Which less important pods could go so that a pod fits. Pure: asks what-ifs of a copy of the cluster.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use skep_api::selector::LabelSelector;

use crate::cluster::Cluster;
use crate::cycle::fits;
use crate::framework::Reason;
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// So many nodes to choose from are enough.
const ENOUGH: usize = 100;

/// What can be done for a pod that fits nowhere.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// These pods are to go from this node.
    Preempt { node: String, victims: Vec<Arc<PodInfo>> },
    /// It has been done: they are leaving. With the words for users.
    Wait(String),
    /// Nothing. With the words for users.
    Nothing(String),
}

/// Might a node that this plug-in refuses for these reasons fit without some of its pods?
pub(crate) fn may_help(pod: &PodInfo, node: &NodeInfo, plugin: &str, reasons: &[Reason]) -> bool {
    match plugin {
        "NodeUnschedulable" | "NodeName" | "TaintToleration" | "NodeAffinity" => false,
        "NodeResourcesFit" => pod.requests.is_within(&node.allocatable),
        // What it wants near is not there, and a node gets no label by losing pods.
        _ => {
            !reasons.iter().any(|r| r.contains("pod affinity rules") || r.contains("missing required label"))
        }
    }
}

struct Candidate {
    node: String,
    victims: Vec<Arc<PodInfo>>,
    /// How many victims their budgets would rather keep.
    violations: usize,
}

impl Candidate {
    /// How much harm it does: broken budgets, then important victims, then many, then old ones.
    fn harm(&self) -> impl Ord + use<> {
        let priorities = || self.victims.iter().map(|victim| i64::from(victim.priority));
        let highest = priorities().max().unwrap_or(i64::MIN);
        let starts = self.victims.iter().filter(|victim| i64::from(victim.priority) == highest);
        // Two of a negative priority are worse than one.
        let sum: i64 = priorities().map(|priority| priority - i64::from(i32::MIN)).sum();
        let start = starts.map(|victim| started(victim)).min().unwrap_or(Timestamp::MAX);
        (self.violations, highest, sum, self.victims.len(), Reverse(start))
    }
}

/// What to do for a pod that none of the nodes fits; `resolvable` are those that might.
pub(crate) fn plan(
    pod: &PodInfo,
    cluster: &Cluster,
    resolvable: &[String],
    budgets: &[Arc<PodDisruptionBudget>],
) -> Outcome {
    if pod.pod.spec.as_ref().and_then(|spec| spec.preemption_policy.as_deref()) == Some("Never") {
        return Outcome::Nothing("not eligible due to preemptionPolicy=Never.".to_owned());
    }
    if waits(pod, cluster, resolvable) {
        return Outcome::Wait("not eligible due to a terminating pod on the nominated node.".to_owned());
    }
    let lesser = |name: &&String| {
        let node = cluster.node(name);
        node.is_some_and(|node| node.pods.iter().any(|placed| placed.priority < pod.priority))
    };
    let mut found: Vec<Candidate> = Vec::new();
    let names: Vec<&String> = resolvable.iter().filter(lesser).collect();
    if !names.is_empty() {
        // Room that is kept for others is not there to be had.
        let mut what_if = cluster.with_nominated(pod).unwrap_or_else(|| cluster.clone());
        for name in names {
            found.extend(candidate(pod, name, &mut what_if, budgets));
            if found.len() >= ENOUGH {
                break;
            }
        }
    }
    if let Some(best) = found.into_iter().min_by_key(Candidate::harm) {
        return Outcome::Preempt { node: best.node, victims: best.victims };
    }
    let total = cluster.nodes().len();
    let mut texts = Vec::new();
    for (count, what) in [
        (resolvable.len(), "No preemption victims found for incoming pod"),
        (total - resolvable.len(), "Preemption is not helpful for scheduling"),
    ] {
        if count > 0 {
            texts.push(format!("{count} {what}"));
        }
    }
    texts.sort();
    Outcome::Nothing(format!("0/{total} nodes are available: {}.", texts.join(", ")))
}

/// Are pods that went for this one still on the node it is nominated for?
fn waits(pod: &PodInfo, cluster: &Cluster, resolvable: &[String]) -> bool {
    let Some(own) = cluster.nomination(&pod.key) else { return false };
    // A node that has become unfit for other reasons is not worth waiting for.
    resolvable.contains(&own.node)
        && cluster.node(&own.node).is_some_and(|node| {
            node.pods.iter().any(|placed| {
                placed.priority < pod.priority
                    && (own.victims.contains(&placed.uid) || placed.pod.metadata.deletion_timestamp.is_some())
            })
        })
}

/// The fewest and least important pods of a node whose going makes room. Leaves `what_if` as it was.
fn candidate(
    pod: &PodInfo,
    node: &str,
    what_if: &mut Cluster,
    budgets: &[Arc<PodDisruptionBudget>],
) -> Option<Candidate> {
    let placed = &what_if.node(node)?.pods;
    let mut lesser: Vec<Arc<PodInfo>> =
        placed.iter().filter(|placed| placed.priority < pod.priority).cloned().collect();
    let all = lesser.clone();
    for victim in &lesser {
        what_if.displace(&victim.key);
    }
    let mut victims = Vec::new();
    let mut violations = 0;
    let possible = fits(pod, what_if, node);
    if possible {
        // Put back what can stay: first what budgets protect, then the important, then the old.
        lesser.sort_by_key(|victim| (Reverse(victim.priority), started(victim), victim.key.clone()));
        let (protected, free) = by_budgets(lesser, budgets);
        let protected = protected.into_iter().map(|victim| (victim, true));
        for (victim, is_protected) in protected.chain(free.into_iter().map(|victim| (victim, false))) {
            what_if.place(Arc::clone(&victim), node);
            if !fits(pod, what_if, node) {
                what_if.displace(&victim.key);
                violations += usize::from(is_protected);
                victims.push(victim);
            }
        }
    }
    for victim in all {
        what_if.place(victim, node);
    }
    (possible && !victims.is_empty()).then(|| Candidate { node: node.to_owned(), victims, violations })
}

/// Those whose going would break a budget, and the others.
fn by_budgets(
    pods: Vec<Arc<PodInfo>>,
    budgets: &[Arc<PodDisruptionBudget>],
) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut left: Vec<(&PodDisruptionBudget, LabelSelector, i32)> = budgets
        .iter()
        .filter_map(|budget| {
            let selector = budget.spec.as_ref()?.selector.as_ref();
            let selector =
                LabelSelector::from_typed(selector).ok().filter(|selector| !selector.is_empty())?;
            let allowed = budget.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or(0);
            Some((&**budget, selector, allowed))
        })
        .collect();
    pods.into_iter().partition(|pod| {
        let mut breaks = false;
        for (budget, selector, allowed) in &mut left {
            let same_namespace = budget.metadata.namespace.as_deref() == Some(&pod.key.namespace);
            let counted = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
            // The budget has let it go already.
            let gone = counted.is_some_and(|gone| gone.contains_key(&pod.key.name));
            if same_namespace && !gone && selector.matches_map(pod.pod.metadata.labels.as_ref()) {
                *allowed -= 1;
                breaks |= *allowed < 0;
            }
        }
        breaks
    })
}

fn started(pod: &PodInfo) -> Timestamp {
    let status = pod.pod.status.as_ref();
    status.and_then(|status| status.start_time.as_ref()).map_or(Timestamp::MAX, |time| time.0)
}

#[cfg(test)]
mod tests;
