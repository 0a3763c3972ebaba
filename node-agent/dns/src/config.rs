//! How the answerer is set up, and why it may fail to start.

use std::{net::SocketAddr, path::PathBuf};

use ipnet::IpNet;
use tokio::sync::watch;

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
    /// The name servers in resolv.conf cannot be used.
    #[error("set up forwarding to the node's name servers")]
    Forward(#[source] hickory_server::net::NetError),
    /// The server stopped by itself.
    #[error("the DNS server stopped")]
    Stopped(#[source] hickory_server::net::NetError),
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
    /// The node's own resolver settings, watched for changes. `None`: only the cluster is answered.
    pub resolv_conf: Option<PathBuf>,
    /// More addresses that lead to this answerer (the ClusterIP of kube-dns): never asked.
    pub own_addresses: Vec<std::net::IpAddr>,
    /// Who may ask; empty is everyone. An answerer that the world can reach should name the pods and nodes.
    pub allowed_clients: Vec<IpNet>,
    /// Told `true` when cluster names can be answered.
    pub ready: watch::Sender<bool>,
}

impl DnsConfig {
    /// Settings with the customary values.
    #[must_use]
    pub fn new(listen: Vec<SocketAddr>) -> Self {
        Self {
            listen,
            cluster_domain: "cluster.local".into(),
            reverse_ranges: Vec::new(),
            ttl: 30,
            resolv_conf: Some("/etc/resolv.conf".into()),
            own_addresses: Vec::new(),
            allowed_clients: Vec::new(),
            ready: watch::Sender::new(false),
        }
    }
}
