//! Puts the agent together: runtime, Node, data plane, network, proxy, DNS, pods, kubelet API.
//!
//! The order is the order of needs: the Node must exist before it can be given pod ranges, those before the
//! network, that before the first pod. What does not need one another starts side by side.

use std::{path::Path, sync::Arc};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use skep_agent_core::files::ClusterDns;
use skep_client::{Client, Informer, ListParams, Store, events::Recorder};
use skep_ebpf_loader::{DataPlane, LoadOptions};
use skep_network::{NetworkConfig, PodDataPath, PodNetwork};
use skep_network_policy::PolicyConfig;
use skep_runtime::{Runtime, cgroup::Hierarchies};
use skep_service_proxy::{HOUSEKEEPING, HostPorts, ProxyConfig, ProxyMode};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    AgentConfig, Error,
    dns::{self, Dns},
    housekeeping,
    metrics::Metrics,
    node::{Health, Machine, Registration, all, peers},
    pods::{Directory, Kubelet, Manager, NodeSettings, SharedTools, Tools},
    server,
    volumes::Volumes,
};

/// Runs the agent until cancelled. Containers, containerd, the network and the data plane stay when it ends.
///
/// # Errors
/// When something that the node cannot be without does not start, or ends.
pub async fn run(config: AgentConfig, cancel: CancellationToken) -> Result<(), Error> {
    let tracker = TaskTracker::new();
    // DNS is handed over to other nodes while everything still runs; then everything ends.
    let (own, last_word, farewell) = (CancellationToken::new(), TaskTracker::new(), cancel.child_token());
    let said = async {
        last_word.close();
        last_word.wait().await;
        own.cancel();
    };
    let told = async {
        cancel.cancelled().await;
        said.await;
        std::future::pending().await
    };
    let result = tokio::select! {
        result = start(config, &tracker, &own, Farewell { tracker: &last_word, told: &farewell }) => result,
        never = told => never,
    };
    farewell.cancel();
    last_word.close();
    last_word.wait().await;
    own.cancel();
    tracker.close();
    tracker.wait().await;
    result
}

/// Tasks that have something to say before the others end.
struct Farewell<'a> {
    tracker: &'a TaskTracker,
    told: &'a CancellationToken,
}

async fn start(
    mut config: AgentConfig,
    tracker: &TaskTracker,
    cancel: &CancellationToken,
    farewell: Farewell<'_>,
) -> Result<(), Error> {
    for dir in [&config.state_dir, &config.run_dir, &config.log_dir] {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    }
    config.resolv_conf = dns::resolv_conf(&config.resolv_conf);
    let metrics = Metrics::new();
    let dns = Dns::start(&config, &metrics.dns, tracker, cancel)?;
    if let Some(group) = &config.cgroup {
        Hierarchies::probe()?.make_room(group)?;
    }
    let machine = Machine::probe(&config.state_dir);
    let runtime = Runtime::start(config.runtime(), tracker.clone(), cancel.clone()).await?;
    let version = runtime.version().await?;
    let registration = Arc::new(Registration::new(config.clone(), machine.clone(), version));
    let Some(_) = cancel.run_until_cancelled(registration.register()).await else { return Ok(()) };
    if let Some(dns) = &dns {
        dns.advertise(&config, farewell.tracker, farewell.told.clone());
    }

    let health = watch::Sender::new(Health {
        ready: Err("container runtime network not ready: waiting for the pod network".to_owned()),
        images: Vec::new(),
    });
    {
        let (registration, health, cancel) = (registration.clone(), health.subscribe(), cancel.clone());
        tracker.spawn(async move { registration.heartbeat(health, cancel).await });
    }
    let Services { data_plane, mode } = services(&config).await?;
    let Some(cidrs) = cancel.run_until_cancelled(registration.pod_cidrs()).await else { return Ok(()) };
    // The route that rules need stays until another mode serves everything.
    let before = skep_service_proxy::recorded_mode(&config.proxy_record());
    let by_stack = mode.into_iter().chain(before).any(ProxyMode::is_rules);
    let network = pod_network(&config, &cidrs, data_plane.clone(), by_stack).await?;

    let client = config.client.clone();
    let nodes = Informer::new(client.all::<Node>(), all()).spawn(tracker, cancel.clone());
    let services =
        Informer::new(client.all::<Service>(), ListParams::default()).spawn(tracker, cancel.clone());
    let pods =
        Informer::new(client.all::<Pod>(), ListParams::fields(format!("spec.nodeName={}", config.node_name)))
            .spawn(tracker, cancel.clone());

    let recorder = Recorder::spawn(client.clone(), "kubelet", &config.node_name, tracker, cancel.clone());
    let policy = PolicyConfig {
        data_plane: data_plane.clone(),
        names_file: config.state_dir.join(crate::POLICY_NAMES),
        dns_port: if config.cluster_dns.is_empty() { 0 } else { config.dns_port },
        nodes: nodes.clone(),
        metrics: metrics.policy.clone(),
    };
    let policies = skep_network_policy::spawn(client.clone(), policy, recorder.clone(), tracker, cancel);
    let pods_dir = config.state_dir.join("pods");
    let tools: SharedTools = Arc::new(Tools {
        volumes: Volumes::new(client.clone(), pods_dir.clone(), machine.node_facts()),
        client,
        runtime,
        network,
        policies,
        recorder,
        services,
        directory: Directory::default(),
        pulls: Default::default(),
        metrics,
        data_plane: data_plane.clone(),
        node: NodeSettings {
            ips: config.node_ips.clone(),
            facts: machine.node_facts(),
            memory_capacity: machine.memory,
            run_dir: config.run_dir.clone(),
            pods_dir,
            log_dir: config.log_dir.clone(),
            cgroup: config.pods_cgroup(),
            dns: ClusterDns { servers: config.cluster_dns.clone(), domain: config.cluster_domain.clone() },
            resolv_conf: config.resolv_conf.clone(),
        },
    });

    if let Some(dns) = dns {
        dns.follow_nodes(config.clone(), nodes.clone(), tracker, cancel.clone());
    }
    spawn_routes(tracker, cancel, tools.clone(), nodes, config.node_name.clone());
    if let Some(mode) = mode {
        let settled = watch::Sender::new(None);
        spawn_service_routes(tracker, cancel, tools.clone(), settled.subscribe());
        let host_ports = follow_host_ports(tracker, cancel, pods.clone());
        let proxy = proxy_config(&config, mode, data_plane, host_ports, settled, &tools.metrics)?;
        spawn_proxy(tracker, cancel, proxy, config.client.clone());
    }
    {
        let (tools, health, cancel) = (tools.clone(), health.clone(), cancel.clone());
        tracker.spawn(async move {
            cancel.run_until_cancelled(housekeeping::run(tools, health)).await;
        });
    }
    health.send_modify(|health| health.ready = Ok(()));
    tracing::info!(node = config.node_name, pod_cidrs = ?cidrs, "the node is ready for pods");

    let kubelet = Arc::new(Kubelet(tools.clone()));
    let serve =
        server::serve(config.kubelet_listen, config.kubelet_tls.clone(), kubelet, cancel.child_token());
    let manage = Manager::new(tools, pods).run(cancel.child_token());
    // Each ends by the token; the first failure ends the agent.
    tokio::try_join!(async { serve.await.map_err(Error::from) }, manage)?;
    Ok(())
}

/// What carries services: the programs, where the kernel takes them, and the mode.
struct Services {
    data_plane: Option<Arc<DataPlane>>,
    mode: Option<ProxyMode>,
}

/// Loads the eBPF programs, and settles on a proxy mode: the one that was asked for or else the best that works.
async fn services(config: &AgentConfig) -> Result<Services, Error> {
    if !config.data_plane {
        return Ok(Services { data_plane: None, mode: None });
    }
    let mut wanted = config.proxy_mode;
    if config.proxy_options.masquerade_all && wanted.is_none() {
        // Programs cannot: a socket dials the endpoint itself.
        wanted = first_rules().await;
    }
    if let Some(mode) = wanted {
        mode.probe_rules().await?;
    }
    let loaded = load_data_plane(config, wanted.is_some_and(ProxyMode::is_rules)).await;
    let (data_plane, mode) = match (loaded, wanted) {
        (Ok(plane), wanted) => (Some(plane), wanted.unwrap_or_default()),
        (Err(error), Some(ProxyMode::Ebpf)) => return Err(error),
        (Err(error), wanted) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "no eBPF programs on this kernel: pods are reached by plain routes"
            );
            let mode = match wanted {
                Some(mode) => mode,
                None => first_rules().await.ok_or(error)?,
            };
            (None, mode)
        }
    };
    tracing::info!(%mode, asked_for = wanted.is_some(), "services are translated by");
    Ok(Services { data_plane, mode: Some(mode) })
}

/// The first mode of rules that works here.
async fn first_rules() -> Option<ProxyMode> {
    for mode in ProxyMode::ALL.into_iter().filter(|mode| mode.is_rules()) {
        match mode.probe_rules().await {
            Ok(()) => return Some(mode),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "proxy mode"),
        }
    }
    None
}

async fn load_data_plane(config: &AgentConfig, pods_only: bool) -> Result<Arc<DataPlane>, Error> {
    let options = LoadOptions {
        pin_dir: config.pin_dir.clone(),
        cgroup: config.cgroup.as_ref().map(|c| Path::new(c.trim_matches('/')).to_path_buf()),
        map_memory: config.map_memory,
        pods_only,
        free_node_ports: config.proxy_options.free_node_ports,
        xdp: config.proxy_options.xdp,
        ..LoadOptions::default()
    };
    // Loading compiles for the kernel: hundreds of milliseconds of CPU.
    let loaded = tokio::task::spawn_blocking(move || DataPlane::load(options))
        .await
        .map_err(|e| Error::Config(e.to_string()))??;
    loaded.set_node_addresses(&config.node_ips)?;
    Ok(Arc::new(loaded))
}

async fn pod_network(
    config: &AgentConfig,
    cidrs: &[String],
    data_plane: Option<Arc<DataPlane>>,
    services_by_stack: bool,
) -> Result<PodNetwork, Error> {
    let parse = |list: &[String]| {
        list.iter()
            .map(|c| c.parse().map_err(|e| Error::Config(format!("range {c:?}: {e}"))))
            .collect::<Result<Vec<_>, Error>>()
    };
    Ok(PodNetwork::new(NetworkConfig {
        run_dir: config.run_dir.clone(),
        state_dir: config.state_dir.clone(),
        pod_cidrs: parse(cidrs)?,
        service_cidrs: parse(&config.service_cidrs)?,
        cluster_cidrs: parse(&config.cluster_cidrs)?,
        services_by_stack,
        node_ips: config.node_ips.clone(),
        mtu: config.mtu,
        routing: config.pod_routing,
        tunnel_port: config.tunnel_port,
        data_plane: data_plane.map(|plane| plane as Arc<dyn PodDataPath>),
    })
    .await?)
}

/// Follows the other nodes with routes to their pods.
fn spawn_routes(
    tracker: &TaskTracker,
    cancel: &CancellationToken,
    tools: SharedTools,
    nodes: Store<Node>,
    own: String,
) {
    let cancel = cancel.clone();
    tracker.spawn(async move {
        let follow = async {
            let mut changes = nodes.subscribe();
            nodes.synced().await;
            let mut set = None;
            loop {
                changes.borrow_and_update();
                let wanted = peers(&nodes.list(), &own);
                if set.as_ref() != Some(&wanted) {
                    match tools.network.set_peers(wanted.clone()).await {
                        Ok(()) => set = Some(wanted),
                        Err(error) => tracing::warn!(%error, "routes to other nodes"),
                    }
                }
                // Cancel-safe: waits only. A refused route is tried again with the next look.
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(std::time::Duration::from_secs(30)) => {}
                }
            }
        };
        cancel.run_until_cancelled(follow).await;
    });
}

/// Follows the proxy: once no rules translate service addresses any more, none need be routed to them.
fn spawn_service_routes(
    tracker: &TaskTracker,
    cancel: &CancellationToken,
    tools: SharedTools,
    mut settled: watch::Receiver<Option<ProxyMode>>,
) {
    let cancel = cancel.clone();
    tracker.spawn(async move {
        let follow = async {
            let Ok(mode) = settled.wait_for(Option::is_some).await.map(|mode| *mode) else { return };
            let by_stack = mode.is_some_and(ProxyMode::is_rules);
            while let Err(error) = tools.network.set_services_by_stack(by_stack).await {
                tracing::warn!(%error, "routes of service addresses");
                tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            }
        };
        cancel.run_until_cancelled(follow).await;
    });
}

/// Tells the proxy which ports of pods the node serves. A pod counts for as long as its object is there, which goes
/// when the pod's network has gone; so an agent that starts anew knows them all once the objects are listed.
fn follow_host_ports(
    tracker: &TaskTracker,
    cancel: &CancellationToken,
    pods: Store<Pod>,
) -> watch::Receiver<Option<Arc<HostPorts>>> {
    let (sender, receiver) = watch::channel(None);
    let follow = async move {
        let mut changes = pods.subscribe();
        pods.synced().await;
        loop {
            changes.borrow_and_update();
            let now = Some(Arc::new(HostPorts::of_pods(&pods.list())));
            sender.send_if_modified(|before| {
                let changed = *before != now;
                *before = now;
                changed
            });
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    tracker.spawn(cancel.clone().run_until_cancelled_owned(follow));
    receiver
}

fn proxy_config(
    config: &AgentConfig,
    mode: ProxyMode,
    data_plane: Option<Arc<DataPlane>>,
    host_ports: watch::Receiver<Option<Arc<HostPorts>>>,
    settled: watch::Sender<Option<ProxyMode>>,
    metrics: &Metrics,
) -> Result<ProxyConfig, Error> {
    let parse = |ranges: &[String]| {
        let parse =
            |range: &String| range.parse().map_err(|e| Error::Config(format!("range {range:?}: {e}")));
        ranges.iter().map(parse).collect::<Result<Vec<IpNet>, Error>>()
    };
    let (cluster_cidrs, service_cidrs) = (parse(&config.cluster_cidrs)?, parse(&config.service_cidrs)?);
    Ok(ProxyConfig {
        node_name: config.node_name.clone(),
        mode,
        node_addresses: config.node_ips.clone(),
        data_plane,
        host_ports,
        // The pod network follows the uplinks itself.
        attach_uplinks: false,
        // Service addresses too: one that nobody serves must be refused by its route, not sent away.
        keep_source: [cluster_cidrs.clone(), service_cidrs.clone()].concat(),
        cluster_cidrs,
        service_cidrs,
        netns_dir: config.run_dir.join("netns"),
        record: Some(config.proxy_record()),
        options: config.proxy_options.clone(),
        serve: config.proxy_serve.clone(),
        housekeeping: HOUSEKEEPING,
        settled,
        metrics: metrics.proxy.clone(),
    })
}

fn spawn_proxy(tracker: &TaskTracker, cancel: &CancellationToken, proxy: ProxyConfig, client: Client) {
    let cancel = cancel.clone();
    tracker.spawn(async move {
        loop {
            match skep_service_proxy::run(client.clone(), proxy.clone(), cancel.clone()).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the service proxy ended; trying again"
                    );
                }
            }
            let pause = tokio::time::sleep(std::time::Duration::from_secs(2));
            if cancel.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    });
}
