//! The task that keeps the maps as they should be.

mod dirty;
mod need;
mod no_local;
mod proxy;
mod sources;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use skep_client::Client;
use skep_client::events::Recorder;
use skep_ebpf_loader::DataPlane;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::Result;
use crate::host_ports::HostPorts;
use crate::metrics::Metrics;
use crate::mode::ProxyMode;
use crate::options::ProxyOptions;
use crate::serve::{self, Health, HealthChecks, ServeOptions};
use proxy::Proxy;
use sources::Sources;

/// How often the proxy keeps house, usually.
pub const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// What the proxy needs.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The own node's name.
    pub node_name: String,
    /// The node's addresses, the preferred one of each family first; those of its interfaces come in addition.
    /// Translated packets take the preferred one as their source.
    pub node_addresses: Vec<IpAddr>,
    /// Who translates.
    pub mode: ProxyMode,
    /// The data plane; without one the mode must be one of rules.
    pub data_plane: Option<Arc<DataPlane>>,
    /// The pods with host ports, once they are known; nothing that they may want is removed before.
    pub host_ports: watch::Receiver<Option<Arc<HostPorts>>>,
    /// Whether to attach the uplink programs to every interface with an address of the node.
    pub attach_uplinks: bool,
    /// Networks that pods reach under their own address; empty: no masquerading at all.
    pub keep_source: Vec<IpNet>,
    /// The cluster's pods: by rules, what comes from them keeps its source.
    pub cluster_cidrs: Vec<IpNet>,
    /// The cluster IPs: by rules, those that no service has are not sent on.
    pub service_cidrs: Vec<IpNet>,
    /// The folder with the pods' network namespaces, where sockets to gone backends are looked for.
    pub netns_dir: PathBuf,
    /// The file that says in which mode this node was left; none: every start looks for all.
    pub record: Option<PathBuf>,
    /// What kube-proxy lets one choose.
    pub options: ProxyOptions,
    /// Where health and metrics are served.
    pub serve: ServeOptions,
    /// How often flows are collected, backends expired and the node's addresses looked at: [`HOUSEKEEPING`].
    pub housekeeping: Duration,
    /// Told the mode once it serves everything and the others are gone.
    pub settled: watch::Sender<Option<ProxyMode>>,
    /// Counted into.
    pub metrics: Metrics,
}

/// Keeps the maps in step with the cluster until cancelled. Failures are tried again for ever.
///
/// # Errors
/// When the maps cannot even be read at the start.
pub async fn run(client: Client, config: ProxyConfig, cancel: CancellationToken) -> Result<()> {
    let tracker = TaskTracker::new();
    let child = cancel.child_token();
    // Whatever way this ends, the informers end too.
    let _stop = child.clone().drop_guard();
    let sources = Sources::start(&client, &config, &tracker, &child);
    let recorder = Recorder::spawn(client.clone(), "kube-proxy", &config.node_name, &tracker, child.clone());
    let health = Health::new(sources.nodes.clone(), &config.node_name);
    serve::spawn(&config, &health, &recorder, &tracker, &child);
    let checks = HealthChecks::new(health.clone(), recorder.clone(), tracker.clone(), child.clone());
    let proxy = Proxy::new(config, sources, health, recorder, checks).await;
    let result = match proxy {
        Ok(proxy) => proxy.run(&cancel).await,
        Err(error) => Err(error),
    };
    tracker.close();
    child.cancel();
    tracker.wait().await;
    result
}
