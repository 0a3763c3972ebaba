//! `skep up`: a cluster of one node, in the foreground.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Node;
use skep_client::{Client, ClientConfig};
use skep_node_agent::AgentConfig;
use skep_node_agent::server::TlsFiles;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::agent::NodeOptions;
use crate::folders::Folders;
use crate::isolate::Isolation;
use crate::progress::Progress;
use crate::server::{self, Plane, Server};
use crate::{kubeconfig, runtime, supervise};

/// A node that takes longer has a problem that its log tells.
const READY: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(25);

/// `skep up`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    folders: Folders,
    #[command(flatten)]
    isolation: Isolation,
    #[command(flatten)]
    plane: Plane,
    #[command(flatten)]
    node: NodeOptions,
}

/// `skep up`.
pub(crate) fn main(mut options: Options) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("a node needs root: it makes network namespaces and loads eBPF programs");
    }
    options.isolation.enter()?;
    if !supervise::is_supervised() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(supervise::supervise());
    }
    supervise::stop_with_parent()?;
    let _lock = options.folders.lock()?;
    options.plane.advertise_address = options.plane.advertise_address.or(options.node.node_ip);
    runtime::run(async move |cancel| up(&options, &cancel).await)
}

async fn up(options: &Options, cancel: &CancellationToken) -> Result<()> {
    let mut progress = Progress::new();
    let tasks = TaskTracker::new();
    // The server outlives the agent, which says its last words to it.
    let (server_cancel, agent_cancel) = (CancellationToken::new(), cancel.child_token());
    progress.step("control plane");
    let server = server::start(&options.folders, &options.plane, &tasks, &server_cancel).await?;
    let outcome = node(options, &server, &agent_cancel, &mut progress).await;
    server_cancel.cancel();
    tasks.close();
    tasks.wait().await;
    outcome
}

/// Runs the node until it is told to stop, or fails.
async fn node(
    options: &Options,
    server: &Server,
    cancel: &CancellationToken,
    progress: &mut Progress,
) -> Result<()> {
    let name = options.node.name()?;
    let url = format!("https://127.0.0.1:{}", server.address.port());
    let path = kubeconfig::write_admin(&options.folders, &server.pki, &url)?;
    let config = agent_config(options, server, &name, &url)?;
    let kubelet = config.kubelet_listen;
    progress.step("node agent, containerd, eBPF programs");
    let agent = tokio::spawn(skep_node_agent::run(config, cancel.clone()));
    let admin = Client::new(ClientConfig::from_kubeconfig(&path)?)?;
    let ready = tokio::select! {
        ready = wait_ready(&admin, &name, kubelet) => ready,
        () = cancel.cancelled() => Ok(()),
        () = finished(&agent) => Err(anyhow::anyhow!("the node agent ended")),
    };
    if ready.is_ok() && !cancel.is_cancelled() {
        progress.done();
        hint(options, &name, &path, progress)?;
        tokio::select! {
            () = cancel.cancelled() => {}
            () = finished(&agent) => {}
        }
    }
    if cancel.is_cancelled() {
        eprintln!("\nstopping; pods and services go on. `skep down` stops them too.");
    }
    cancel.cancel();
    // What the agent ended with says more than that it ended.
    agent.await.context("the node agent panicked")?.context("the node agent")?;
    ready
}

async fn finished<T>(task: &tokio::task::JoinHandle<T>) {
    while !task.is_finished() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn agent_config(options: &Options, server: &Server, name: &str, url: &str) -> Result<AgentConfig> {
    let ip = options.node.ip()?;
    // Kept, so that a start does not have to make keys.
    let certificate = server.pki.stored_client(
        &format!("node-{name}"),
        &format!("system:node:{name}"),
        &["system:nodes"],
    )?;
    let serving =
        server.pki.stored_server(&format!("kubelet-{name}"), name, &[], &[name.to_owned()], &[ip])?;
    let client = Client::new(ClientConfig {
        ca_pem: Some(server.pki.ca_pem().to_owned()),
        client_cert_pem: Some(certificate.cert_pem),
        client_key_pem: Some(certificate.key_pem),
        user_agent: "skep-agent".to_owned(),
        ..ClientConfig::new(url)
    })?;
    let tls = TlsFiles {
        cert_pem: serving.cert_pem,
        key_pem: serving.key_pem,
        client_ca_pem: server.pki.ca_pem().to_owned(),
        files: None,
    };
    Ok(AgentConfig {
        service_cidrs: options.plane.service_cidr.iter().map(ToString::to_string).collect(),
        cluster_cidrs: options.plane.pod_cidr.iter().map(ToString::to_string).collect(),
        cluster_dns: server::dns_addresses(&options.plane.service_cidr)?,
        ..options.node.config(&options.folders, &options.isolation, client, tls)?
    })
}

/// Ready is what the node says, and that this agent is there: the object may tell of an earlier one.
async fn wait_ready(admin: &Client, name: &str, kubelet: SocketAddr) -> Result<()> {
    let ready = async {
        loop {
            let says_so = admin.all::<Node>().get_opt(name).await?.is_some_and(|node| is_ready(&node));
            if says_so && TcpStream::connect(kubelet).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    };
    match tokio::time::timeout(READY, ready).await {
        Ok(outcome) => outcome,
        Err(_) => bail!("node {name} is not Ready after {} s; its log above says why", READY.as_secs()),
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn hint(options: &Options, name: &str, kubeconfig: &std::path::Path, progress: &Progress) -> Result<()> {
    eprintln!("\nnode {name} is Ready after {:.2} s", progress.seconds());
    if !kubeconfig::link_home(kubeconfig)?
        && std::env::var_os("KUBECONFIG").is_none_or(|own| own != kubeconfig)
    {
        eprintln!("\n  export KUBECONFIG={}", kubeconfig.display());
    }
    if let Some(netns) = &options.isolation.netns {
        eprintln!("\n  (this node is a box: run kubectl and curl by `ip netns exec {netns} …`)");
    }
    eprintln!("\ntry:\n  kubectl get nodes");
    eprintln!("  cargo xtask registry                  # images for the example, in another terminal");
    eprintln!("  kubectl apply -f examples/web.yaml");
    eprintln!("  curl http://$(kubectl get service web -o jsonpath='{{.spec.clusterIP}}')/");
    eprintln!("\nCtrl-C stops the cluster; pods and services go on.");
    Ok(())
}
