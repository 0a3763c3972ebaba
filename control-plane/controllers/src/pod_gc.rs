//! Removes pods nobody else will: of nodes that are gone, leaving without ever having had a node, and
//! the oldest of too many that have ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use skep_client::{Client, DeleteParams, Error, Patch, PatchParams, Store};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::pods;
use crate::sources::Sources;

const PERIOD: Duration = Duration::from_secs(20);
/// A node must be missing this long before its pods go: it may just register anew.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Pods that have ended and are kept.
const KEEP: usize = 12_500;

/// The controller.
pub(crate) struct PodGc {
    client: Client,
    pods: Store<Pod>,
    nodes: Store<Node>,
}

impl PodGc {
    pub(crate) fn new(client: &Client, sources: &Sources) -> Self {
        Self { client: client.clone(), pods: sources.pods.store(), nodes: sources.nodes.store() }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        let mut missing: HashMap<String, Instant> = HashMap::new();
        let mut tick = tokio::time::interval(PERIOD);
        // Cancel-safe: a tick not taken comes again.
        while cancel.run_until_cancelled(tick.tick()).await.is_some() {
            if let Err(error) = self.collect(&mut missing).await {
                tracing::debug!(%error, "cannot collect pods now");
            }
        }
    }

    async fn collect(&self, missing: &mut HashMap<String, Instant>) -> Result<(), Error> {
        let all = self.pods.list();
        let now = Instant::now();
        missing.retain(|name, _| self.nodes.get("", name).is_none());
        for pod in &all {
            let Some(node) = pods::node_name(pod) else {
                if pod.metadata.deletion_timestamp.is_some() {
                    self.remove(pod, None).await?;
                }
                continue;
            };
            if self.nodes.get("", node).is_some() {
                continue;
            }
            let since = *missing.entry(node.to_owned()).or_insert(now);
            if now - since >= QUARANTINE && self.client.all::<Node>().get_opt(node).await?.is_none() {
                self.remove(pod, Some(node)).await?;
            }
        }
        for pod in surplus(all) {
            self.remove(&pod, None).await?;
        }
        Ok(())
    }

    async fn remove(&self, pod: &Arc<Pod>, gone_node: Option<&str>) -> Result<(), Error> {
        let api = self.client.namespaced::<Pod>(pod.metadata.namespace.as_deref().unwrap_or_default());
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        if let Some(node) = gone_node.filter(|_| !pods::is_finished(pod)) {
            let patch = Patch::Strategic(json!({
                "metadata": {"uid": pod.metadata.uid},
                "status": {"phase": "Failed", "conditions": [{
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "DeletionByPodGC",
                    "message": format!("PodGC: node {node} no longer exists"),
                    "lastTransitionTime": Time(Timestamp::now()),
                }]},
            }));
            match api.patch_status(name, &patch, &PatchParams::default()).await {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => {}
            }
        }
        tracing::info!(namespace = pod.metadata.namespace, name, "removing a pod nobody looks after");
        let params = DeleteParams::uid(pod.metadata.uid.clone().unwrap_or_default()).grace(0);
        match api.delete(name, &params).await {
            Err(e) if !e.is_not_found() && !e.is_conflict() => Err(e),
            _ => Ok(()),
        }
    }
}

/// The oldest of the pods that have ended, beyond those kept.
fn surplus(pods: Vec<Arc<Pod>>) -> Vec<Arc<Pod>> {
    let mut ended: Vec<Arc<Pod>> = pods.into_iter().filter(|p| pods::is_finished(p)).collect();
    let many = ended.len().saturating_sub(KEEP);
    if many > 0 {
        ended.sort_by_key(|p| p.metadata.creation_timestamp.clone().map(|t| t.0));
    }
    ended.truncate(many);
    ended
}
