//! Deployments: one ReplicaSet per pod template, scaled up and down against each other.
//!
//! [`plan::plan`] looks at a deployment and its ReplicaSets and gives a few writes and a status; each
//! write changes what the stores show and brings the key back, so a rollout advances step by step and
//! survives a restart anywhere.

mod numbers;
mod plan;
mod status;

use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::selector::LabelSelector;
use skep_client::events::{EventType, Recorder};
use skep_client::reconcile::Next;
use skep_client::{Api, Client, DeleteParams, Error, Patch, PatchParams, Propagation, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::expectations::Expectations;
use crate::sources::Sources;
use crate::work::{Key, enqueue_for, enqueue_self};
use crate::{owners, pods};
pub(crate) use numbers::resolve;
use plan::{Plan, Snapshot, Step};

const WORKERS: usize = 8;

/// The controller.
pub(crate) struct Deployments {
    client: Client,
    events: Recorder,
    deployments: Store<Deployment>,
    sets: Store<ReplicaSet>,
    pods: Store<Pod>,
    queue: WorkQueue<Key>,
    expectations: Expectations,
}

impl Deployments {
    pub(crate) fn new(client: &Client, events: &Recorder, sources: &mut Sources) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(&mut sources.deployments, &queue);
        let known = sources.deployments.store();
        enqueue_for(&mut sources.replica_sets, &queue, move |set: &Arc<ReplicaSet>| {
            owners::claimants(&set.metadata, &known, |deployment| selects(deployment, &set.metadata))
        });
        // Recreate waits for the last old pod to be gone.
        let sets = sources.replica_sets.store();
        let gone = queue.clone();
        sources.pods.add_callback(move |old, new| {
            if let (Some(pod), None) = (old, new)
                && let Some(key) = owners::controller_key::<ReplicaSet>(&pod.metadata)
                && let Some(set) = sets.get(&key.namespace, &key.name)
                && let Some(key) = owners::controller_key::<Deployment>(&set.metadata)
            {
                gone.add(key);
            }
        });
        Self {
            client: client.clone(),
            events: events.clone(),
            deployments: sources.deployments.store(),
            sets: sources.replica_sets.store(),
            pods: sources.pods.store(),
            queue,
            expectations: Expectations::default(),
        }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run("deployment", &self.queue, WORKERS, cancel, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let Some(deployment) = self.deployments.get(&key.namespace, &key.name) else {
            return Ok(Next::Wait);
        };
        let uid = deployment.metadata.uid.clone().unwrap_or_default();
        if !self.expectations.met(&uid, &self.sets) {
            return Ok(Next::After(std::time::Duration::from_millis(100)));
        }
        let sets = self.claim(&deployment, &uid).await?;
        let old_pods = |set: &ReplicaSet| {
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            self.pods.indexed(&pods::by_owner(uid)).iter().filter(|p| !pods::is_finished(p)).count()
        };
        let running: Vec<usize> = sets.iter().map(|s| old_pods(s)).collect();
        let plan = plan::plan(&Snapshot {
            deployment: &deployment,
            sets: &sets,
            running: &running,
            now: Timestamp::now(),
        });
        self.apply(&deployment, plan).await
    }

    /// The ReplicaSets of the deployment, after taking in orphans and letting strays go.
    async fn claim(&self, deployment: &Deployment, uid: &str) -> Result<Vec<Arc<ReplicaSet>>, Error> {
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let api = self.client.namespaced::<ReplicaSet>(namespace);
        let mut sets = Vec::new();
        for set in self.sets.indexed(&pods::by_owner(uid)) {
            if selects(deployment, &set.metadata) {
                sets.push(set);
            } else if deployment.metadata.deletion_timestamp.is_none() {
                owners::release(&api, &set.metadata, uid).await?;
            }
        }
        if deployment.metadata.deletion_timestamp.is_none() {
            let owner = owners::controller_ref(deployment);
            let deployments = self.client.namespaced::<Deployment>(namespace);
            for set in self.sets.indexed(&pods::by_orphanage(namespace)) {
                if selects(deployment, &set.metadata) && set.metadata.deletion_timestamp.is_none() {
                    // It comes back through the watch with its reference and is planned for then.
                    owners::adopt(&deployments, &owner, &api, &set.metadata).await?;
                }
            }
        }
        Ok(sets)
    }

    async fn apply(&self, deployment: &Deployment, plan: Plan) -> Result<Next, Error> {
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        let api = self.client.namespaced::<Deployment>(namespace);
        let sets = self.client.namespaced::<ReplicaSet>(namespace);
        let mut failed = None;
        if !plan.annotations.is_empty() {
            let patch = Patch::Merge(json!({"metadata": {"annotations": plan.annotations}}));
            api.patch(name, &patch, &PatchParams::default()).await?;
        }
        let results = join_all(plan.steps.iter().map(|step| self.step(deployment, &sets, step))).await;
        for result in results {
            match result {
                Ok(()) => {}
                Err(e) if e.is_namespace_terminating() => return Ok(Next::Wait),
                Err(e) => failed = Some(e),
            }
        }
        if let Some(status) = plan.status {
            self.write_status(&api, &deployment.metadata, &status).await?;
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(plan.again.map_or(Next::Wait, Next::After)),
        }
    }

    async fn write_status(
        &self,
        api: &Api<Deployment>,
        meta: &ObjectMeta,
        status: &Value,
    ) -> Result<(), Error> {
        let patch = Patch::Merge(json!({"metadata": {"uid": meta.uid}, "status": status}));
        match api
            .patch_status(meta.name.as_deref().unwrap_or_default(), &patch, &PatchParams::default())
            .await
        {
            Err(e) if e.is_not_found() => Ok(()),
            result => result.map(drop),
        }
    }

    async fn step(&self, deployment: &Deployment, api: &Api<ReplicaSet>, step: &Step) -> Result<(), Error> {
        let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
        match step {
            Step::Create(set) => match api.create(set).await {
                Ok(set) => {
                    self.expectations.created(uid, &set);
                    let replicas = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
                    let name = set.metadata.name.as_deref().unwrap_or_default();
                    let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                    self.events.about(deployment, EventType::Normal, "ScalingReplicaSet", &message);
                    Ok(())
                }
                Err(e) if e.is_already_exists() => self.collide(deployment, api, set).await,
                Err(e) => Err(e),
            },
            Step::Change { set, replicas, annotations } => {
                let old = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
                let name = set.metadata.name.as_deref().unwrap_or_default();
                let mut patch = json!({"metadata": {
                    "uid": set.metadata.uid,
                    "resourceVersion": set.metadata.resource_version,
                    "annotations": annotations,
                }});
                if *replicas != old {
                    patch["spec"] = json!({"replicas": replicas});
                }
                let set = api.patch(name, &Patch::Merge(patch), &PatchParams::default()).await?;
                self.expectations.created(uid, &set);
                if *replicas != old {
                    let direction = if *replicas > old { "up" } else { "down" };
                    let message = format!("Scaled {direction} replica set {name} from {old} to {replicas}");
                    self.events.about(deployment, EventType::Normal, "ScalingReplicaSet", &message);
                }
                Ok(())
            }
            Step::Delete(set) => {
                let params = DeleteParams::uid(set.metadata.uid.clone().unwrap_or_default());
                let name = set.metadata.name.as_deref().unwrap_or_default();
                match api.delete(name, &params.propagation(Propagation::Background)).await {
                    Err(e) if !e.is_not_found() => Err(e),
                    _ => {
                        self.expectations.deleted(uid, &**set);
                        Ok(())
                    }
                }
            }
        }
    }

    /// A ReplicaSet of that name exists: ours seen late, or another template with the same hash. In
    /// the latter case the collision count makes another name.
    async fn collide(
        &self,
        deployment: &Deployment,
        api: &Api<ReplicaSet>,
        set: &ReplicaSet,
    ) -> Result<(), Error> {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let Some(live) = api.get_opt(name).await? else { return Ok(()) };
        let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
        if owners::is_controlled_by(&live.metadata, uid) && numbers::same_template(&live, deployment) {
            self.queue.add_rate_limited(Key::of(&deployment.metadata));
            return Ok(());
        }
        let count = deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0) + 1;
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let deployments = self.client.namespaced::<Deployment>(namespace);
        self.write_status(&deployments, &deployment.metadata, &json!({"collisionCount": count})).await
    }
}

fn selects(deployment: &Deployment, meta: &ObjectMeta) -> bool {
    let selector = deployment.spec.as_ref().map(|s| &s.selector);
    LabelSelector::from_typed(selector).is_ok_and(|s| !s.is_empty() && s.matches_map(meta.labels.as_ref()))
}
