//! Carries plans of the core out, for one kind.

use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use skep_client::events::{EventType, Recorder};
use skep_client::reconcile::Next;
use skep_client::{Client, DeleteParams, Error, Informer, Patch, PatchParams, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use super::kinds::Replicated;
use super::{Plan, Snapshot, Wanted, plan};
use crate::expectations::Expectations;
use crate::work::{Key, enqueue_for, enqueue_self};
use crate::{owners, pods};

const WORKERS: usize = 8;

/// The controller of one kind.
pub(crate) struct Replicas<K> {
    name: &'static str,
    client: Client,
    events: Recorder,
    objects: Store<K>,
    pods: Store<Pod>,
    queue: WorkQueue<Key>,
    expectations: Expectations,
}

impl<K: Replicated> Replicas<K> {
    pub(crate) fn new(
        name: &'static str,
        client: &Client,
        events: &Recorder,
        objects: &mut Informer<K>,
        pods: &mut Informer<Pod>,
    ) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(objects, &queue);
        let store = objects.store();
        let known = store.clone();
        enqueue_for(pods, &queue, move |pod| {
            owners::claimants(&pod.metadata, &known, |own: &K| {
                own.wanted().is_some_and(|w| w.selector.matches_map(pod.metadata.labels.as_ref()))
            })
        });
        Self {
            name,
            client: client.clone(),
            events: events.clone(),
            objects: store,
            pods: pods.store(),
            queue,
            expectations: Expectations::default(),
        }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run(self.name, &self.queue, WORKERS, cancel, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let Some(object) = self.objects.get(&key.namespace, &key.name) else { return Ok(Next::Wait) };
        let Some(wanted) = object.wanted() else { return Ok(Next::Wait) };
        let uid = &wanted.owner.uid;
        // Order matters: what the store shows must be read after it was found to be recent.
        let settled = self.expectations.met(uid, &self.pods);
        let mut pods = self.pods.indexed(&pods::by_owner(uid));
        let siblings = pods.clone();
        pods.extend(self.pods.indexed(&pods::by_orphanage(&key.namespace)));
        let mut plan = plan(&Snapshot {
            wanted: &wanted,
            pods: &pods,
            siblings: &siblings,
            settled,
            now: Timestamp::now(),
        });
        if !K::COUNTS_TERMINATING {
            plan.status.terminating = 0;
        }
        if wanted.deleting {
            self.expectations.forget(uid);
        }
        let result = self.apply(&object, &wanted, &mut plan).await;
        if plan.status != wanted.status {
            let status = object.status(&plan.status);
            let patch = Patch::Merge(serde_json::json!({"metadata": {"uid": uid}, "status": status}));
            let api = self.client.namespaced::<K>(&key.namespace);
            match api.patch_status(&key.name, &patch, &PatchParams::default()).await {
                Err(e) if e.is_not_found() => {}
                result => drop(result?),
            }
        }
        result?;
        Ok(plan.again.map_or(Next::Wait, Next::After))
    }

    async fn apply(&self, object: &K, wanted: &Wanted, plan: &mut Plan) -> Result<(), Error> {
        let api = self.client.namespaced::<Pod>(&wanted.namespace);
        let owners_api = self.client.namespaced::<K>(&wanted.namespace);
        for pod in &plan.release {
            owners::release(&api, &pod.metadata, &wanted.owner.uid).await?;
        }
        for pod in &plan.adopt {
            match owners::adopt(&owners_api, &wanted.owner, &api, &pod.metadata).await {
                Err(e) if e.is_not_found() => {}
                result => result?,
            }
        }
        if plan.create > 0 {
            let result = self.create(object, wanted, plan.create).await;
            plan.status.failure = match &result {
                Err(e) if !e.is_namespace_terminating() => Some(("FailedCreate".into(), e.to_string())),
                _ => None,
            };
            return match result {
                // Nothing will ever come of it: no need to try again.
                Err(e) if e.is_namespace_terminating() => Ok(()),
                result => result,
            };
        }
        if !plan.delete.is_empty() {
            let results = join_all(plan.delete.iter().map(|pod| self.delete(object, wanted, pod))).await;
            let result: Result<(), Error> = results.into_iter().collect();
            plan.status.failure = result.as_ref().err().map(|e| ("FailedDelete".into(), e.to_string()));
            return result;
        }
        Ok(())
    }

    /// Creates in batches of 1, 2, 4, ...: when the first fails (quota), the rest is not even tried.
    async fn create(&self, object: &K, wanted: &Wanted, mut left: usize) -> Result<(), Error> {
        let api = self.client.namespaced::<Pod>(&wanted.namespace);
        let pod = pods::from_template(
            &wanted.template,
            &wanted.namespace,
            &wanted.owner.name,
            wanted.owner.clone(),
        );
        let mut batch = 1;
        while left > 0 {
            let size = batch.min(left);
            let results = join_all((0..size).map(|_| api.create(&pod))).await;
            let mut failure = None;
            for result in results {
                match result {
                    Ok(pod) => {
                        self.expectations.created(&wanted.owner.uid, &pod);
                        let name = pod.metadata.name.as_deref().unwrap_or_default();
                        let message = format!("Created pod: {name}");
                        self.events.about(object, EventType::Normal, "SuccessfulCreate", &message);
                    }
                    Err(e) => failure = Some(e),
                }
            }
            if let Some(error) = failure {
                if !error.is_namespace_terminating() {
                    let message = format!("Error creating: {error}");
                    self.events.about(object, EventType::Warning, "FailedCreate", &message);
                }
                return Err(error);
            }
            left -= size;
            batch *= 2;
        }
        Ok(())
    }

    async fn delete(&self, object: &K, wanted: &Wanted, pod: &Arc<Pod>) -> Result<(), Error> {
        let api = self.client.namespaced::<Pod>(&wanted.namespace);
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let params = DeleteParams::uid(pod.metadata.uid.clone().unwrap_or_default());
        match api.delete(name, &params).await {
            Ok(()) => {
                self.expectations.deleted(&wanted.owner.uid, &**pod);
                let message = format!("Deleted pod: {name}");
                self.events.about(object, EventType::Normal, "SuccessfulDelete", &message);
                Ok(())
            }
            Err(e) if e.is_not_found() => Ok(()),
            Err(e) => {
                let message = format!("Error deleting: {e}");
                self.events.about(object, EventType::Warning, "FailedDelete", &message);
                Err(e)
            }
        }
    }
}
