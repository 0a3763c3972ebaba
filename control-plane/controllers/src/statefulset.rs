//! StatefulSets: pods with names and claims of their own, made and unmade in order.

mod identity;
mod plan;

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::selector::LabelSelector;
use skep_client::events::{EventType, Recorder};
use skep_client::reconcile::Next;
use skep_client::{Client, DeleteParams, Error, Patch, PatchParams, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::expectations::Expectations;
use crate::sources::Sources;
use crate::work::{Key, enqueue_for, enqueue_self};
use crate::{history, owners, pods};
use plan::{Plan, Snapshot};

/// The controller.
pub(crate) struct StatefulSets {
    client: Client,
    events: Recorder,
    sets: Store<StatefulSet>,
    pods: Store<Pod>,
    claims: Store<PersistentVolumeClaim>,
    revisions: Store<ControllerRevision>,
    queue: WorkQueue<Key>,
    expectations: Expectations,
}

/// The revisions a set is between.
struct Revisions {
    current: Arc<ControllerRevision>,
    update: Arc<ControllerRevision>,
}

impl StatefulSets {
    pub(crate) fn new(client: &Client, events: &Recorder, sources: &mut Sources) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(&mut sources.stateful_sets, &queue);
        let known = sources.stateful_sets.store();
        enqueue_for(&mut sources.pods, &queue, move |pod: &Arc<Pod>| {
            owners::claimants(&pod.metadata, &known, |set| is_member(set, pod))
        });
        Self {
            client: client.clone(),
            events: events.clone(),
            sets: sources.stateful_sets.store(),
            pods: sources.pods.store(),
            claims: sources.claims.store(),
            revisions: sources.revisions.store(),
            queue,
            expectations: Expectations::default(),
        }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run("statefulset", &self.queue, 5, cancel, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else { return Ok(Next::Wait) };
        let Some(spec) = &set.spec else { return Ok(Next::Wait) };
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Wait);
        }
        let uid = set.metadata.uid.clone().unwrap_or_default();
        // Order matters: the stores are read after they were found to be recent.
        let settled = self.expectations.met(&uid, &self.pods);
        let owner = owners::controller_ref(&*set);
        let mine = self.members(&set, &key, &owner).await?;
        let known = self.revisions.indexed(&pods::by_owner(&uid));
        let update = history::current(&self.client, &owner, &set.metadata, &spec.template, &known).await?;
        let recorded = set.status.as_ref().and_then(|s| s.current_revision.as_deref());
        let current = known.iter().find(|r| r.metadata.name.as_deref() == recorded).unwrap_or(&update);
        let revisions = Revisions { current: current.clone(), update: update.clone() };
        let claims: HashMap<String, Arc<PersistentVolumeClaim>> = self
            .claims
            .list_namespace(&key.namespace)
            .into_iter()
            .filter_map(|claim| Some((claim.metadata.name.clone()?, claim)))
            .collect();
        let plan = plan::plan(&Snapshot {
            set: &set,
            pods: &mine,
            claims: &claims,
            current: name_of(&revisions.current),
            update: name_of(&revisions.update),
            now: Timestamp::now(),
        });
        let result = if settled { self.apply(&set, &uid, &revisions, &plan).await } else { Ok(()) };
        if let Some(status) = &plan.status {
            let patch = Patch::Merge(json!({"metadata": {"uid": uid}, "status": status}));
            let sets = self.client.namespaced::<StatefulSet>(&key.namespace);
            match sets.patch_status(&key.name, &patch, &PatchParams::default()).await {
                Err(e) if e.is_not_found() => return Ok(Next::Wait),
                result => drop(result?),
            }
        }
        result?;
        let live = |hash: &str| {
            let name = format!("{}-{hash}", key.name);
            name == name_of(&update)
                || name == name_of(&revisions.current)
                || mine.iter().any(|p| identity::revision_of(p) == Some(&name))
        };
        history::clean_up(&self.client, &known, live, spec.revision_history_limit.unwrap_or(10)).await?;
        Ok(plan.again.map_or(Next::Wait, Next::After))
    }

    /// The pods of the set; orphans are taken in, strangers let go.
    async fn members(
        &self,
        set: &StatefulSet,
        key: &Key,
        owner: &OwnerReference,
    ) -> Result<Vec<Arc<Pod>>, Error> {
        let api = self.client.namespaced::<Pod>(&key.namespace);
        let sets = self.client.namespaced::<StatefulSet>(&key.namespace);
        let mut mine = Vec::new();
        for pod in self.pods.indexed(&pods::by_owner(&owner.uid)) {
            if is_member(set, &pod) {
                mine.push(pod);
            } else {
                owners::release(&api, &pod.metadata, &owner.uid).await?;
            }
        }
        for pod in self.pods.indexed(&pods::by_orphanage(&key.namespace)) {
            if is_member(set, &pod) && pods::is_active(&pod) {
                owners::adopt(&sets, owner, &api, &pod.metadata).await?;
            }
        }
        Ok(mine)
    }

    async fn apply(
        &self,
        set: &StatefulSet,
        uid: &str,
        revisions: &Revisions,
        plan: &Plan,
    ) -> Result<(), Error> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let api = self.client.namespaced::<Pod>(namespace);
        let claims = self.client.namespaced::<PersistentVolumeClaim>(namespace);
        for (claim, references) in &plan.hand_over {
            let references = if references.is_empty() { Value::Null } else { json!(references) };
            let patch = Patch::Merge(json!({"metadata": {
                "uid": claim.metadata.uid,
                "resourceVersion": claim.metadata.resource_version,
                "ownerReferences": references,
            }}));
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            match claims.patch(name, &patch, &PatchParams::default()).await {
                Err(e) if e.is_not_found() => {}
                result => drop(result?),
            }
        }
        for (pod, number) in &plan.relabel {
            let labels: HashMap<&str, String> = identity::labels(set, *number).into_iter().collect();
            let patch = Patch::Merge(json!({"metadata": {"uid": pod.metadata.uid, "labels": labels}}));
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            match api.patch(name, &patch, &PatchParams::default()).await {
                Err(e) if e.is_not_found() => {}
                result => drop(result?),
            }
        }
        for number in &plan.provide {
            self.provide(set, *number).await?;
        }
        let delete = join_all(plan.delete.iter().map(|pod| self.delete(set, uid, pod)));
        let create = join_all(plan.create.iter().map(|(number, current)| {
            let revision = if *current { &revisions.current } else { &revisions.update };
            self.create(set, uid, revision, *number)
        }));
        let (deleted, created) = futures::join!(delete, create);
        deleted.into_iter().chain(created).collect()
    }

    /// Makes the claims of a pod that are not there yet.
    async fn provide(&self, set: &StatefulSet, number: i32) -> Result<(), Error> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let api = self.client.namespaced::<PersistentVolumeClaim>(namespace);
        for claim in identity::claims(set, number) {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            if self.claims.get(namespace, name).is_some() {
                continue;
            }
            let (pod, owner) = (identity::pod_name(set, number), identity::set_name(set));
            match api.create(&claim).await {
                Ok(_) => {
                    let message = format!("create Claim {name} Pod {pod} in StatefulSet {owner} success");
                    self.events.about(set, EventType::Normal, "SuccessfulCreate", &message);
                }
                Err(e) if e.is_already_exists() => {}
                Err(e) => {
                    let message =
                        format!("create Claim {name} for Pod {pod} in StatefulSet {owner} failed error: {e}");
                    self.events.about(set, EventType::Warning, "FailedCreate", &message);
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    async fn create(
        &self,
        set: &StatefulSet,
        uid: &str,
        revision: &ControllerRevision,
        number: i32,
    ) -> Result<(), Error> {
        let (pod, owner) = (identity::pod_name(set, number), identity::set_name(set));
        let template = template_of(revision, set);
        let result = match self.provide(set, number).await {
            Ok(()) => {
                let api =
                    self.client.namespaced::<Pod>(set.metadata.namespace.as_deref().unwrap_or_default());
                api.create(&identity::new_pod(set, &template, name_of(revision), number)).await
            }
            Err(e) => Err(e),
        };
        match result {
            Ok(made) => {
                self.expectations.created(uid, &made);
                let message = format!("create Pod {pod} in StatefulSet {owner} successful");
                self.events.about(set, EventType::Normal, "SuccessfulCreate", &message);
                Ok(())
            }
            Err(e) if e.is_namespace_terminating() => Ok(()),
            Err(e) => {
                let message = format!("create Pod {pod} in StatefulSet {owner} failed error: {e}");
                self.events.about(set, EventType::Warning, "FailedCreate", &message);
                Err(e)
            }
        }
    }

    async fn delete(&self, set: &StatefulSet, uid: &str, pod: &Arc<Pod>) -> Result<(), Error> {
        let api = self.client.namespaced::<Pod>(set.metadata.namespace.as_deref().unwrap_or_default());
        let (name, owner) = (pod.metadata.name.as_deref().unwrap_or_default(), identity::set_name(set));
        let params = DeleteParams::uid(pod.metadata.uid.clone().unwrap_or_default());
        match api.delete(name, &params).await {
            Err(e) if !e.is_not_found() => {
                let message = format!("delete Pod {name} in StatefulSet {owner} failed error: {e}");
                self.events.about(set, EventType::Warning, "FailedDelete", &message);
                Err(e)
            }
            _ => {
                self.expectations.deleted(uid, &**pod);
                let message = format!("delete Pod {name} in StatefulSet {owner} successful");
                self.events.about(set, EventType::Normal, "SuccessfulDelete", &message);
                Ok(())
            }
        }
    }
}

fn name_of(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

/// The template a revision keeps; the set's own where it keeps none that can be read.
fn template_of(revision: &ControllerRevision, set: &StatefulSet) -> PodTemplateSpec {
    let kept = revision.data.as_ref().map(|d| d.0["spec"]["template"].clone()).unwrap_or_default();
    serde_json::from_value(kept).unwrap_or_else(|error| {
        tracing::warn!(revision = name_of(revision), %error, "a revision holds no template");
        set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default()
    })
}

/// Whether the set selects a pod and could have given it its name.
fn is_member(set: &StatefulSet, pod: &Pod) -> bool {
    let selector = set.spec.as_ref().map(|s| &s.selector);
    identity::ordinal_of(set, pod).is_some()
        && LabelSelector::from_typed(selector)
            .is_ok_and(|s| !s.is_empty() && s.matches_map(pod.metadata.labels.as_ref()))
}
