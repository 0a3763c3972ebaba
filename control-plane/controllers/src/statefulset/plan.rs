//! The next step of a StatefulSet. Pure.
//!
//! In order (`OrderedReady`): the first pod that is not what it should be is dealt with and nothing else,
//! so at most one pod is made or unmade at a time. In parallel: all that can be done is done at once.
//! Replacing pods by those of a newer revision goes from the highest number down in both.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::identity::{self, ordinal_of, revision_of};
use crate::deployment::resolve;
use crate::pods;

/// A claim that goes away tells nobody here: it is looked at again after this.
const CLAIM_WAIT: Duration = Duration::from_secs(1);

pub(super) struct Snapshot<'a> {
    pub(super) set: &'a StatefulSet,
    /// Pods the set controls, with names it gives.
    pub(super) pods: &'a [Arc<Pod>],
    /// Claims by name, of the set's namespace.
    pub(super) claims: &'a HashMap<String, Arc<PersistentVolumeClaim>>,
    /// The revision pods had before the latest change of the template.
    pub(super) current: &'a str,
    /// The revision of the template.
    pub(super) update: &'a str,
    pub(super) now: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Numbers of pods to make, and whether of the current revision (else of the update's).
    pub(super) create: Vec<(i32, bool)>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// Numbers of pods that wait for claims they do not have.
    pub(super) provide: Vec<i32>,
    /// Claims to hand over to other owners. To be done before pods are deleted.
    pub(super) hand_over: Vec<(Arc<PersistentVolumeClaim>, Vec<OwnerReference>)>,
    /// Pods whose labels do not say their number.
    pub(super) relabel: Vec<(Arc<Pod>, i32)>,
    pub(super) status: Option<Value>,
    pub(super) again: Option<Duration>,
}

/// What there is, sorted.
struct View<'a> {
    snapshot: &'a Snapshot<'a>,
    /// Pods by number, wanted or not.
    all: BTreeMap<i32, &'a Arc<Pod>>,
    start: i32,
    replicas: i32,
    min_ready: i32,
    ordered: bool,
}

impl View<'_> {
    fn wanted(&self) -> std::ops::Range<i32> {
        self.start..self.start.saturating_add(self.replicas)
    }

    /// Ready for long enough and not leaving; notes when to look again.
    fn is_available(&self, pod: &Pod, again: &mut Option<Duration>) -> bool {
        if pod.metadata.deletion_timestamp.is_some() || pods::phase(pod) != "Running" {
            return false;
        }
        pods::is_available(pod, self.min_ready, self.snapshot.now).unwrap_or_else(|left| {
            soon(again, left);
            false
        })
    }
}

fn soon(again: &mut Option<Duration>, wait: Duration) {
    *again = Some(again.map_or(wait, |a| a.min(wait)));
}

fn leaves(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn int(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The numbers below which pods stay with the current revision.
fn partition(set: &StatefulSet) -> i32 {
    let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    strategy.and_then(|s| s.rolling_update.as_ref()).and_then(|r| r.partition).unwrap_or(0)
}

fn rolls(set: &StatefulSet) -> bool {
    let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) != Some("OnDelete")
}

pub(super) fn plan(snapshot: &Snapshot<'_>) -> Plan {
    let set = snapshot.set;
    let mut plan = Plan::default();
    let Some(spec) = &set.spec else { return plan };
    let view = View {
        snapshot,
        all: snapshot.pods.iter().filter_map(|p| Some((ordinal_of(set, p)?, p))).collect(),
        start: spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0),
        replicas: spec.replicas.unwrap_or(1).max(0),
        min_ready: spec.min_ready_seconds.unwrap_or(0),
        ordered: spec.pod_management_policy.as_deref() != Some("Parallel"),
    };
    status(&view, &mut plan);
    if set.metadata.deletion_timestamp.is_none() {
        own_claims(&view, &mut plan);
        let free = fill(&view, &mut plan) && shrink(&view, &mut plan);
        if free && rolls(set) {
            roll(&view, &mut plan);
        }
    }
    plan
}

fn status(view: &View<'_>, plan: &mut Plan) {
    let snapshot = view.snapshot;
    let before = snapshot.set.status.clone().unwrap_or_default();
    let mut after = StatefulSetStatus {
        observed_generation: snapshot.set.metadata.generation,
        current_revision: Some(snapshot.current.to_owned()),
        update_revision: Some(snapshot.update.to_owned()),
        collision_count: before.collision_count,
        conditions: before.conditions.clone(),
        replicas: int(view.all.len()),
        ..StatefulSetStatus::default()
    };
    let count = |holds: &dyn Fn(&Pod) -> bool| int(view.all.values().filter(|p| holds(p)).count());
    let ready = count(&|p| pods::phase(p) == "Running" && pods::is_ready(p));
    let updated = count(&|p| !leaves(p) && revision_of(p) == Some(snapshot.update));
    let mut current = count(&|p| !leaves(p) && revision_of(p) == Some(snapshot.current));
    let available = view.all.values().filter(|p| view.is_available(p, &mut plan.again)).count();
    if rolls(snapshot.set) && [updated, ready, after.replicas] == [view.replicas; 3] {
        after.current_revision = after.update_revision.clone();
        current = updated;
    }
    after.ready_replicas = Some(ready);
    after.updated_replicas = Some(updated);
    after.current_replicas = Some(current);
    after.available_replicas = Some(int(available));
    if after != before {
        plan.status = Some(json!(after));
    }
}

/// Makes the claims go with whom the retention policy says.
fn own_claims(view: &View<'_>, plan: &mut Plan) {
    let (snapshot, wanted) = (view.snapshot, view.wanted());
    for (&number, &pod) in &view.all {
        let condemned = (!wanted.contains(&number)).then_some(&**pod);
        for name in identity::claim_names(snapshot.set, number) {
            let Some(claim) = snapshot.claims.get(&name) else { continue };
            let pod_name = identity::pod_name(snapshot.set, number);
            if let Some(references) = identity::corrected_owners(snapshot.set, claim, &pod_name, condemned) {
                plan.hand_over.push((claim.clone(), references));
            }
        }
    }
}

/// Makes the pods that are missing. Returns whether what comes after may go on.
fn fill(view: &View<'_>, plan: &mut Plan) -> bool {
    let (snapshot, set) = (view.snapshot, view.snapshot.set);
    let old_below = view.start.saturating_add(if rolls(set) { partition(set) } else { 0 });
    for number in view.wanted() {
        let Some(pod) = view.all.get(&number) else {
            let pod_name = identity::pod_name(set, number);
            let claims = identity::claim_names(set, number);
            let stale = |name: &String| {
                snapshot.claims.get(name).is_some_and(|claim| identity::is_stale(claim, &pod_name))
            };
            if claims.iter().any(stale) {
                soon(&mut plan.again, CLAIM_WAIT);
            } else {
                plan.create.push((number, number < old_below));
            }
            if view.ordered {
                return false;
            }
            continue;
        };
        if pods::is_finished(pod) {
            // The place is free when it is gone.
            if !leaves(pod) {
                plan.delete.push(Arc::clone(pod));
            }
            if view.ordered {
                return false;
            }
            continue;
        }
        let missing = |name: &String| !snapshot.claims.contains_key(name);
        if pods::phase(pod) == "Pending"
            && !leaves(pod)
            && identity::claim_names(set, number).iter().any(missing)
        {
            plan.provide.push(number);
        }
        let has = |(key, value): (&str, String)| {
            pod.metadata.labels.as_ref().is_some_and(|l| l.get(key) == Some(&value))
        };
        if !leaves(pod) && !identity::labels(set, number).into_iter().all(has) {
            plan.relabel.push((Arc::clone(pod), number));
        }
        if view.ordered && !view.is_available(pod, &mut plan.again) {
            return false;
        }
    }
    true
}

/// Deletes the pods that are too many, the highest number first. Returns whether what comes after may
/// go on.
fn shrink(view: &View<'_>, plan: &mut Plan) -> bool {
    let wanted = view.wanted();
    let condemned: Vec<&Arc<Pod>> =
        view.all.iter().rev().filter(|(n, _)| !wanted.contains(n)).map(|(_, p)| *p).collect();
    // In order, the wanted pods are all well here: the first that ails is one of these.
    let first_ailing = condemned
        .iter()
        .rev()
        .find(|p| !view.is_available(p, &mut plan.again))
        .map(|p| p.metadata.uid.clone());
    for pod in &condemned {
        if leaves(pod) {
            if view.ordered {
                return false;
            }
            continue;
        }
        let ails = !view.is_available(pod, &mut plan.again);
        if view.ordered && ails && first_ailing != Some(pod.metadata.uid.clone()) {
            return false;
        }
        plan.delete.push(Arc::clone(pod));
        if view.ordered {
            return false;
        }
    }
    true
}

/// Deletes pods of older revisions, from the highest number down to the partition, as many as may be
/// unavailable. One that serves nobody is replaced before one that does.
fn roll(view: &View<'_>, plan: &mut Plan) {
    let (snapshot, set) = (view.snapshot, view.snapshot.set);
    let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    let one = IntOrString::Int(1);
    let limit = strategy.and_then(|s| s.rolling_update.as_ref()).and_then(|r| r.max_unavailable.as_ref());
    let limit = resolve(limit.unwrap_or(&one), view.replicas, false).max(1);
    let first = view.start.saturating_add(partition(set));
    let gone = |pod: &Pod| plan.delete.iter().any(|d| d.metadata.uid == pod.metadata.uid);
    let (mut out, mut idle, mut serving) = (0, Vec::new(), Vec::new());
    let mut again = plan.again;
    for number in view.wanted().rev() {
        let Some(&pod) = view.all.get(&number) else {
            out += 1;
            continue;
        };
        let available = view.is_available(pod, &mut again);
        let is_old = number >= first && revision_of(pod) != Some(snapshot.update);
        if leaves(pod) || gone(pod) {
            out += 1;
        } else if is_old && available {
            serving.push(Arc::clone(pod));
        } else if is_old {
            idle.push(Arc::clone(pod));
        } else {
            out += i32::from(!available);
        }
    }
    plan.again = again;
    let room = usize::try_from(limit - out).unwrap_or(0);
    let spare = room.saturating_sub(idle.len());
    plan.delete.extend(idle.into_iter().take(room));
    plan.delete.extend(serving.into_iter().take(spare));
}

#[cfg(test)]
mod tests;
