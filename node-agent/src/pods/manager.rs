//! The manager of the workers: one per pod of this node, by uid.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use skep_client::Store;
use tokio::{sync::watch, task::JoinSet, time};
use tokio_util::sync::CancellationToken;

use super::{
    SharedTools, jobs, sockets,
    worker::{Wanted, Worker, of_pod},
};
use crate::Error;

/// Makes, feeds and ends the workers.
pub(crate) struct Manager {
    tools: SharedTools,
    store: Store<Pod>,
    workers: HashMap<String, watch::Sender<Wanted>>,
    tasks: JoinSet<String>,
    /// Pods that are through but still in the store: it lags behind our own delete.
    through: HashSet<String>,
}

impl Manager {
    pub(crate) fn new(tools: SharedTools, store: Store<Pod>) -> Self {
        Self { tools, store, workers: HashMap::new(), tasks: JoinSet::new(), through: HashSet::new() }
    }

    /// Cleans up what no pod owns, then works until cancelled.
    ///
    /// # Errors
    /// When the runtime or the network cannot tell what they have.
    pub(crate) async fn run(mut self, cancel: CancellationToken) -> Result<(), Error> {
        let mut changes = self.store.subscribe();
        if cancel.run_until_cancelled(self.store.synced()).await.is_none() {
            return Ok(());
        }
        let pods = self.store.list();
        let known: Vec<String> = pods.iter().filter_map(|p| p.metadata.uid.clone()).collect();
        self.tools.network.reconcile(&known).await?;
        let attached = self.tools.network.attachments().await;
        self.tools.policies.keep_only(attached.into_values().flat_map(|pod| pod.ips).collect()).await;
        sockets::prune(&self.tools).await?;
        self.remove_orphans(&known).await?;
        loop {
            changes.borrow_and_update();
            self.sync(&cancel).await?;
            // Cancel-safe: nothing is taken from a channel that would be lost.
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(done) = self.tasks.join_next() => self.left(done),
                changed = changes.changed() => if changed.is_err() { break },
            }
        }
        // Workers end by the same token; what they began is found again by the next agent.
        while let Some(done) = self.tasks.join_next().await {
            self.left(done);
        }
        Ok(())
    }

    fn left(&mut self, done: Result<String, tokio::task::JoinError>) {
        match done {
            Ok(uid) => {
                self.workers.remove(&uid);
                self.through.insert(uid);
            }
            Err(error) => {
                tracing::error!(%error, "a pod worker broke; it is made anew");
                self.workers.retain(|_, sender| !sender.is_closed());
            }
        }
    }

    async fn sync(&mut self, cancel: &CancellationToken) -> Result<(), Error> {
        let pods = self.store.list();
        let present: HashMap<&str, &Arc<Pod>> =
            pods.iter().filter_map(|p| Some((p.metadata.uid.as_deref()?, p))).collect();
        self.through.retain(|uid| present.contains_key(uid.as_str()));
        for (uid, worker) in &self.workers {
            let pod = present.get(uid.as_str());
            worker.send_if_modified(|wanted| match pod {
                Some(pod) => {
                    let newer = pod.metadata.resource_version != wanted.pod.metadata.resource_version;
                    if newer {
                        wanted.pod = Arc::clone(pod);
                    }
                    newer
                }
                None => !std::mem::replace(&mut wanted.vanished, true),
            });
        }
        let mut records = None;
        for (uid, pod) in present {
            if self.workers.contains_key(uid) || self.through.contains(uid) {
                continue;
            }
            // Only a pod that the API knew before can have containers already.
            let old = pod.status.as_ref().is_some_and(|s| s.start_time.is_some());
            let own = if old {
                if records.is_none() {
                    records = Some(self.tools.runtime.containers().await?);
                }
                of_pod(records.as_deref().unwrap_or_default(), uid)
            } else {
                Vec::new()
            };
            let (sender, receiver) = watch::channel(Wanted { pod: Arc::clone(pod), vanished: false });
            let (tools, token, uid) = (self.tools.clone(), cancel.child_token(), uid.to_owned());
            self.workers.insert(uid.clone(), sender);
            self.tasks.spawn(async move {
                Worker::run(tools, receiver, own, token).await;
                uid
            });
        }
        Ok(())
    }

    async fn remove_orphans(&self, known: &[String]) -> Result<(), Error> {
        let mut orphans: HashSet<String> =
            self.tools.runtime.containers().await?.into_iter().map(|r| r.pod.uid).collect();
        orphans.extend(skep_runtime::sandbox::list(&self.tools.node.run_dir)?);
        if let Ok(entries) = std::fs::read_dir(&self.tools.node.pods_dir) {
            orphans.extend(entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()));
        }
        for uid in orphans.into_iter().filter(|uid| !known.contains(uid)) {
            tracing::info!(uid, "removing what is left of a pod that is gone");
            if let Err(error) = jobs::remove_all(&self.tools, &uid).await {
                tracing::warn!(uid, %error, "leftovers stay until the next start");
                time::sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }
}
