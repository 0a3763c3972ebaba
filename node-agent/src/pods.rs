//! Pods: one worker each, fed by an informer.
//!
//! The manager ([`manager`]) is the only one that makes and ends workers. A worker ([`worker`]) owns all
//! that is known about its pod; jobs (network, volumes, starts, stops) run beside it and report back, so
//! that a deletion is noticed in the middle of an image pull.

mod directory;
mod files;
mod handler;
mod jobs;
mod kubelet;
mod manager;
mod mounts;
mod probing;
mod pulls;
mod record;
mod report;
mod request;
mod sockets;
mod worker;

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use k8s_openapi::api::core::v1::Service;
use skep_agent_core::{fields::NodeFacts, files::ClusterDns};
use skep_client::{Client, Store, events::Recorder};
use skep_ebpf_loader::DataPlane;
use skep_network::PodNetwork;
use skep_network_policy::Policies;
use skep_runtime::Runtime;

pub(crate) use directory::Directory;
pub(crate) use kubelet::Kubelet;
pub(crate) use manager::Manager;

use crate::{metrics::Metrics, volumes::Volumes};

/// What every worker needs. Read-only, shared.
pub(crate) struct Tools {
    pub client: Client,
    pub runtime: Runtime,
    pub network: PodNetwork,
    pub policies: Policies,
    pub volumes: Volumes,
    pub recorder: Recorder,
    pub services: Store<Service>,
    pub directory: Directory,
    pub pulls: pulls::Pulls,
    pub metrics: Metrics,
    /// The programs of sockets, where there are any.
    pub data_plane: Option<Arc<DataPlane>>,
    pub node: NodeSettings,
}

/// What of the configuration pods need.
pub(crate) struct NodeSettings {
    pub ips: Vec<IpAddr>,
    pub facts: NodeFacts,
    pub memory_capacity: i64,
    pub run_dir: PathBuf,
    pub pods_dir: PathBuf,
    pub log_dir: PathBuf,
    pub cgroup: String,
    pub dns: ClusterDns,
    pub resolv_conf: PathBuf,
}

impl NodeSettings {
    pub(crate) fn pod_folder(&self, uid: &str) -> PathBuf {
        self.pods_dir.join(uid)
    }

    /// Where the pods' network namespaces are pinned, by uid.
    pub(crate) fn netns_dir(&self) -> PathBuf {
        self.run_dir.join("netns")
    }

    pub(crate) fn pod_cgroup(&self, uid: &str) -> String {
        format!("{}/pod{uid}", self.cgroup)
    }
}

/// Shared by reference count: workers outlive no one else.
pub(crate) type SharedTools = Arc<Tools>;
