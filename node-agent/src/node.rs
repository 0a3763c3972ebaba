//! The Node object: registration, status, lease.

mod facts;
mod object;

use std::{net::IpAddr, time::Duration};

use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::Node,
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use serde_json::json;
use skep_client::{Client, Error, ListParams, Patch, PatchParams};
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

pub use facts::Machine;

use crate::AgentConfig;

/// How often the lease is renewed; the controller gives up on a node after 40 s.
const LEASE_PERIOD: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;
/// How often the status is written when nothing in it changed.
const STATUS_PERIOD: Duration = Duration::from_secs(300);
/// How often it is looked at.
const LOOK_PERIOD: Duration = Duration::from_secs(10);
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Keeps the Node and its lease.
pub struct Registration {
    client: Client,
    config: AgentConfig,
    machine: Machine,
    runtime_version: String,
}

/// What of the node's health changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Pods can be run; otherwise why not.
    pub ready: Result<(), String>,
    /// Images on the node: names and bytes.
    pub images: Vec<(Vec<String>, i64)>,
}

impl Registration {
    /// Looks at the machine.
    #[must_use]
    pub fn new(config: AgentConfig, machine: Machine, runtime_version: String) -> Self {
        Self { client: config.client.clone(), config, machine, runtime_version }
    }

    /// Creates the Node, or brings ours up to date; retried until the API server answers.
    pub async fn register(&self) -> Node {
        let mut pause = Duration::from_millis(50);
        loop {
            match self.try_register().await {
                Ok(node) => return node,
                Err(error) => {
                    tracing::warn!(node = self.config.node_name, %error, "cannot register the node yet");
                    time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
            }
        }
    }

    async fn try_register(&self) -> Result<Node, Error> {
        let api = self.client.all::<Node>();
        let wanted = object::node(&self.config, &self.machine, &self.runtime_version);
        match api.create(&wanted).await {
            Ok(node) => Ok(node),
            Err(error) if error.is_already_exists() => {
                let patch = json!({ "metadata": { "labels": wanted.metadata.labels } });
                api.patch(&self.config.node_name, &Patch::Merge(patch), &PatchParams::default()).await
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until the Node has its pod ranges.
    pub async fn pod_cidrs(&self) -> Vec<String> {
        let api = self.client.all::<Node>();
        let mut pause = Duration::from_millis(20);
        loop {
            match api.get(&self.config.node_name).await {
                Ok(node) => {
                    let spec = node.spec.unwrap_or_default();
                    let all = spec.pod_cidrs.or_else(|| spec.pod_cidr.map(|c| vec![c])).unwrap_or_default();
                    if !all.is_empty() {
                        return all;
                    }
                }
                Err(error) => tracing::debug!(%error, "cannot read the node"),
            }
            time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// Renews lease and status until cancelled.
    pub async fn heartbeat(&self, mut health: watch::Receiver<Health>, cancel: CancellationToken) {
        let lease = async {
            loop {
                if let Err(error) = self.renew().await {
                    tracing::warn!(%error, "cannot renew the node lease");
                    time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
                time::sleep(LEASE_PERIOD).await;
            }
        };
        let status = async {
            let mut written = None;
            loop {
                let now = health.borrow_and_update().clone();
                let conditions = object::conditions(&self.machine, &now);
                let due = match &written {
                    None => true,
                    Some((before, at)) => {
                        *before != (now.clone(), conditions.clone())
                            || time::Instant::now() - *at >= STATUS_PERIOD
                    }
                };
                if due {
                    match self.write_status(&now).await {
                        Ok(()) => written = Some(((now, conditions), time::Instant::now())),
                        Err(error) => tracing::warn!(%error, "cannot write the node status"),
                    }
                }
                // Cancel-safe: waits only.
                tokio::select! {
                    changed = health.changed() => if changed.is_err() { return },
                    () = time::sleep(if written.is_some() { LOOK_PERIOD } else { Duration::from_secs(1) }) => {}
                }
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = lease => {}
            () = status => {}
        }
    }

    async fn write_status(&self, health: &Health) -> Result<(), Error> {
        let api = self.client.all::<Node>();
        let present = api.get(&self.config.node_name).await;
        let present = match present {
            Err(error) if error.is_not_found() => self.try_register().await?,
            other => other?,
        };
        let old = present.status.and_then(|s| s.conditions).unwrap_or_default();
        let status = object::status(
            &self.config,
            &self.machine,
            &self.runtime_version,
            health,
            &old,
            Timestamp::now(),
        );
        let patch = Patch::Merge(json!({ "status": status }));
        api.patch_status(&self.config.node_name, &patch, &PatchParams::default()).await.map(drop)
    }

    async fn renew(&self) -> Result<(), Error> {
        let api = self.client.namespaced::<Lease>(LEASE_NAMESPACE);
        let name = &self.config.node_name;
        let now = MicroTime(Timestamp::now());
        let patch = Patch::Merge(
            json!({ "spec": { "renewTime": now, "holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS } }),
        );
        match api.patch(name, &patch, &PatchParams::default()).await {
            Err(error) if error.is_not_found() => {
                let spec = LeaseSpec {
                    holder_identity: Some(name.clone()),
                    lease_duration_seconds: Some(LEASE_SECONDS),
                    renew_time: Some(now),
                    ..LeaseSpec::default()
                };
                let metadata = ObjectMeta {
                    name: Some(name.clone()),
                    namespace: Some(LEASE_NAMESPACE.to_owned()),
                    ..ObjectMeta::default()
                };
                match api.create(&Lease { metadata, spec: Some(spec) }).await {
                    Err(error) if error.is_already_exists() => Ok(()),
                    other => other.map(drop),
                }
            }
            other => other.map(drop),
        }
    }
}

/// The routes to other nodes' pods, from all Nodes.
#[must_use]
pub fn peers(nodes: &[std::sync::Arc<Node>], own: &str) -> Vec<skep_network::Peer> {
    let mut peers: Vec<_> = nodes
        .iter()
        .filter(|node| node.metadata.name.as_deref() != Some(own))
        .filter_map(|node| {
            let spec = node.spec.as_ref()?;
            let cidrs = spec.pod_cidrs.clone().or_else(|| spec.pod_cidr.clone().map(|c| vec![c]))?;
            let pod_cidrs: Vec<_> = cidrs.iter().filter_map(|c| c.parse().ok()).collect();
            let addresses = node.status.as_ref()?.addresses.as_ref()?;
            let node_ips: Vec<IpAddr> = addresses
                .iter()
                .filter(|a| a.type_ == "InternalIP")
                .filter_map(|a| a.address.parse().ok())
                .collect();
            (!pod_cidrs.is_empty() && !node_ips.is_empty())
                .then_some(skep_network::Peer { pod_cidrs, node_ips })
        })
        .collect();
    peers.sort();
    peers
}

/// Lists every Node: the parameters of its informer.
#[must_use]
pub fn all() -> ListParams {
    ListParams::default()
}
