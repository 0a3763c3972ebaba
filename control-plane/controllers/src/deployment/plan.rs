//! The next step of a deployment. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::numbers::{self, DESIRED, HASH, MAX, REVISION, REVISION_HISTORY, available, revision, size};
use super::status;
use crate::owners::controller_ref;

/// What there is.
pub(super) struct Snapshot<'a> {
    pub(super) deployment: &'a Deployment,
    /// Its ReplicaSets.
    pub(super) sets: &'a [Arc<ReplicaSet>],
    /// For each of them, its pods that have not ended.
    pub(super) running: &'a [usize],
    pub(super) now: Timestamp,
}

/// A write to a ReplicaSet.
#[derive(Debug)]
pub(super) enum Step {
    Create(Box<ReplicaSet>),
    Change { set: Arc<ReplicaSet>, replicas: i32, annotations: BTreeMap<String, String> },
    Delete(Arc<ReplicaSet>),
}

/// What to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Annotations of the deployment to set.
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) steps: Vec<Step>,
    /// The status to write, when it changes.
    pub(super) status: Option<Value>,
    pub(super) again: Option<Duration>,
}

/// The ReplicaSets in their roles.
pub(super) struct Roles<'a> {
    /// The one with the current template.
    pub(super) new: Option<&'a Arc<ReplicaSet>>,
    /// The others, oldest first.
    pub(super) old: Vec<&'a Arc<ReplicaSet>>,
}

pub(super) fn plan(snapshot: &Snapshot<'_>) -> Plan {
    let deployment = snapshot.deployment;
    let mut plan = Plan::default();
    let roles = roles(snapshot);
    if deployment.metadata.deletion_timestamp.is_some() {
        plan.status = status::status(snapshot, &roles, false, &mut plan.again);
        return plan;
    }
    let paused = deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or(false);
    let mut created = false;
    if paused {
        scale(deployment, &roles, &mut plan);
    } else {
        let number = roles.old.iter().map(|s| revision(s)).max().unwrap_or(0) + 1;
        if let Some(new) = roles.new {
            renumber(deployment, new, number, &mut plan);
        }
        if is_scaling(deployment, &roles) {
            scale(deployment, &roles, &mut plan);
        } else if numbers::is_recreate(deployment) {
            created = recreate(snapshot, &roles, number, &mut plan);
        } else {
            created = roll(deployment, &roles, number, &mut plan);
        }
        if plan.steps.is_empty() && status::is_complete(deployment, &roles) {
            clean_up(deployment, &roles, &mut plan);
        }
    }
    plan.status = status::status(snapshot, &roles, created, &mut plan.again);
    plan
}

fn roles<'a>(snapshot: &'a Snapshot<'_>) -> Roles<'a> {
    let mut sets: Vec<&Arc<ReplicaSet>> = snapshot.sets.iter().collect();
    // By age; the name decides between equals, so that the same one is found every time.
    sets.sort_by_key(|s| (s.metadata.creation_timestamp.clone().map(|t| t.0), s.metadata.name.clone()));
    let new = sets.iter().copied().find(|s| numbers::same_template(s, snapshot.deployment));
    let uid = new.and_then(|s| s.metadata.uid.clone());
    let old = sets.into_iter().filter(|s| new.is_none() || s.metadata.uid != uid).collect();
    Roles { new, old }
}

/// Gives the new ReplicaSet the highest revision (after a rollback it is an old one) and the deployment
/// the same.
fn renumber(deployment: &Deployment, new: &Arc<ReplicaSet>, number: i64, plan: &mut Plan) {
    let current = revision(new);
    let mut annotations = BTreeMap::new();
    if current < number {
        annotations.insert(REVISION.to_owned(), number.to_string());
        if current > 0 {
            let known = new.metadata.annotations.as_ref().and_then(|a| a.get(REVISION_HISTORY));
            let history = match known.filter(|h| !h.is_empty()) {
                Some(history) => format!("{history},{current}"),
                None => current.to_string(),
            };
            annotations.insert(REVISION_HISTORY.to_owned(), history);
        }
    }
    let theirs = deployment.metadata.annotations.as_ref();
    for (key, value) in theirs.into_iter().flatten().filter(|(key, _)| is_copied(key)) {
        if new.metadata.annotations.as_ref().and_then(|a| a.get(key)) != Some(value) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let number = number.max(current).to_string();
    if theirs.and_then(|a| a.get(REVISION)) != Some(&number) {
        plan.annotations.insert(REVISION.to_owned(), number);
    }
    if !annotations.is_empty() {
        change(plan, new, size(new), annotations);
    }
}

/// Annotations of the deployment that its ReplicaSets carry too.
fn is_copied(key: &str) -> bool {
    !matches!(
        key,
        "kubectl.kubernetes.io/last-applied-configuration"
            | REVISION
            | REVISION_HISTORY
            | DESIRED
            | MAX
            | "deprecated.deployment.rollback.to"
    )
}

/// Changes a ReplicaSet; several changes of one become one write.
fn change(plan: &mut Plan, set: &Arc<ReplicaSet>, to: i32, more: BTreeMap<String, String>) {
    for step in &mut plan.steps {
        if let Step::Change { set: known, replicas, annotations } = step
            && known.metadata.uid == set.metadata.uid
        {
            *replicas = to;
            annotations.extend(more);
            return;
        }
    }
    plan.steps.push(Step::Change { set: set.clone(), replicas: to, annotations: more });
}

/// Scales a ReplicaSet and notes the size of the deployment in it.
fn resize(deployment: &Deployment, plan: &mut Plan, set: &Arc<ReplicaSet>, to: i32) {
    let notes = notes(deployment);
    let known = set.metadata.annotations.as_ref();
    let noted = notes.iter().all(|(k, v)| known.and_then(|a| a.get(k)) == Some(v));
    if to != size(set) || !noted {
        change(plan, set, to, notes);
    }
}

fn notes(deployment: &Deployment) -> BTreeMap<String, String> {
    let replicas = numbers::replicas(deployment);
    let (surge, _) = numbers::bounds(deployment);
    [(DESIRED, replicas), (MAX, replicas + surge)].map(|(k, v)| (k.to_owned(), v.to_string())).into()
}

/// Whether the size of the deployment changed since its ReplicaSets were last scaled.
fn is_scaling(deployment: &Deployment, roles: &Roles<'_>) -> bool {
    let mut sets = roles.old.iter().chain(roles.new.iter()).filter(|s| size(s) > 0);
    sets.any(|s| {
        numbers::annotation(s, DESIRED).is_some_and(|d| d != i64::from(numbers::replicas(deployment)))
    })
}

/// Brings the ReplicaSets to a new size of the deployment, keeping their proportions during a rollout.
fn scale(deployment: &Deployment, roles: &Roles<'_>, plan: &mut Plan) {
    let want = numbers::replicas(deployment);
    let active: Vec<&Arc<ReplicaSet>> =
        roles.old.iter().copied().filter(|s| size(s) > 0).chain(roles.new.filter(|s| size(s) > 0)).collect();
    if active.len() <= 1 {
        let only = active.first().copied().or(roles.new).or(roles.old.last().copied());
        if let Some(only) = only {
            resize(deployment, plan, only, want);
        }
        return;
    }
    let saturated = |s: &Arc<ReplicaSet>| {
        size(s) == want && numbers::annotation(s, DESIRED) == Some(i64::from(want)) && available(s) == want
    };
    if roles.new.is_some_and(saturated) {
        for set in &roles.old {
            resize(deployment, plan, set, 0);
        }
        return;
    }
    if numbers::is_recreate(deployment) {
        return;
    }
    let total: i32 = active.iter().map(|s| size(s)).sum();
    let allowed = if want > 0 { want + numbers::bounds(deployment).0 } else { 0 };
    let add = allowed - total;
    let mut active = active;
    // Larger first; of equals the newer when growing, the older when shrinking.
    let created = |s: &Arc<ReplicaSet>| s.metadata.creation_timestamp.clone().map(|t| t.0);
    active.sort_by(|a, b| {
        let by_age = created(a).cmp(&created(b));
        size(b).cmp(&size(a)).then(if add > 0 { by_age.reverse() } else { by_age })
    });
    let mut sizes: Vec<i32> = active.iter().map(|s| size(s)).collect();
    let mut added = 0;
    for (set, size) in active.iter().zip(&mut sizes) {
        let part = proportion(set, *size, deployment, allowed, add, add - added);
        *size += part;
        added += part;
    }
    // What rounding left goes to the first.
    if let Some(first) = sizes.first_mut() {
        *first = (*first + add - added).max(0);
    }
    for (set, size) in active.iter().zip(sizes) {
        resize(deployment, plan, set, size);
    }
}

/// The part of `add` for a ReplicaSet, not beyond what is left of it.
fn proportion(
    set: &ReplicaSet,
    size: i32,
    deployment: &Deployment,
    allowed: i32,
    add: i32,
    left: i32,
) -> i32 {
    if size == 0 || add == 0 || left == 0 {
        return 0;
    }
    let before = numbers::annotation(set, MAX).filter(|m| *m > 0);
    let status = deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    let before = before.unwrap_or(i64::from(status.max(1))) as f64;
    let target = (f64::from(size) * f64::from(allowed) / before).round() as i32;
    let part = target - size;
    if add > 0 { part.clamp(0, left) } else { part.clamp(left, 0) }
}

/// Recreate: all old pods go, then the new come. Returns whether a ReplicaSet is to be created.
fn recreate(snapshot: &Snapshot<'_>, roles: &Roles<'_>, number: i64, plan: &mut Plan) -> bool {
    let deployment = snapshot.deployment;
    let up: Vec<&Arc<ReplicaSet>> = roles.old.iter().copied().filter(|s| size(s) > 0).collect();
    if !up.is_empty() {
        for set in up {
            resize(deployment, plan, set, 0);
        }
        return false;
    }
    let is_new = |s: &Arc<ReplicaSet>| roles.new.is_some_and(|n| n.metadata.uid == s.metadata.uid);
    let mut sets = snapshot.sets.iter().zip(snapshot.running);
    if sets.any(|(set, running)| !is_new(set) && *running > 0) {
        return false;
    }
    match roles.new {
        Some(new) => resize(deployment, plan, new, numbers::replicas(deployment)),
        None => plan.steps.push(Step::Create(Box::new(new_set(
            deployment,
            number,
            numbers::replicas(deployment),
        )))),
    }
    roles.new.is_none()
}

/// Rolling update: new pods up to the surge, old ones down to what must stay available. Returns whether
/// a ReplicaSet is to be created.
fn roll(deployment: &Deployment, roles: &Roles<'_>, number: i64, plan: &mut Plan) -> bool {
    let want = numbers::replicas(deployment);
    let (surge, unavailable) = numbers::bounds(deployment);
    let old_total: i32 = roles.old.iter().map(|s| size(s)).sum();
    let room = |new: i32| (want + surge - old_total - new).clamp(0, (want - new).max(0));
    let Some(new) = roles.new else {
        let set = new_set(deployment, number, room(0));
        plan.annotations.insert(REVISION.to_owned(), number.to_string());
        plan.steps.push(Step::Create(Box::new(set)));
        return true;
    };
    let target = if size(new) > want { want } else { size(new) + room(size(new)) };
    resize(deployment, plan, new, target);
    if target != size(new) || old_total == 0 {
        return false;
    }
    // How many may go: what is asked beyond the least, minus the new ones that are not there yet.
    let least = want - unavailable;
    let missing = size(new) - available(new);
    let mut may_go = old_total + size(new) - least - missing;
    if may_go <= 0 {
        return false;
    }
    let mut sizes: Vec<i32> = roles.old.iter().map(|s| size(s)).collect();
    // Those that serve nobody first: they cost nothing.
    for (set, size) in roles.old.iter().zip(&mut sizes) {
        let idle = (*size - available(set)).clamp(0, may_go);
        *size -= idle;
        may_go -= idle;
    }
    let serving: i32 = available(new) + roles.old.iter().map(|s| available(s)).sum::<i32>();
    let mut may_go = may_go.min(serving - least);
    for size in &mut sizes {
        let go = (*size).min(may_go.max(0));
        *size -= go;
        may_go -= go;
    }
    for (set, target) in roles.old.iter().zip(sizes) {
        if target != size(set) {
            resize(deployment, plan, set, target);
        }
    }
    false
}

fn new_set(deployment: &Deployment, number: i64, replicas: i32) -> ReplicaSet {
    let meta = &deployment.metadata;
    let spec = deployment.spec.clone().unwrap_or_default();
    let collisions = deployment.status.as_ref().and_then(|s| s.collision_count);
    let hash = numbers::hash(&spec.template, collisions);
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH.into(), hash.clone());
    let labels = labels.clone();
    let mut selector: LabelSelector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH.into(), hash.clone());
    let mut annotations: BTreeMap<String, String> =
        meta.annotations.clone().unwrap_or_default().into_iter().filter(|(k, _)| is_copied(k)).collect();
    annotations.extend(notes(deployment));
    annotations.insert(REVISION.into(), number.to_string());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", meta.name.as_deref().unwrap_or_default())),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_ref(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// Deletes what the history limit no longer keeps.
fn clean_up(deployment: &Deployment, roles: &Roles<'_>, plan: &mut Plan) {
    let limit = deployment.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
    let mut idle: Vec<&Arc<ReplicaSet>> =
        roles.old.iter().copied().filter(|s| s.metadata.deletion_timestamp.is_none()).collect();
    idle.sort_by_key(|s| revision(s));
    let surplus = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    for set in idle.into_iter().take(surplus) {
        let status = set.status.clone().unwrap_or_default();
        let seen = status.observed_generation.unwrap_or(0) >= set.metadata.generation.unwrap_or(0);
        if size(set) == 0 && status.replicas == 0 && seen {
            plan.steps.push(Step::Delete(set.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
