//! DaemonSets: one pod on each node that suits.

mod plan;

use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use skep_api::selector::LabelSelector;
use skep_client::events::{EventType, Recorder};
use skep_client::reconcile::Next;
use skep_client::{Client, DeleteParams, Error, Patch, PatchParams, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::expectations::Expectations;
use crate::sources::Sources;
use crate::work::{Key, enqueue_for, enqueue_self};
use crate::{history, owners, pods};

/// The controller.
pub(crate) struct DaemonSets {
    client: Client,
    events: Recorder,
    sets: Store<DaemonSet>,
    pods: Store<Pod>,
    nodes: Store<Node>,
    revisions: Store<ControllerRevision>,
    queue: WorkQueue<Key>,
    expectations: Expectations,
}

impl DaemonSets {
    pub(crate) fn new(client: &Client, events: &Recorder, sources: &mut Sources) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(&mut sources.daemon_sets, &queue);
        let known = sources.daemon_sets.store();
        enqueue_for(&mut sources.pods, &queue, move |pod: &Arc<Pod>| {
            owners::claimants(&pod.metadata, &known, |set| selects(set, pod))
        });
        let (wake, all) = (queue.clone(), sources.daemon_sets.store());
        sources.nodes.add_callback(move |old, new| {
            // Heartbeats change nothing here.
            let same = |a: &Node, b: &Node| a.metadata.labels == b.metadata.labels && a.spec == b.spec;
            if !matches!((old, new), (Some(old), Some(new)) if same(old, new)) {
                all.list().iter().for_each(|s| wake.add(Key::of(&s.metadata)));
            }
        });
        Self {
            client: client.clone(),
            events: events.clone(),
            sets: sources.daemon_sets.store(),
            pods: sources.pods.store(),
            nodes: sources.nodes.store(),
            revisions: sources.revisions.store(),
            queue,
            expectations: Expectations::default(),
        }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run("daemonset", &self.queue, 3, cancel, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else { return Ok(Next::Wait) };
        let Some(spec) = set.spec.as_ref().filter(|_| set.metadata.deletion_timestamp.is_none()) else {
            return Ok(Next::Wait);
        };
        let uid = set.metadata.uid.clone().unwrap_or_default();
        let settled = self.expectations.met(&uid, &self.pods);
        let owner = owners::controller_ref(&*set);
        let api = self.client.namespaced::<Pod>(&key.namespace);
        let mut mine = Vec::new();
        for pod in self.pods.indexed(&pods::by_owner(&uid)) {
            if selects(&set, &pod) {
                mine.push(pod);
            } else {
                owners::release(&api, &pod.metadata, &uid).await?;
            }
        }
        let sets = self.client.namespaced::<DaemonSet>(&key.namespace);
        for pod in self.pods.indexed(&pods::by_orphanage(&key.namespace)) {
            if selects(&set, &pod) && pods::is_active(&pod) {
                owners::adopt(&sets, &owner, &api, &pod.metadata).await?;
            }
        }
        let known = self.revisions.indexed(&pods::by_owner(&uid));
        let current = history::current(&self.client, &owner, &set.metadata, &spec.template, &known).await?;
        let hash = history::hash_of(&current);
        let nodes = self.nodes.list();
        let plan = plan::plan(&plan::Snapshot {
            set: &set,
            pods: &mine,
            nodes: &nodes,
            hash,
            now: Timestamp::now(),
        });
        let result = if settled { self.apply(&set, &uid, hash, &plan).await } else { Ok(()) };
        if let Some(status) = &plan.status {
            let patch = Patch::Merge(json!({"metadata": {"uid": uid}, "status": status}));
            match sets.patch_status(&key.name, &patch, &PatchParams::default()).await {
                Err(e) if e.is_not_found() => return Ok(Next::Wait),
                result => drop(result?),
            }
        }
        result?;
        let live = |hash: &str| {
            mine.iter().any(|p| plan::hash_of(p) == Some(hash)) || hash == history::hash_of(&current)
        };
        history::clean_up(&self.client, &known, live, spec.revision_history_limit.unwrap_or(10)).await?;
        Ok(plan.again.map_or(Next::Wait, Next::After))
    }

    async fn apply(&self, set: &DaemonSet, uid: &str, hash: &str, plan: &plan::Plan) -> Result<(), Error> {
        let api = self.client.namespaced::<Pod>(set.metadata.namespace.as_deref().unwrap_or_default());
        let delete = join_all(plan.delete.iter().map(|pod| async {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let params = DeleteParams::uid(pod.metadata.uid.clone().unwrap_or_default());
            match api.delete(name, &params).await {
                Err(e) if !e.is_not_found() => Err(e),
                _ => {
                    self.expectations.deleted(uid, &**pod);
                    let message = format!("Deleted pod: {name}");
                    self.events.about(set, EventType::Normal, "SuccessfulDelete", &message);
                    Ok(())
                }
            }
        }));
        let create = join_all(plan.create.iter().map(|node| async {
            match api.create(&plan::new_pod(set, node, hash)).await {
                Ok(pod) => {
                    self.expectations.created(uid, &pod);
                    let message =
                        format!("Created pod: {}", pod.metadata.name.as_deref().unwrap_or_default());
                    self.events.about(set, EventType::Normal, "SuccessfulCreate", &message);
                    Ok(())
                }
                Err(e) if e.is_namespace_terminating() => Ok(()),
                Err(e) => {
                    let message = format!("Error creating: {e}");
                    self.events.about(set, EventType::Warning, "FailedCreate", &message);
                    Err(e)
                }
            }
        }));
        let (deleted, created) = futures::join!(delete, create);
        deleted.into_iter().chain(created).collect()
    }
}

fn selects(set: &DaemonSet, pod: &Pod) -> bool {
    let selector = set.spec.as_ref().map(|s| &s.selector);
    LabelSelector::from_typed(selector)
        .is_ok_and(|s| !s.is_empty() && s.matches_map(pod.metadata.labels.as_ref()))
}
