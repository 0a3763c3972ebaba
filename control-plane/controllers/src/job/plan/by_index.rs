//! Failures that count for their index alone (KEP-3850). Pure.
//!
//! A pod carries how often its index had failed before; the pod that failed keeps its finalizer until the next
//! one has taken the number over, so that none is lost.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use super::verdict::action;
use super::{Snapshot, has_failed};
use crate::job::index_of;

/// How often the index of a pod had failed before.
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";

/// How often an index may fail.
pub(super) fn limit(job: &Job) -> Option<u32> {
    job.spec.as_ref()?.backoff_limit_per_index.and_then(|limit| u32::try_from(limit).ok())
}

/// Notes in a new pod how often its index has failed.
pub(crate) fn note(pod: &mut Pod, failures: u32) {
    pod.metadata.annotations.get_or_insert_default().insert(FAILURES.into(), failures.to_string());
}

fn before(pod: &Pod) -> u32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get(FAILURES)?.parse().ok()).unwrap_or(0)
}

/// The failures of its index with that of this pod.
fn with(job: &Job, pod: &Pod) -> u32 {
    let ignored = action(job, pod).is_some_and(|(action, ..)| action == "Ignore");
    before(pod) + u32::from(!ignored)
}

/// How often an index has failed, as far as pods tell.
pub(super) fn failures(snapshot: &Snapshot<'_>, index: u32) -> u32 {
    let mine = snapshot.pods.iter().filter(|pod| has_failed(pod) && index_of(pod) == Some(index));
    mine.map(|pod| with(snapshot.job, pod)).max().unwrap_or(0)
}

/// Indexes that have failed for good: those written down, those over their limit, those a policy gives up.
pub(super) fn failed(
    snapshot: &Snapshot<'_>,
    mut known: BTreeSet<u32>,
    done: &BTreeSet<u32>,
) -> BTreeSet<u32> {
    let Some(limit) = limit(snapshot.job) else { return BTreeSet::new() };
    for pod in snapshot.pods.iter().filter(|pod| has_failed(pod)) {
        let given_up = action(snapshot.job, pod).is_some_and(|(action, ..)| action == "FailIndex");
        if let Some(index) = index_of(pod)
            && (given_up || with(snapshot.job, pod) > limit)
        {
            known.insert(index);
        }
    }
    known.retain(|index| !done.contains(index));
    known
}

/// Whether the number of failures would be lost with this pod.
pub(super) fn is_needed(snapshot: &Snapshot<'_>, pod: &Pod, settled: &BTreeSet<u32>) -> bool {
    let Some(index) = index_of(pod).filter(|_| limit(snapshot.job).is_some()) else { return false };
    let failures = with(snapshot.job, pod);
    let taken_over = |other: &Pod| {
        other.metadata.uid != pod.metadata.uid && index_of(other) == Some(index) && before(other) >= failures
    };
    failures > 0 && !settled.contains(&index) && !snapshot.pods.iter().any(|other| taken_over(other))
}
