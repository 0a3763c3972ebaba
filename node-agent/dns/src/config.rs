//! How the answerer is set up, and why it may fail to start.

use std::{net::SocketAddr, path::PathBuf};

use ipnet::IpNet;
use tokio::sync::watch;

use crate::{clients::Clients, metrics::Metrics, upstreams::UpstreamConfig};

/// The result of starting and running.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the answerer ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The cluster's domain is not a domain name.
    #[error("invalid cluster domain {domain:?}")]
    Domain {
        /// What was given.
        domain: String,
        /// Why it is none.
        #[source]
        source: hickory_proto::ProtoError,
    },
    /// A port cannot be had.
    #[error("listen on {address}/{protocol}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// `udp` or `tcp`.
        protocol: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The answerer's thread cannot be had.
    #[error("start the thread that answers DNS")]
    Thread {
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A socket can no longer be used.
    #[error("the DNS answerer's socket failed")]
    Stopped(#[source] std::io::Error),
    /// The thread is gone.
    #[error("the DNS answerer's thread panicked")]
    Panicked,
}

/// The answerer's settings.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// The addresses to answer on, UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// Reverse lookups in these ranges (services, pods) are answered here, whether known or not.
    pub reverse_ranges: Vec<IpNet>,
    /// Seconds that answers may be kept; 5 to 30.
    pub ttl: u32,
    /// Where other names are asked.
    pub upstreams: UpstreamConfig,
    /// Who may ask. An answerer that the world can reach should name the pods and nodes.
    pub clients: watch::Receiver<Clients>,
    /// Where the index is kept for the next start; it answers until the API server has been heard. None: nowhere.
    pub snapshot: Option<PathBuf>,
    /// Told `true` when cluster names can be answered.
    pub ready: watch::Sender<bool>,
    /// What is counted.
    pub metrics: Metrics,
}

impl DnsConfig {
    /// Settings with the customary values.
    #[must_use]
    pub fn new(listen: Vec<SocketAddr>) -> Self {
        let upstreams = UpstreamConfig {
            resolv_conf: Some("/etc/resolv.conf".into()),
            own: listen.clone(),
            ..UpstreamConfig::default()
        };
        Self {
            listen,
            cluster_domain: "cluster.local".into(),
            reverse_ranges: Vec::new(),
            ttl: 30,
            upstreams,
            clients: watch::Sender::default().subscribe(),
            snapshot: None,
            ready: watch::Sender::new(false),
            metrics: Metrics::default(),
        }
    }
}
