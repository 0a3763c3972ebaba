//! Keeps the asked number of pods: the one core of ReplicaSets and ReplicationControllers.
//!
//! `plan` says which pods to take in, let go, create and delete, and what the status is; it never asks
//! for pods while the store does not show yet what was done before.

mod apply;
mod kinds;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use skep_api::selector::LabelSelector;

use crate::pods;
pub(crate) use apply::Replicas;

/// Pods created or deleted at most in one go.
const BURST: usize = 500;

/// What both kinds have in common.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) namespace: String,
    pub(crate) owner: OwnerReference,
    pub(crate) deleting: bool,
    pub(crate) selector: LabelSelector,
    pub(crate) replicas: i32,
    pub(crate) min_ready: i32,
    pub(crate) template: PodTemplateSpec,
    pub(crate) generation: i64,
    pub(crate) status: Observed,
}

/// The status.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Observed {
    pub(crate) replicas: i32,
    pub(crate) fully_labeled: i32,
    pub(crate) ready: i32,
    pub(crate) available: i32,
    pub(crate) terminating: i32,
    pub(crate) generation: i64,
    /// Reason and message of the `ReplicaFailure` condition, while it is true.
    pub(crate) failure: Option<(String, String)>,
}

/// What `plan` looks at.
pub(crate) struct Snapshot<'a> {
    pub(crate) wanted: &'a Wanted,
    /// Pods controlled by the owner, and those of the namespace that nobody controls.
    pub(crate) pods: &'a [Arc<Pod>],
    /// Pods of the same application, to judge which nodes are crowded.
    pub(crate) siblings: &'a [Arc<Pod>],
    /// The store shows all that was done before.
    pub(crate) settled: bool,
    pub(crate) now: Timestamp,
}

/// What to do.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) adopt: Vec<Arc<Pod>>,
    pub(crate) release: Vec<Arc<Pod>>,
    pub(crate) create: usize,
    pub(crate) delete: Vec<Arc<Pod>>,
    pub(crate) status: Observed,
    /// A pod becomes available by time alone: look again then.
    pub(crate) again: Option<Duration>,
}

/// Decides. Pure.
pub(crate) fn plan(snapshot: &Snapshot<'_>) -> Plan {
    let wanted = snapshot.wanted;
    let mut plan = Plan::default();
    let mut claimed: Vec<&Arc<Pod>> = Vec::new();
    for pod in snapshot.pods {
        let matches = wanted.selector.matches_map(pod.metadata.labels.as_ref());
        match crate::owners::controller_of(&pod.metadata) {
            Some(owner) if owner.uid == wanted.owner.uid => {
                if matches {
                    claimed.push(pod);
                } else if !wanted.deleting {
                    plan.release.push(pod.clone());
                }
            }
            Some(_) => {}
            None if matches && pods::is_active(pod) && !wanted.deleting => {
                plan.adopt.push(pod.clone());
                claimed.push(pod);
            }
            None => {}
        }
    }
    let mut active: Vec<Arc<Pod>> =
        claimed.iter().filter(|p| pods::is_active(p)).map(|p| Arc::clone(p)).collect();
    let leaving = |p: &&&Arc<Pod>| p.metadata.deletion_timestamp.is_some() && !pods::is_finished(p);
    plan.status = count(wanted, &active, snapshot.now, &mut plan.again);
    plan.status.terminating = int(claimed.iter().filter(leaving).count());
    plan.status.generation = wanted.generation;
    plan.status.failure = wanted.status.failure.clone();
    if wanted.deleting || !snapshot.settled {
        return plan;
    }
    let want = usize::try_from(wanted.replicas).unwrap_or(0);
    if active.len() < want {
        plan.create = (want - active.len()).min(BURST);
    } else if active.len() > want {
        let surplus = (active.len() - want).min(BURST);
        pods::sort_for_deletion(&mut active, snapshot.siblings);
        active.truncate(surplus);
        plan.delete = active;
    } else {
        plan.status.failure = None;
    }
    plan
}

fn count(wanted: &Wanted, active: &[Arc<Pod>], now: Timestamp, again: &mut Option<Duration>) -> Observed {
    let template_labels =
        wanted.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    let mut status = Observed { replicas: int(active.len()), ..Observed::default() };
    for pod in active {
        let labels = pod.metadata.labels.as_ref();
        let full = template_labels.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v));
        status.fully_labeled += i32::from(full);
        status.ready += i32::from(pods::is_ready(pod));
        match pods::is_available(pod, wanted.min_ready, now) {
            Ok(available) => status.available += i32::from(available),
            Err(left) => *again = Some(again.map_or(left, |a| a.min(left))),
        }
    }
    status
}

fn int(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
