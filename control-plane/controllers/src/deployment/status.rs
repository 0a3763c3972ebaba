//! The status of a deployment, as `kubectl rollout status` reads it.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::numbers::{self, size};
use super::plan::{Roles, Snapshot};

struct Counts {
    replicas: i32,
    updated: i32,
    ready: i32,
    available: i32,
    terminating: i32,
}

fn count(roles: &Roles<'_>) -> Counts {
    let mut counts = Counts { replicas: 0, updated: 0, ready: 0, available: 0, terminating: 0 };
    for set in roles.old.iter().chain(roles.new.iter()) {
        let status = set.status.clone().unwrap_or_default();
        counts.replicas += status.replicas;
        counts.ready += status.ready_replicas.unwrap_or(0);
        counts.available += status.available_replicas.unwrap_or(0);
        counts.terminating += status.terminating_replicas.unwrap_or(0);
    }
    counts.updated = roles.new.and_then(|s| s.status.as_ref()).map_or(0, |s| s.replicas);
    counts
}

/// Whether nothing is left to do: all pods new and available, no old ones.
pub(super) fn is_complete(deployment: &Deployment, roles: &Roles<'_>) -> bool {
    let want = numbers::replicas(deployment);
    let counts = count(roles);
    let all = roles.old.iter().all(|s| size(s) == 0) && roles.new.is_some_and(|s| size(s) == want);
    all && counts.updated == want && counts.replicas == want && counts.available == want
}

/// The status to write, or `None` when it is there already.
pub(super) fn status(
    snapshot: &Snapshot<'_>,
    roles: &Roles<'_>,
    created: bool,
    again: &mut Option<Duration>,
) -> Option<Value> {
    let deployment = snapshot.deployment;
    let before = deployment.status.clone().unwrap_or_default();
    let want = numbers::replicas(deployment);
    let counts = count(roles);
    let sizes: i32 = roles.old.iter().chain(roles.new.iter()).map(|s| size(s)).sum();
    let mut conditions = before.conditions.clone().unwrap_or_default();
    let (_, unavailable) = numbers::bounds(deployment);
    let enough = counts.available >= want - unavailable;
    let (status, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut conditions, "Available", status, reason, message, snapshot.now);
    let mut after = before.clone();
    after.observed_generation = deployment.metadata.generation;
    after.replicas = Some(counts.replicas);
    after.updated_replicas = Some(counts.updated);
    after.ready_replicas = Some(counts.ready);
    after.available_replicas = Some(counts.available);
    after.unavailable_replicas = Some((sizes - counts.available).max(0));
    after.terminating_replicas = Some(counts.terminating);
    progress(snapshot, roles, created, &counts, &mut conditions, again);
    match failure(roles) {
        Some((reason, message)) => {
            set(&mut conditions, "ReplicaFailure", "True", &reason, &message, snapshot.now);
        }
        None => conditions.retain(|c| c.type_ != "ReplicaFailure"),
    }
    after.conditions = Some(conditions);
    (after != before).then(|| json!(after))
}

fn progress(
    snapshot: &Snapshot<'_>,
    roles: &Roles<'_>,
    created: bool,
    counts: &Counts,
    conditions: &mut Vec<DeploymentCondition>,
    again: &mut Option<Duration>,
) {
    let deployment = snapshot.deployment;
    let spec = deployment.spec.as_ref();
    // No deadline: no progress is told of.
    let Some(deadline) = spec.and_then(|s| s.progress_deadline_seconds).filter(|d| *d != i32::MAX) else {
        conditions.retain(|c| c.type_ != "Progressing");
        return;
    };
    let now = snapshot.now;
    let current = conditions.iter().find(|c| c.type_ == "Progressing").cloned();
    let reason_now = current.as_ref().and_then(|c| c.reason.clone()).unwrap_or_default();
    let paused = spec.and_then(|s| s.paused).unwrap_or(false);
    if paused {
        if reason_now != "DeploymentPaused" && reason_now != "ProgressDeadlineExceeded" {
            set(conditions, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused", now);
        }
        return;
    }
    let name = roles.new.and_then(|s| s.metadata.name.as_deref());
    let what = name.map_or_else(
        || format!("Deployment {:?}", deployment.metadata.name.as_deref().unwrap_or_default()),
        |name| format!("ReplicaSet {name:?}"),
    );
    if reason_now == "DeploymentPaused" {
        set(conditions, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed", now);
        return;
    }
    if is_complete(deployment, roles) {
        let message = format!("{what} has successfully progressed.");
        set(conditions, "Progressing", "True", "NewReplicaSetAvailable", &message, now);
        return;
    }
    let before = deployment.status.clone().unwrap_or_default();
    let old_before = before.replicas.unwrap_or(0) - before.updated_replicas.unwrap_or(0);
    let moved = counts.updated > before.updated_replicas.unwrap_or(0)
        || counts.replicas - counts.updated < old_before
        || counts.ready > before.ready_replicas.unwrap_or(0)
        || counts.available > before.available_replicas.unwrap_or(0);
    if created {
        let message = "Created new replica set";
        touch(conditions, "NewReplicaSetCreated", message, now);
    } else if current.is_none() {
        let message = format!("Found new replica set {:?}", name.unwrap_or_default());
        touch(conditions, "FoundNewReplicaSet", &message, now);
    } else if reason_now == "NewReplicaSetAvailable" && counts.replicas == counts.updated {
        // Only the size changed: that is no rollout.
        return;
    } else if moved || reason_now == "NewReplicaSetAvailable" {
        // A rollout begins anew, or it got on.
        touch(conditions, "ReplicaSetUpdated", &format!("{what} is progressing."), now);
    } else if reason_now != "ProgressDeadlineExceeded" {
        let since = current.as_ref().and_then(|c| c.last_update_time.as_ref()).map_or(now, |t| t.0);
        let left = i64::from(deadline) - now.duration_since(since).as_secs();
        if left <= 0 {
            let message = format!("{what} has timed out progressing.");
            set(conditions, "Progressing", "False", "ProgressDeadlineExceeded", &message, now);
        } else {
            *again = Some(Duration::from_secs(left.unsigned_abs() + 1));
        }
        return;
    } else {
        return;
    }
    *again = Some(Duration::from_secs(u64::try_from(deadline).unwrap_or(600) + 1));
}

/// Sets `Progressing` true and renews its update time, from which the deadline counts.
fn touch(conditions: &mut Vec<DeploymentCondition>, reason: &str, message: &str, now: Timestamp) {
    set(conditions, "Progressing", "True", reason, message, now);
    if let Some(condition) = conditions.iter_mut().find(|c| c.type_ == "Progressing") {
        condition.last_update_time = Some(Time(now));
    }
}

/// Sets a condition; the same status and reason leave it as it is.
fn set(
    conditions: &mut Vec<DeploymentCondition>,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let known = conditions.iter().find(|c| c.type_ == kind).cloned();
    let mut since = Some(Time(now));
    if let Some(known) = known {
        if known.status == status && known.reason.as_deref() == Some(reason) {
            return;
        }
        if known.status == status {
            since = known.last_transition_time;
        }
    }
    conditions.retain(|c| c.type_ != kind);
    conditions.push(DeploymentCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: since,
        last_update_time: Some(Time(now)),
    });
}

fn failure(roles: &Roles<'_>) -> Option<(String, String)> {
    let of = |set: &ReplicaSet| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        let condition = conditions.iter().find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
        Some((condition.reason.clone().unwrap_or_default(), condition.message.clone().unwrap_or_default()))
    };
    roles.new.and_then(|s| of(s)).or_else(|| roles.old.iter().find_map(|s| of(s)))
}
