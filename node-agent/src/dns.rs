//! The node's DNS answerer, composed: its settings out of the agent's, who may ask, and where it is advertised.
//!
//! It starts before everything else and waits for nothing: while the agent was away, nobody answered the node's pods.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use skep_client::Store;
use skep_dns::{Advertisement, Clients, DnsConfig, UpstreamConfig, advertise, metrics::Metrics};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{AgentConfig, Error};

/// What is known of services, for the next start.
const SNAPSHOT: &str = "dns-services.json";
/// The pause before the answerer is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// The local resolver's file with the name servers that it asks, where resolv.conf names only itself.
const BEHIND_LOCAL_RESOLVER: &str = "/run/systemd/resolve/resolv.conf";

/// A running answerer.
pub(crate) struct Dns {
    ready: watch::Receiver<bool>,
    clients: watch::Sender<Clients>,
}

/// The resolver settings that are of use in a pod: those given, unless they only name a resolver on the machine's own
/// loopback, which no pod reaches, and that resolver says whom it asks.
pub(crate) fn resolv_conf(given: &Path) -> std::path::PathBuf {
    let behind = Path::new(BEHIND_LOCAL_RESOLVER);
    let text = std::fs::read_to_string(given).unwrap_or_default();
    if skep_agent_core::files::Resolver::parse(&text).is_local() && behind.exists() {
        behind.to_owned()
    } else {
        given.to_owned()
    }
}

impl Dns {
    /// Starts it; `None` where it is switched off.
    pub(crate) fn start(
        config: &AgentConfig,
        metrics: &Metrics,
        tracker: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Result<Option<Self>, Error> {
        if config.cluster_dns.is_empty() {
            return Ok(None);
        }
        let listen: Vec<SocketAddr> =
            config.node_ips.iter().map(|ip| SocketAddr::new(*ip, config.dns_port)).collect();
        let (clients, allowed) = watch::channel(allowed(config, &[])?);
        let dns = DnsConfig {
            cluster_domain: config.cluster_domain.clone(),
            reverse_ranges: ranges(config.service_cidrs.iter().chain(&config.cluster_cidrs))?,
            upstreams: UpstreamConfig {
                servers: config.dns_upstreams.clone(),
                resolv_conf: Some(config.resolv_conf.clone()),
                stub_domains: config.dns_stub_domains.clone(),
                own: listen.clone(),
                own_addresses: config.cluster_dns.clone(),
            },
            clients: allowed,
            snapshot: Some(config.state_dir.join(SNAPSHOT)),
            metrics: metrics.clone(),
            ..DnsConfig::new(listen)
        };
        let ready = dns.ready.subscribe();
        let (client, cancel) = (config.client.clone(), cancel.clone());
        tracker.spawn(async move {
            // Pods run without DNS too: it is tried again rather than taking the node down.
            loop {
                match skep_dns::run(dns.clone(), client.clone(), cancel.clone()).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::error!(error = &error as &dyn std::error::Error, "DNS ended; trying again");
                    }
                }
                if cancel.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                    return;
                }
            }
        });
        Ok(Some(Self { ready, clients }))
    }

    /// Advertises it until told to stop; its last word is that others are to be asked.
    pub(crate) fn advertise(&self, config: &AgentConfig, tracker: &TaskTracker, stop: CancellationToken) {
        let what = Advertisement {
            node_name: config.node_name.clone(),
            addresses: config.node_ips.clone(),
            port: config.dns_port,
        };
        tracker.spawn(advertise(config.client.clone(), what, self.ready.clone(), stop));
    }

    /// Lets the cluster's nodes ask: their own processes do, and their pods when they reach us by a node's address.
    pub(crate) fn follow_nodes(
        self,
        config: AgentConfig,
        nodes: Store<Node>,
        tracker: &TaskTracker,
        cancel: CancellationToken,
    ) {
        let follow = async move {
            let mut changes = nodes.subscribe();
            nodes.synced().await;
            loop {
                changes.borrow_and_update();
                match allowed(&config, &nodes.list()) {
                    Ok(now) => {
                        self.clients.send_if_modified(|before| {
                            let changed = *before != now;
                            *before = now;
                            changed
                        });
                    }
                    Err(error) => tracing::warn!(%error, "who may ask DNS"),
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tracker.spawn(async move {
            cancel.run_until_cancelled(follow).await;
        });
    }
}

/// The node's address may be public: only the cluster's pods and nodes may ask.
fn allowed(config: &AgentConfig, nodes: &[Arc<Node>]) -> Result<Clients, Error> {
    let ranges = ranges(config.cluster_cidrs.iter())?;
    if ranges.is_empty() {
        // Who the pods are is not known.
        return Ok(Clients::default());
    }
    let addresses = nodes.iter().filter_map(|node| node.status.as_ref()?.addresses.as_ref()).flatten();
    let addresses = addresses.filter_map(|address| address.address.parse().ok());
    Ok(Clients { ranges, addresses: config.node_ips.iter().copied().chain(addresses).collect() })
}

fn ranges<'a>(texts: impl Iterator<Item = &'a String>) -> Result<Vec<IpNet>, Error> {
    texts
        .map(|range| range.parse().map_err(|error| Error::Config(format!("range {range:?}: {error}"))))
        .collect()
}
