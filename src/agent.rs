//! A node: the agent with its credentials.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use skep_auth::pki::Pki;
use skep_client::{Client, ClientConfig, kubeconfig};
use skep_node_agent::server::TlsFiles;
use skep_node_agent::{AgentConfig, PodRouting, TUNNEL_PORT};
use skep_service_proxy::serve::ServeOptions;
use skep_service_proxy::{NodePortAddress, ProxyMode, ProxyOptions, TimeoutOptions, XdpChoice};
use tokio_util::sync::CancellationToken;

use crate::dns::DnsOptions;
use crate::folders::Folders;
use crate::isolate::Isolation;
use crate::join::{Join, Joined};
use crate::{host, runtime};

/// The files of a node's credentials, as `skep credentials` writes them.
const KUBECONFIG: &str = "agent.conf";
const SERVING_CERT: &str = "kubelet.crt";
const SERVING_KEY: &str = "kubelet.key";
const CA: &str = "ca.crt";

/// `skep agent`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) folders: Folders,
    #[command(flatten)]
    pub(crate) isolation: Isolation,
    #[command(flatten)]
    pub(crate) node: NodeOptions,
    #[command(flatten)]
    join: Join,
    /// A folder that `skep credentials` on the server made for this node, in place of --server and --token.
    #[arg(long, value_name = "DIR", required_unless_present = "server")]
    credentials: Option<PathBuf>,
    /// Ranges of service addresses, as the server has them.
    #[arg(long, default_value = "10.96.0.0/16", value_delimiter = ',', value_name = "CIDR")]
    service_cidr: Vec<String>,
    /// Ranges of pod addresses, as the server has them.
    #[arg(long, default_value = "10.244.0.0/16", value_delimiter = ',', value_name = "CIDR")]
    pod_cidr: Vec<String>,
    /// The addresses of the DNS service, one a family.
    #[arg(long, default_value = "10.96.0.10", value_delimiter = ',', value_name = "IP")]
    cluster_dns: Vec<IpAddr>,
}

/// What a node is told.
#[derive(Args, Clone, Debug)]
pub(crate) struct NodeOptions {
    #[command(flatten)]
    dns: DnsOptions,
    /// The node's name; the host's by default.
    #[arg(long, env = "SKEP_NODE_NAME", value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// The node's address; by default the one that the host speaks from.
    #[arg(long, env = "SKEP_NODE_IP", value_name = "IP")]
    pub(crate) node_ip: Option<IpAddr>,
    /// Use this containerd instead of one of our own.
    #[arg(long, env = "SKEP_CONTAINERD_SOCKET", value_name = "PATH")]
    pub(crate) containerd_socket: Option<PathBuf>,
    /// Registries to speak to without TLS (those on loopback are anyway).
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    pub(crate) insecure_registries: Vec<String>,
    /// The MTU of pods; by default the uplink's, less what the tunnel needs where pods are behind it.
    #[arg(long, value_name = "BYTES")]
    pub(crate) mtu: Option<u32>,
    /// How pods of other nodes are reached: auto (by routes on a shared segment, else through the tunnel), native
    /// (by routes only) or vxlan (through the tunnel only).
    #[arg(long, env = "SKEP_POD_ROUTING", default_value = "auto", value_name = "HOW")]
    pub(crate) pod_routing: PodRouting,
    /// The UDP port of the tunnel; the same on every node.
    #[arg(long, env = "SKEP_VXLAN_PORT", default_value_t = TUNNEL_PORT, value_name = "PORT")]
    pub(crate) vxlan_port: u16,
    /// The pods that this node takes at most.
    #[arg(long, default_value_t = 110, value_name = "N")]
    pub(crate) max_pods: u32,
    /// Who translates service addresses: ebpf, nftables or iptables; by default the first that the kernel can do.
    #[arg(long, env = "SKEP_PROXY_MODE", value_name = "MODE")]
    pub(crate) proxy_mode: Option<ProxyMode>,
    /// How much memory the eBPF maps may take when they are full, in MiB; by default an eighth of the machine's, 2048 at
    /// most.
    #[arg(long, value_name = "MIB")]
    pub(crate) map_memory: Option<u32>,
    /// Where node ports are served: primary, localhost, all or networks; everywhere by default.
    #[arg(long, value_delimiter = ',', value_name = "WHERE")]
    pub(crate) nodeport_addresses: Vec<NodePortAddress>,
    /// Let processes of this node bind ports that are node ports of services; they would get no connection.
    #[arg(long)]
    pub(crate) free_node_ports: bool,
    /// Choose the backends of what comes from outside by Maglev's hashing: every node chooses alike.
    #[arg(long, env = "SKEP_MAGLEV")]
    pub(crate) maglev: bool,
    /// Forward packets to services with backends on other nodes by XDP: off, generic, native, or auto, the best that
    /// works.
    #[arg(long, env = "SKEP_XDP", default_value_t, value_name = "HOW")]
    pub(crate) xdp: XdpChoice,
    /// Give all that goes to a cluster IP the node's address; services are then translated by rules.
    #[arg(long)]
    pub(crate) masquerade_all: bool,
    /// How long an idle TCP connection through this node's translation is remembered, in seconds; by default as the
    /// sysctl nf_conntrack_tcp_timeout_established says (a day at most), else 8000.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) conntrack_tcp_timeout_established: Option<u32>,
    /// The same for UDP without an answer; by default as nf_conntrack_udp_timeout says, else 30.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) conntrack_udp_timeout: Option<u32>,
    /// The same for UDP with answers; by default as nf_conntrack_udp_timeout_stream says, else 120.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) conntrack_udp_timeout_stream: Option<u32>,
    /// Where the service proxy answers /healthz and /livez; "none": nowhere.
    #[arg(long, default_value = "0.0.0.0:10256", value_name = "IP:PORT")]
    pub(crate) healthz_bind_address: Listen,
    /// Where the service proxy answers /metrics and /proxyMode; "none": nowhere.
    #[arg(long, default_value = "127.0.0.1:10249", value_name = "IP:PORT")]
    pub(crate) metrics_bind_address: Listen,
}

/// An address to listen on, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listen(Option<SocketAddr>);

impl FromStr for Listen {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(if matches!(text, "" | "none") { None } else { Some(text.parse()?) }))
    }
}

impl NodeOptions {
    pub(crate) fn name(&self) -> Result<String> {
        self.node_name.clone().map_or_else(host::name, Ok)
    }

    pub(crate) fn ip(&self) -> Result<IpAddr> {
        self.node_ip.map_or_else(host::address, Ok)
    }

    fn proxy(&self) -> ProxyOptions {
        let seconds = |seconds: Option<u32>| seconds.map(|seconds| Duration::from_secs(seconds.into()));
        ProxyOptions {
            node_port_addresses: self.nodeport_addresses.clone(),
            masquerade_all: self.masquerade_all,
            free_node_ports: self.free_node_ports,
            maglev: self.maglev,
            xdp: self.xdp,
            timeouts: TimeoutOptions {
                tcp_established: seconds(self.conntrack_tcp_timeout_established),
                udp: seconds(self.conntrack_udp_timeout),
                udp_stream: seconds(self.conntrack_udp_timeout_stream),
            },
        }
    }

    /// The agent's settings for this node.
    pub(crate) fn config(
        &self,
        folders: &Folders,
        isolation: &Isolation,
        client: Client,
        tls: TlsFiles,
    ) -> Result<AgentConfig> {
        Ok(AgentConfig {
            state_dir: folders.agent(),
            containerd_root: folders.state_dir.join("containerd"),
            run_dir: folders.run_dir.clone(),
            log_dir: folders.log_dir.clone(),
            pin_dir: folders.pin_dir.clone(),
            cgroup: isolation.cgroup.clone(),
            containerd_socket: self.containerd_socket.clone(),
            // The shim runs this later, from elsewhere: a link to "self" would be the shim.
            log_writer: std::env::current_exe().context("finding this program's path")?,
            insecure_registries: self.insecure_registries.clone(),
            mtu: self.mtu,
            pod_routing: self.pod_routing,
            tunnel_port: self.vxlan_port,
            resolv_conf: self.dns.resolv_conf.clone(),
            dns_upstreams: self.dns.upstreams(),
            dns_stub_domains: self.dns.stub_domains(),
            max_pods: self.max_pods,
            map_memory: self.map_memory.map(|mib| u64::from(mib) << 20),
            proxy_mode: self.proxy_mode,
            proxy_options: self.proxy(),
            proxy_serve: ServeOptions {
                healthz: self.healthz_bind_address.0,
                metrics: self.metrics_bind_address.0,
            },
            ..AgentConfig::new(self.name()?, vec![self.ip()?], client, tls)
        })
    }
}

/// `skep agent`.
pub(crate) fn main(options: Options) -> Result<()> {
    options.isolation.enter()?;
    let _lock = options.folders.lock()?;
    runtime::run(async move |cancel| {
        let (client, tls, joined) = match &options.credentials {
            Some(folder) => {
                let (client, tls) = from_folder(folder)?;
                (client, tls, None)
            }
            None => {
                let (client, tls, joined) = from_cluster(&options, &cancel).await?;
                (client, tls, Some(joined))
            }
        };
        let keep = CancellationToken::new();
        let keeper = joined.map(|joined| tokio::spawn(joined.keep(client.clone(), keep.clone())));
        let config = AgentConfig {
            service_cidrs: options.service_cidr.clone(),
            cluster_cidrs: options.pod_cidr.clone(),
            cluster_dns: options.cluster_dns.clone(),
            ..options.node.config(&options.folders, &options.isolation, client, tls)?
        };
        let outcome = skep_node_agent::run(config, cancel).await;
        keep.cancel();
        if let Some(keeper) = keeper {
            keeper.await.context("the keeper of certificates panicked")?;
        }
        Ok(outcome?)
    })
}

/// What `skep credentials` wrote.
fn from_folder(folder: &Path) -> Result<(Client, TlsFiles)> {
    let read = |name: &str| read(&folder.join(name));
    let client = Client::new(ClientConfig::from_kubeconfig(folder.join(KUBECONFIG))?)?;
    let tls = TlsFiles {
        cert_pem: read(SERVING_CERT)?,
        key_pem: read(SERVING_KEY)?,
        client_ca_pem: read(CA)?,
        files: None,
    };
    Ok((client, tls))
}

/// What the cluster gives to a node that joins.
async fn from_cluster(options: &Options, cancel: &CancellationToken) -> Result<(Client, TlsFiles, Joined)> {
    let server = options.join.server.as_deref().context("say which cluster to join: --server")?;
    let folder = options.folders.agent().join("pki");
    let name = options.node.name()?;
    let join = options.join.join(server, &folder, &name, options.node.ip()?);
    let joined = cancel.run_until_cancelled(join).await.context("stopped before the node had joined")??;
    let client = Client::new(joined.client()?)?;
    let (certificate, key) = joined.serving()?;
    let tls = TlsFiles {
        cert_pem: read(&certificate)?,
        key_pem: read(&key)?,
        client_ca_pem: joined.ca_pem()?,
        files: Some((certificate, key)),
    };
    Ok((client, tls, joined))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// `skep credentials`: what another machine needs to join as a node.
#[derive(Args, Clone, Debug)]
pub(crate) struct CredentialsOptions {
    #[command(flatten)]
    folders: Folders,
    /// The node's name.
    node: String,
    /// The node's address.
    #[arg(long, value_name = "IP")]
    node_ip: IpAddr,
    /// The server's URL as the node reaches it.
    #[arg(long, value_name = "URL")]
    server: String,
    /// The folder to write; take it to the node, and keep it secret.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// `skep credentials`.
pub(crate) fn credentials(options: &CredentialsOptions) -> Result<()> {
    let pki = Pki::load_or_create(&options.folders.pki(), &skep_auth::pki::PkiOptions::default())?;
    let client = client_certificate(&pki, &options.node)?;
    let serving = pki.issue_server(&options.node, std::slice::from_ref(&options.node), &[options.node_ip])?;
    fs::create_dir_all(&options.out).with_context(|| format!("making {}", options.out.display()))?;
    let write = |name: &str, text: &str| {
        let path = options.out.join(name);
        crate::kubeconfig::write_secret(&path, text)
    };
    kubeconfig::write(
        &options.out.join(KUBECONFIG),
        &options.server,
        pki.ca_pem(),
        &client.cert_pem,
        &client.key_pem,
    )?;
    write(SERVING_CERT, &serving.cert_pem)?;
    write(SERVING_KEY, &serving.key_pem)?;
    write(CA, pki.ca_pem())
}

/// The certificate that makes its holder this node.
pub(crate) fn client_certificate(pki: &Pki, node: &str) -> Result<skep_auth::pki::CertPair> {
    Ok(pki.issue_client(&format!("system:node:{node}"), &["system:nodes"])?)
}
