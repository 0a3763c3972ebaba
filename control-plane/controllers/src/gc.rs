//! Garbage collection: objects go when all their owners are gone; owners wait for their dependents when
//! they are deleted in the foreground, or let them go when deleted as orphaning.
//!
//! A [`graph::Graph`] of owners and dependents is kept from metadata watches on every resource discovery
//! tells of. It only proposes: before anything is deleted, the object and the owners that seem gone are
//! read live from the server.

mod collect;
mod graph;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use skep_api::resource::GroupVersionResource;
use skep_client::events::Recorder;
use skep_client::{Client, Error, Informer, ListParams, PartialObject, Store, WorkQueue};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::discovery::{self, Resource};
use graph::Graph;

const WORKERS: usize = 10;
/// How often discovery is read for new resources.
const REFRESH: Duration = Duration::from_secs(30);

/// How long a resource that can't be read holds up the others.
const PATIENCE: Duration = Duration::from_secs(30);

/// A watched resource.
struct Watched {
    resource: Arc<Resource>,
    store: Store<PartialObject>,
    since: Instant,
    stop: CancellationToken,
}

/// The controller.
pub(crate) struct GarbageCollector {
    client: Client,
    recorder: Recorder,
    graph: Arc<Mutex<Graph>>,
    watched: RwLock<HashMap<GroupVersionResource, Watched>>,
    /// Uids of objects to look at.
    queue: WorkQueue<String>,
}

impl GarbageCollector {
    pub(crate) fn new(client: &Client, recorder: &Recorder) -> Self {
        Self {
            client: client.clone(),
            recorder: recorder.clone(),
            graph: Arc::default(),
            watched: RwLock::default(),
            queue: WorkQueue::new(),
        }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        let tracker = TaskTracker::new();
        let refresh = async {
            let mut tick = tokio::time::interval(REFRESH);
            // Cancel-safe: a tick not taken comes again.
            while cancel.run_until_cancelled(tick.tick()).await.is_some() {
                if let Err(error) = self.refresh(&tracker, cancel).await {
                    tracing::debug!(%error, "cannot read discovery");
                    tick.reset_after(Duration::from_secs(1));
                }
            }
        };
        let work = skep_client::reconcile::run("gc", &self.queue, WORKERS, cancel, |uid| self.collect(uid));
        futures::join!(refresh, work);
        tracker.close();
        tracker.wait().await;
    }

    /// Watches new resources, stops watching those that are gone.
    async fn refresh(&self, tracker: &TaskTracker, cancel: &CancellationToken) -> Result<(), Error> {
        let (mut resources, failed) = discovery::resources(&self.client).await?;
        resources.retain(|r| {
            // Events have no dependents, are many, and go by themselves.
            r.can("list") && r.can("watch") && r.can("delete") && r.gvr.resource != "events"
        });
        let mut watched = self.watched.write().unwrap_or_else(PoisonError::into_inner);
        if failed.is_empty() {
            watched.retain(|gvr, watch| {
                let stays = resources.iter().any(|r| r.gvr == *gvr);
                if !stays {
                    watch.stop.cancel();
                    let gone = watch.store.list();
                    let mut graph = self.graph.lock().unwrap_or_else(PoisonError::into_inner);
                    let touched: Vec<String> = gone.iter().flat_map(|o| graph.remove(&o.metadata)).collect();
                    touched.into_iter().for_each(|uid| self.queue.add(uid));
                }
                stays
            });
        }
        for resource in resources {
            watched.entry(resource.gvr.clone()).or_insert_with(|| {
                let resource = Arc::new(resource);
                let stop = cancel.child_token();
                let store = self.watch(resource.clone(), tracker, stop.clone());
                Watched { resource, store, since: Instant::now(), stop }
            });
        }
        Ok(())
    }

    fn watch(
        &self,
        resource: Arc<Resource>,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Store<PartialObject> {
        let api = self.client.resource::<PartialObject>(resource.gvr.clone(), None);
        let (graph, queue) = (self.graph.clone(), self.queue.clone());
        Informer::new(api, ListParams::default())
            .on_change(move |old, new| {
                let touched = {
                    let mut graph = graph.lock().unwrap_or_else(PoisonError::into_inner);
                    match (old, new) {
                        (_, Some(new)) => graph.put(&resource, &new.metadata),
                        (Some(old), None) => graph.remove(&old.metadata),
                        (None, None) => Vec::new(),
                    }
                };
                touched.into_iter().for_each(|uid| queue.add(uid));
            })
            .spawn(tracker, stop)
    }

    /// Whether the graph shows all there is; a resource that can't be read (its extension server is away)
    /// holds up the others only for a while.
    fn is_synced(&self) -> bool {
        let watched = self.watched.read().unwrap_or_else(PoisonError::into_inner);
        let ready = |w: &Watched| w.store.is_synced() || w.since.elapsed() > PATIENCE;
        !watched.is_empty() && watched.values().all(ready)
    }

    /// The resource of a kind, by what owner references say.
    fn resource_of(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let watched = self.watched.read().unwrap_or_else(PoisonError::into_inner);
        watched.values().map(|w| &w.resource).find(|r| r.kind == kind && r.gvr.group == group).cloned()
    }
}
