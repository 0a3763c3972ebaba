//! The next step of a Job. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use skep_client::events::EventType;

use super::{TRACKING, index_of, indexes, is_indexed};
use crate::pods;
use verdict::{Verdict, action, standing, verdict};

pub(super) mod by_index;
mod verdict;

/// Pods created in one go.
const BURST: usize = 500;
const FIRST_BACKOFF: u64 = 10;
const LONGEST_BACKOFF: u64 = 600;

pub(super) struct Snapshot<'a> {
    pub(super) job: &'a Job,
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) settled: bool,
    pub(super) now: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Pods to make.
    pub(super) create: Vec<Start>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// Pods whose uid is written down by `status` and who need not stay any more.
    pub(super) untrack: Vec<Arc<Pod>>,
    pub(super) status: Option<Value>,
    pub(super) event: Option<(EventType, String, String)>,
    pub(super) again: Option<Duration>,
}

/// A pod to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Start {
    /// Its index, when pods have one.
    pub(super) index: Option<u32>,
    /// How often its index has failed, where that counts.
    pub(super) failures: Option<u32>,
}

/// What has come of the pods so far.
struct Tally {
    /// Indexes that have succeeded.
    done: BTreeSet<u32>,
    /// Indexes that have failed for good.
    failed_indexes: BTreeSet<u32>,
    succeeded: i32,
    failed: i32,
}

fn has_condition(status: &JobStatus, kind: &str) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == "True")
}

fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|f| f == TRACKING)
}

/// Ended, or leaving and never to end by itself.
fn has_failed(pod: &Pod) -> bool {
    pods::phase(pod) == "Failed"
}

pub(super) fn plan(snapshot: &Snapshot<'_>) -> Plan {
    let (job, now) = (snapshot.job, snapshot.now);
    let mut plan = Plan::default();
    let Some(spec) = &job.spec else { return plan };
    let before = job.status.clone().unwrap_or_default();
    let mut after = before.clone();
    after.start_time.get_or_insert(Time(now));
    let indexed = is_indexed(job);
    let ended = has_condition(&before, "Complete") || has_condition(&before, "Failed");
    let standing = standing(&before).filter(|_| !ended);
    let failed_indexes = count(snapshot, indexed, ended || standing.is_some(), &mut after, &mut plan);

    let active: Vec<&Arc<Pod>> = snapshot.pods.iter().filter(|p| pods::is_active(p)).collect();
    let leaving =
        snapshot.pods.iter().filter(|p| p.metadata.deletion_timestamp.is_some() && !pods::is_finished(p));
    let leaving = leaving.count();
    after.terminating = Some(int(leaving));
    after.ready = Some(int(active.iter().filter(|p| pods::is_ready(p)).count()));
    let mut done = indexes::parse(after.completed_indexes.as_deref().unwrap_or_default());
    let completions = spec.completions;
    if let Some(completions) = completions.filter(|_| indexed) {
        done.retain(|i| i64::from(*i) < i64::from(completions));
    }
    let uncounted = after.uncounted_terminated_pods.clone().unwrap_or_default();
    let waiting = |uids: &Option<Vec<String>>| int(uids.as_ref().map_or(0, Vec::len));
    let tally = Tally {
        done,
        failed_indexes,
        succeeded: after.succeeded.unwrap_or(0) + waiting(&uncounted.succeeded),
        failed: after.failed.unwrap_or(0) + waiting(&uncounted.failed),
    };

    let verdict =
        if ended { None } else { standing.or_else(|| verdict(snapshot, &after, &tally, active.len())) };
    let suspended = spec.suspend == Some(true);
    if ended || verdict.is_some() || job.metadata.deletion_timestamp.is_some() {
        plan.delete.extend(active.iter().map(|p| Arc::clone(p)));
        after.active = Some(0);
    } else if suspended {
        plan.delete.extend(active.iter().map(|p| Arc::clone(p)));
        after.active = Some(0);
        after.start_time = None;
    } else {
        after.active = Some(int(active.len()));
        if snapshot.settled {
            fill(snapshot, &active, &tally, &mut after, &mut plan);
        }
        if let Some(limit) = spec.active_deadline_seconds {
            let left = limit - age(&after, now);
            soon(&mut plan.again, Duration::from_secs(u64::try_from(left).unwrap_or(0) + 1));
        }
    }
    if !ended {
        suspension(&mut after, suspended, now, &mut plan);
    }
    if let Some(verdict) = verdict {
        // The end is told when every pod has ended and is counted.
        let over = active.is_empty() && leaving == 0 && after.uncounted_terminated_pods.is_none();
        conclude(&mut after, verdict, over && snapshot.settled, now, &mut plan);
    }
    if !snapshot.settled {
        plan.delete.clear();
    }
    if after != before {
        let mut value = json!(after);
        // A merge must say what is to go.
        for field in ["startTime", "uncountedTerminatedPods"] {
            if value.get(field).is_none() {
                value[field] = Value::Null;
            }
        }
        for field in ["succeeded", "failed"] {
            if value["uncountedTerminatedPods"].is_object()
                && value["uncountedTerminatedPods"].get(field).is_none()
            {
                value["uncountedTerminatedPods"][field] = Value::Null;
            }
        }
        plan.status = Some(value);
    }
    plan
}

/// Moves finished pods through `uncountedTerminatedPods` into the counters.
/// Returns the indexes that have failed for good. `over`: no pod is made any more.
fn count(
    snapshot: &Snapshot<'_>,
    indexed: bool,
    over: bool,
    after: &mut JobStatus,
    plan: &mut Plan,
) -> BTreeSet<u32> {
    let mut uncounted = after.uncounted_terminated_pods.take().unwrap_or_default();
    let mut done = indexes::parse(after.completed_indexes.as_deref().unwrap_or_default());
    let held =
        |uid: &String| snapshot.pods.iter().any(|p| p.metadata.uid.as_ref() == Some(uid) && is_tracked(p));
    let settle = |uids: &mut Option<Vec<String>>, counter: &mut Option<i32>| {
        let list = uids.get_or_insert_default();
        let all = list.len();
        list.retain(held);
        *counter = Some(counter.unwrap_or(0) + int(all - list.len()));
    };
    // Those without finalizer had been written down before it was removed.
    if snapshot.settled {
        let mut succeeded = after.succeeded;
        settle(&mut uncounted.succeeded, &mut succeeded);
        settle(&mut uncounted.failed, &mut after.failed);
        if !indexed {
            after.succeeded = succeeded;
        }
    }
    let mine = |pod: &&Arc<Pod>| pods::phase(pod) == "Succeeded" && is_tracked(pod);
    let succeeding = snapshot.pods.iter().filter(mine).filter_map(|pod| index_of(pod)).filter(|_| indexed);
    done.extend(succeeding);
    let known = indexes::parse(after.failed_indexes.as_deref().unwrap_or_default());
    let failed_indexes = by_index::failed(snapshot, known, &done);
    let settled_indexes: BTreeSet<u32> = done.union(&failed_indexes).copied().collect();
    for pod in snapshot.pods.iter().filter(|p| is_tracked(p)) {
        if has_failed(pod) && !over && by_index::is_needed(snapshot, pod, &settled_indexes) {
            continue;
        }
        if has_failed(pod) && action(snapshot.job, pod).is_some_and(|(action, ..)| action == "Ignore") {
            // It neither counts nor keeps anybody waiting.
            plan.untrack.push(pod.clone());
            continue;
        }
        let list = match pods::phase(pod) {
            "Succeeded" => &mut uncounted.succeeded,
            _ if has_failed(pod) => &mut uncounted.failed,
            _ => {
                // A pod on its way out that never ran would wait for its finalizer for ever.
                let stuck = pod.metadata.deletion_timestamp.is_some() && pods::node_name(pod).is_none();
                if stuck {
                    plan.untrack.push(pod.clone());
                }
                continue;
            }
        };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let list = list.get_or_insert_default();
        if !list.contains(&uid) {
            list.push(uid);
        }
        plan.untrack.push(pod.clone());
    }
    if indexed {
        // An index may succeed twice; it counts once.
        after.succeeded = Some(int(done.len()) - int(uncounted.succeeded.as_ref().map_or(0, Vec::len)));
        after.completed_indexes = Some(indexes::format(&done)).filter(|t| !t.is_empty());
        after.failed_indexes = by_index::limit(snapshot.job).map(|_| indexes::format(&failed_indexes));
    }
    uncounted.succeeded = uncounted.succeeded.filter(|l| !l.is_empty());
    uncounted.failed = uncounted.failed.filter(|l| !l.is_empty());
    let empty = uncounted == UncountedTerminatedPods::default();
    after.uncounted_terminated_pods = (!empty).then_some(uncounted);
    failed_indexes
}

/// Creates what is missing and deletes what is too much.
fn fill(
    snapshot: &Snapshot<'_>,
    active: &[&Arc<Pod>],
    tally: &Tally,
    after: &mut JobStatus,
    plan: &mut Plan,
) {
    let Some(spec) = &snapshot.job.spec else { return };
    let parallel = usize::try_from(spec.parallelism.unwrap_or(1)).unwrap_or(0);
    let over = tally.succeeded + int(tally.failed_indexes.len());
    let left = spec.completions.map(|c| usize::try_from(c - over).unwrap_or(0));
    let want = match left {
        Some(left) => parallel.min(left),
        // No new pods once one has succeeded.
        None if tally.succeeded > 0 => active.len().min(parallel),
        None => parallel,
    };
    if active.len() > want {
        let mut surplus: Vec<Arc<Pod>> = active.iter().map(|p| Arc::clone(p)).collect();
        let all = surplus.clone();
        pods::sort_for_deletion(&mut surplus, &all);
        surplus.truncate(active.len() - want);
        plan.delete.extend(surplus);
        return;
    }
    let missing = (want - active.len()).min(BURST);
    if missing == 0 {
        return;
    }
    if let Some(wait) = backoff(snapshot, tally.failed) {
        soon(&mut plan.again, wait);
        return;
    }
    if is_indexed(snapshot.job) {
        let running: BTreeSet<u32> = active.iter().filter_map(|p| index_of(p)).collect();
        let total = u32::try_from(spec.completions.unwrap_or(0)).unwrap_or(0);
        let taken =
            |i: &u32| tally.done.contains(i) || tally.failed_indexes.contains(i) || running.contains(i);
        let start = |index| Start {
            index: Some(index),
            failures: by_index::limit(snapshot.job).map(|_| by_index::failures(snapshot, index)),
        };
        plan.create.extend((0..total).filter(|i| !taken(i)).take(missing).map(start));
    } else {
        plan.create.extend(std::iter::repeat_n(Start::default(), missing));
    }
    after.active = Some(int(active.len() + plan.create.len()));
}

/// How long to wait after the newest failure: 10 s, doubled with each.
fn backoff(snapshot: &Snapshot<'_>, failed: i32) -> Option<Duration> {
    let ended = |pod: &Arc<Pod>| {
        let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
        let times = statuses.filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
        times.map(|t| t.0).max()
    };
    let last = snapshot.pods.iter().filter(|p| has_failed(p)).filter_map(ended).max()?;
    let steps = u32::try_from(failed - 1).unwrap_or(0).min(10);
    let wait = (FIRST_BACKOFF << steps).min(LONGEST_BACKOFF);
    let passed = snapshot.now.duration_since(last).as_secs();
    let left = i64::try_from(wait).unwrap_or(0) - passed;
    u64::try_from(left).ok().filter(|l| *l > 0).map(Duration::from_secs)
}

fn suspension(after: &mut JobStatus, suspended: bool, now: Timestamp, plan: &mut Plan) {
    let was = has_condition(after, "Suspended");
    if suspended && !was {
        condition(after, "Suspended", "JobSuspended", "Job suspended", now);
        plan.event = Some((EventType::Normal, "Suspended".into(), "Job suspended".into()));
    } else if !suspended && was {
        if let Some(c) = after.conditions.iter_mut().flatten().find(|c| c.type_ == "Suspended") {
            c.status = "False".into();
            c.reason = Some("JobResumed".into());
            c.message = Some("Job resumed".into());
            c.last_transition_time = Some(Time(now));
        }
        after.start_time = Some(Time(now));
        plan.event = Some((EventType::Normal, "Resumed".into(), "Job resumed".into()));
    }
}

/// Writes the verdict down: that it stands, and when everything is over the end itself.
fn conclude(
    after: &mut JobStatus,
    (kind, reason, message): Verdict,
    over: bool,
    now: Timestamp,
    plan: &mut Plan,
) {
    let first = if kind == "Complete" { "SuccessCriteriaMet" } else { "FailureTarget" };
    if !has_condition(after, first) {
        condition(after, first, &reason, &message, now);
    }
    if !over {
        return;
    }
    condition(after, kind, &reason, &message, now);
    if kind == "Complete" {
        after.completion_time = Some(Time(now));
        plan.event = Some((EventType::Normal, "Completed".into(), "Job completed".into()));
    } else {
        plan.event = Some((EventType::Warning, reason, message));
    }
}

fn condition(after: &mut JobStatus, kind: &str, reason: &str, message: &str, now: Timestamp) {
    let conditions = after.conditions.get_or_insert_default();
    conditions.retain(|c| c.type_ != kind);
    conditions.push(JobCondition {
        type_: kind.into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
}

fn age(status: &JobStatus, now: Timestamp) -> i64 {
    status.start_time.as_ref().map_or(0, |t| now.duration_since(t.0).as_secs())
}

fn soon(again: &mut Option<Duration>, wait: Duration) {
    *again = Some(again.map_or(wait, |a| a.min(wait)));
}

fn int(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
