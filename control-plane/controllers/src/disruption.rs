//! The status of PodDisruptionBudgets: how many pods may be evicted now.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::selector::LabelSelector;
use skep_client::reconcile::Next;
use skep_client::{Client, Error, Patch, PatchParams, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::deployment::resolve;
use crate::sources::Sources;
use crate::work::{Key, enqueue_for, enqueue_self};
use crate::{owners, pods};

/// An eviction that was allowed and does not show as a deletion after this long did not happen.
const EVICTION_LIMIT: i64 = 120;

/// The controller.
pub(crate) struct Disruption {
    client: Client,
    budgets: Store<PodDisruptionBudget>,
    pods: Store<Pod>,
    sets: Store<ReplicaSet>,
    controllers: Store<ReplicationController>,
    deployments: Store<Deployment>,
    stateful: Store<StatefulSet>,
    queue: WorkQueue<Key>,
}

impl Disruption {
    pub(crate) fn new(client: &Client, sources: &mut Sources) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(&mut sources.budgets, &queue);
        let known = sources.budgets.store();
        enqueue_for(&mut sources.pods, &queue, move |pod: &Arc<Pod>| {
            let all = known.list_namespace(pod.metadata.namespace.as_deref().unwrap_or_default());
            all.iter().filter(|b| selects(b, pod)).map(|b| Key::of(&b.metadata)).collect()
        });
        Self {
            client: client.clone(),
            budgets: sources.budgets.store(),
            pods: sources.pods.store(),
            sets: sources.replica_sets.store(),
            controllers: sources.replication_controllers.store(),
            deployments: sources.deployments.store(),
            stateful: sources.stateful_sets.store(),
            queue,
        }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run("disruption", &self.queue, 2, cancel, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let Some(budget) = self.budgets.get(&key.namespace, &key.name) else { return Ok(Next::Wait) };
        let mut mine = self.pods.list_namespace(&key.namespace);
        mine.retain(|p| selects(&budget, p) && !pods::is_finished(p));
        let total = self.expected(&mine);
        let now = Timestamp::now();
        let status = status(&budget, &mine, total, now);
        if Some(&status) != budget.status.as_ref() {
            let mut value = json!(status);
            // A merge must say which evictions are over.
            let old = budget.status.iter().flat_map(|s| s.disrupted_pods.iter().flatten());
            for (name, _) in old {
                if !status.disrupted_pods.as_ref().is_some_and(|d| d.contains_key(name)) {
                    value["disruptedPods"][name] = Value::Null;
                }
            }
            // The revision guards evictions counted meanwhile.
            let patch = Patch::Merge(json!({
                "metadata": {"uid": budget.metadata.uid, "resourceVersion": budget.metadata.resource_version},
                "status": value,
            }));
            let api = self.client.namespaced::<PodDisruptionBudget>(&key.namespace);
            match api.patch_status(&key.name, &patch, &PatchParams::default()).await {
                Err(e) if e.is_not_found() => return Ok(Next::Wait),
                result => drop(result?),
            }
        }
        let waiting = status.disrupted_pods.is_some_and(|d| !d.is_empty());
        let limit = u64::try_from(EVICTION_LIMIT).unwrap_or(120);
        Ok(if waiting { Next::After(std::time::Duration::from_secs(limit)) } else { Next::Wait })
    }

    /// How many pods the controllers of these pods ask for; pods of nobody count as themselves.
    fn expected(&self, mine: &[Arc<Pod>]) -> i32 {
        let mut seen: Vec<&str> = Vec::new();
        let mut total = 0;
        for pod in mine {
            let Some(owner) = owners::controller_of(&pod.metadata) else {
                total += 1;
                continue;
            };
            if seen.contains(&owner.uid.as_str()) {
                continue;
            }
            seen.push(&owner.uid);
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let asked = match owner.kind.as_str() {
                "ReplicaSet" => self.sets.get(namespace, &owner.name).and_then(|set| {
                    let whole = owners::controller_key::<Deployment>(&set.metadata);
                    // During a rollout the Deployment knows, not its parts; two of its sets count once.
                    match whole.and_then(|k| self.deployments.get(&k.namespace, &k.name)) {
                        Some(whole) => {
                            self.first_of(mine, pod, &whole).then(|| whole.spec.as_ref()?.replicas)
                        }
                        None => Some(set.spec.as_ref().and_then(|s| s.replicas)),
                    }
                }),
                "ReplicationController" => {
                    let object = self.controllers.get(namespace, &owner.name);
                    object.map(|o| o.spec.as_ref().and_then(|s| s.replicas))
                }
                "StatefulSet" => {
                    let object = self.stateful.get(namespace, &owner.name);
                    object.map(|o| o.spec.as_ref().and_then(|s| s.replicas))
                }
                _ => Some(
                    i32::try_from(
                        mine.iter().filter(|p| owners::is_controlled_by(&p.metadata, &owner.uid)).count(),
                    )
                    .ok(),
                ),
            };
            total += asked.map_or(0, |replicas| replicas.unwrap_or(1));
        }
        total
    }

    /// Whether `pod` is of the first ReplicaSet of the Deployment among these pods.
    fn first_of(&self, mine: &[Arc<Pod>], pod: &Pod, whole: &Deployment) -> bool {
        let uid = whole.metadata.uid.as_deref().unwrap_or_default();
        let of_whole = |p: &&Arc<Pod>| {
            let key = owners::controller_key::<ReplicaSet>(&p.metadata);
            let set = key.and_then(|k| self.sets.get(&k.namespace, &k.name));
            set.is_some_and(|s| owners::is_controlled_by(&s.metadata, uid))
        };
        let first = mine.iter().find(of_whole);
        first.is_some_and(|p| p.metadata.uid == pod.metadata.uid)
    }
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
    LabelSelector::from_typed(selector).is_ok_and(|s| s.matches_map(pod.metadata.labels.as_ref()))
}

/// The status of a budget over these pods, of which `expected` are asked for. Pure.
fn status(
    budget: &PodDisruptionBudget,
    mine: &[Arc<Pod>],
    expected: i32,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let before = budget.status.clone().unwrap_or_default();
    let spec = budget.spec.clone().unwrap_or_default();
    // Evictions that were allowed and whose pods do not show it yet.
    let mut evicted = before.disrupted_pods.clone().unwrap_or_default();
    evicted.retain(|name, since| {
        let pod = mine.iter().find(|p| p.metadata.name.as_ref() == Some(name));
        pod.is_some_and(|p| p.metadata.deletion_timestamp.is_none())
            && now.duration_since(since.0).as_secs() < EVICTION_LIMIT
    });
    let healthy = mine.iter().filter(|p| {
        pods::is_ready(p)
            && p.metadata.deletion_timestamp.is_none()
            && !p.metadata.name.as_ref().is_some_and(|n| evicted.contains_key(n))
    });
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let desired = match (&spec.max_unavailable, &spec.min_available) {
        (Some(limit), _) => (expected - resolve(limit, expected, true)).max(0),
        (None, Some(least)) => resolve(least, expected, true),
        (None, None) => 0,
    };
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let (state, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let mut conditions = before.conditions.clone().unwrap_or_default();
    let known = conditions.iter().find(|c| c.type_ == "DisruptionAllowed" && c.status == state);
    let since = known.map_or(Time(now), |c| c.last_transition_time.clone());
    conditions.retain(|c| c.type_ != "DisruptionAllowed");
    conditions.push(Condition {
        type_: "DisruptionAllowed".into(),
        status: state.into(),
        reason: reason.into(),
        message: String::new(),
        last_transition_time: since,
        observed_generation: budget.metadata.generation,
    });
    PodDisruptionBudgetStatus {
        conditions: Some(conditions),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: Some(evicted).filter(|e| !e.is_empty()),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: budget.metadata.generation,
    }
}
