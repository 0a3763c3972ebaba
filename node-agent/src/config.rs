//! What the agent is told.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use k8s_openapi::api::core::v1::Taint;
use skep_client::Client;
use skep_network::PodRouting;
use skep_service_proxy::{ProxyMode, ProxyOptions, serve::ServeOptions};

use crate::server::TlsFiles;

/// Settings of one node agent. Several agents ("boxes") can live on one machine when folders, control
/// group, pin folder and network namespace differ.
#[derive(Clone)]
pub struct AgentConfig {
    /// Name of the Node.
    pub node_name: String,
    /// Addresses of the node, the first is the main one.
    pub node_ips: Vec<IpAddr>,
    /// Speaks to the API server as `system:node:NAME`.
    pub client: Client,
    /// More labels of the Node.
    pub labels: BTreeMap<String, String>,
    /// Taints the Node registers with.
    pub taints: Vec<Taint>,
    /// Where the kubelet API listens.
    pub kubelet_listen: SocketAddr,
    /// Its certificate, and the CA of its clients.
    pub kubelet_tls: TlsFiles,
    /// Pods' folders and the network's records; survives a reboot.
    pub state_dir: PathBuf,
    /// containerd's content, when it is our own.
    pub containerd_root: PathBuf,
    /// Sockets and pins; on a tmpfs.
    pub run_dir: PathBuf,
    /// Pods' logs.
    pub log_dir: PathBuf,
    /// bpffs folder of the data plane.
    pub pin_dir: PathBuf,
    /// Control group of the box, relative to each hierarchy's root; none is the root.
    pub cgroup: Option<String>,
    /// An existing containerd; none starts our own.
    pub containerd_socket: Option<PathBuf>,
    /// The program for `log-writer`; our own executable.
    pub log_writer: PathBuf,
    /// Registries spoken to without TLS.
    pub insecure_registries: Vec<String>,
    /// Mirrors by registry.
    pub registry_mirrors: BTreeMap<String, Vec<String>>,
    /// Service ranges.
    pub service_cidrs: Vec<String>,
    /// Pod ranges of the whole cluster.
    pub cluster_cidrs: Vec<String>,
    /// MTU of pods; when absent the uplink's, less what the tunnel needs where pods are behind it.
    pub mtu: Option<u32>,
    /// How pods of other nodes are reached.
    pub pod_routing: PodRouting,
    /// The UDP port of the tunnel, the same on every node.
    pub tunnel_port: u16,
    /// ClusterIPs of the DNS service; none switches DNS off.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// Port of the DNS answerer on the node's addresses.
    pub dns_port: u16,
    /// The node's own resolver settings.
    pub resolv_conf: PathBuf,
    /// The name servers for names outside the cluster; empty: those of `resolv_conf`.
    pub dns_upstreams: Vec<SocketAddr>,
    /// Domains with name servers of their own.
    pub dns_stub_domains: Vec<(skep_dns::Name, Vec<SocketAddr>)>,
    /// Load the eBPF data plane and the service proxy.
    pub data_plane: bool,
    /// How many bytes the maps of the data plane may take when full; an eighth of the memory by default.
    pub map_memory: Option<u64>,
    /// Who translates service addresses; none: the best that the kernel can do.
    pub proxy_mode: Option<ProxyMode>,
    /// What kube-proxy lets one choose.
    pub proxy_options: ProxyOptions,
    /// Where the service proxy serves its health and metrics.
    pub proxy_serve: ServeOptions,
    /// Most pods on this node.
    pub max_pods: u32,
}

impl AgentConfig {
    /// The customary settings below `/var/lib/skep` and `/run/skep`.
    #[must_use]
    pub fn new(
        node_name: impl Into<String>,
        node_ips: Vec<IpAddr>,
        client: Client,
        kubelet_tls: TlsFiles,
    ) -> Self {
        let first = node_ips.first().copied().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        Self {
            node_name: node_name.into(),
            node_ips,
            client,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            kubelet_listen: SocketAddr::new(first, 10250),
            kubelet_tls,
            state_dir: "/var/lib/skep/agent".into(),
            containerd_root: "/var/lib/skep/containerd".into(),
            run_dir: "/run/skep".into(),
            log_dir: "/var/log/pods".into(),
            pin_dir: "/sys/fs/bpf/skep".into(),
            cgroup: None,
            containerd_socket: None,
            log_writer: "/proc/self/exe".into(),
            insecure_registries: Vec::new(),
            registry_mirrors: BTreeMap::new(),
            service_cidrs: vec!["10.96.0.0/16".to_owned()],
            cluster_cidrs: vec!["10.244.0.0/16".to_owned()],
            mtu: None,
            pod_routing: PodRouting::default(),
            tunnel_port: skep_network::TUNNEL_PORT,
            cluster_dns: vec![IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10))],
            cluster_domain: "cluster.local".to_owned(),
            dns_port: 10053,
            resolv_conf: "/etc/resolv.conf".into(),
            dns_upstreams: Vec::new(),
            dns_stub_domains: Vec::new(),
            data_plane: true,
            map_memory: None,
            proxy_mode: None,
            proxy_options: ProxyOptions::default(),
            proxy_serve: ServeOptions::usual(),
            max_pods: 110,
        }
    }

    /// The control group above all pods.
    pub(crate) fn pods_cgroup(&self) -> String {
        let base = self.cgroup.as_deref().unwrap_or("").trim_matches('/');
        if base.is_empty() { "/skep-pods".to_owned() } else { format!("/{base}/pods") }
    }

    /// The file that says in which mode services were left.
    pub(crate) fn proxy_record(&self) -> PathBuf {
        self.state_dir.join(crate::PROXY_RECORD)
    }

    pub(crate) fn runtime(&self) -> skep_runtime::RuntimeConfig {
        let mut config = skep_runtime::RuntimeConfig::new(&self.containerd_root, &self.run_dir);
        config.socket.clone_from(&self.containerd_socket);
        config.log_writer.clone_from(&self.log_writer);
        config.registries.insecure.clone_from(&self.insecure_registries);
        config.registries.mirrors.clone_from(&self.registry_mirrors);
        config
    }
}
