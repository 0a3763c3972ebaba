//! A node: what its agent runs of the network, in a namespace and on a thread of its own.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::core::v1::Node as ApiNode;
use skep_client::{Informer, ListParams, events::Recorder};
use skep_ebpf_loader::{DataPlane, LoadOptions};
use skep_network::{NetworkConfig, Peer, PodAttachment, PodDataPath, PodNetwork, PodRequest};
use skep_network_policy::{PolicyConfig, engine::LocalPod, metrics::Metrics};
use skep_service_proxy::{ProxyConfig, ProxyMode, serve::ServeOptions};
use skep_tests::{NetBox, Segment, cgroup::CgroupTree};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api::Api,
    world::{CLUSTER, SERVICES, nets},
};

/// What is the same for every start of an agent.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) mode: ProxyMode,
    pub(crate) config: NetworkConfig,
    pub(crate) peers: Vec<Peer>,
    pub(crate) pods: BTreeMap<String, LocalPod>,
    pub(crate) api: Api,
}

/// A node.
pub(crate) struct Node {
    agent: Option<Agent>,
    pub(crate) plan: Plan,
    pub(crate) pods: BTreeMap<String, PodAttachment>,
    pub(crate) pins: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) cgroup: CgroupTree,
    pub(crate) netbox: NetBox,
}

struct Agent {
    cancel: CancellationToken,
    thread: JoinHandle<Result<()>>,
}

impl Node {
    /// Makes the box and plugs it in; nothing runs yet.
    pub(crate) fn new(plan: Plan, segment: &Segment) -> Result<Self> {
        let netbox = NetBox::new(&plan.name)?;
        for ip in &plan.config.node_ips {
            let length = if ip.is_ipv4() { 24 } else { 64 };
            // One port for each family would be two interfaces: the second address goes to the first.
            if ip.is_ipv4() {
                segment.plug(&netbox, &[format!("{ip}/{length}").parse()?])?;
            } else {
                let device = netbox.ip("-o link")?;
                let device = device.split(' ').find(|word| word.starts_with("netport")).context("a port")?;
                let device = device.split('@').next().unwrap_or_default();
                netbox.ip(&format!("-6 address add {ip}/{length} dev {device} nodad"))?;
            }
        }
        let (dir, cgroup) = (netbox.dir()?, CgroupTree::create(netbox.name())?);
        let pins = Path::new("/sys/fs/bpf").join(netbox.name());
        let mut plan = plan;
        plan.config.run_dir = dir.join("run");
        plan.config.state_dir = dir.join("state");
        std::fs::create_dir_all(&plan.config.state_dir)?;
        Ok(Self { agent: None, plan, pods: BTreeMap::new(), pins, dir, cgroup, netbox })
    }

    /// The file that says what the numbers in the maps stand for.
    pub(crate) fn names_file(&self) -> PathBuf {
        self.dir.join("policy.json")
    }

    /// Starts the agent and waits until services are served and each pod's policies are in the kernel.
    pub(crate) fn start(&mut self) -> Result<()> {
        let (sender, ready) = mpsc::channel();
        let cancel = CancellationToken::new();
        let options = LoadOptions {
            pin_dir: self.pins.clone(),
            cgroup: Some(self.cgroup.unified().context("no cgroup v2 hierarchy")?.to_owned()),
            pods_only: self.plan.mode.is_rules(),
            ..LoadOptions::default()
        };
        let (netns, plan, token) = (self.netbox.netns_path(), self.plan.clone(), cancel.clone());
        let (names, record) = (self.names_file(), self.dir.join("proxy.json"));
        let thread = thread::spawn(move || {
            skep_tests::netbox::run_in(&netns, move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(agent(plan, options, (names, record), sender, token))
            })?
        });
        self.agent = Some(Agent { cancel, thread });
        match ready.recv() {
            Ok(pods) => {
                self.pods = pods;
                Ok(())
            }
            // It ended instead: its error says why.
            Err(_) => self.stop().and_then(|()| Err(anyhow!("the agent of {} ended", self.plan.name))),
        }
    }

    pub(crate) fn stop(&mut self) -> Result<()> {
        let Some(agent) = self.agent.take() else { return Ok(()) };
        agent.cancel.cancel();
        agent.thread.join().map_err(|_| anyhow!("the agent panicked"))?
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let stopped = self.stop();
        let config = &self.plan.config;
        let purged = self.netbox.run_async(|| async {
            PodNetwork::purge(&config.run_dir, &config.state_dir).await?;
            skep_service_proxy::purge_rules(&self.dir.join("proxy.json")).await?;
            DataPlane::purge(&self.pins)?;
            anyhow::Ok(())
        });
        for error in [stopped, purged.and_then(std::convert::identity)].into_iter().filter_map(Result::err) {
            eprintln!("node {} leaves something behind: {error:#}", self.plan.name);
        }
    }
}

async fn agent(
    plan: Plan,
    options: LoadOptions,
    (names_file, record): (PathBuf, PathBuf),
    ready: mpsc::Sender<BTreeMap<String, PodAttachment>>,
    cancel: CancellationToken,
) -> Result<()> {
    let tracker = TaskTracker::new();
    let plane = Arc::new(DataPlane::load(options).context("load the data plane")?);
    plane.set_node_addresses(&plan.config.node_ips)?;
    let config = NetworkConfig {
        data_plane: Some(Arc::clone(&plane) as Arc<dyn PodDataPath>),
        services_by_stack: plan.mode.is_rules(),
        ..plan.config.clone()
    };
    let network = PodNetwork::new(config).await?;
    network.set_peers(plan.peers.clone()).await?;
    let client = plan.api.client();
    let nodes = Informer::new(client.all::<ApiNode>(), ListParams::default()).spawn(&tracker, cancel.clone());
    let recorder = Recorder::spawn(client.clone(), "test", &plan.name, &tracker, cancel.clone());
    let policy = PolicyConfig {
        data_plane: Some(Arc::clone(&plane)),
        names_file,
        dns_port: 10053,
        nodes,
        metrics: Metrics::default(),
    };
    let policies = skep_network_policy::spawn(client.clone(), policy, recorder, &tracker, &cancel);
    // As the agent does: what was there is taken over, then each pod is told of before anything runs in it.
    network.reconcile(&plan.pods.keys().cloned().collect::<Vec<_>>()).await?;
    let attached = network.attachments().await;
    policies.keep_only(attached.into_values().flat_map(|pod| pod.ips).collect()).await;
    let mut pods = BTreeMap::new();
    for (uid, local) in &plan.pods {
        let (namespace, name) = (local.name.namespace.clone(), local.name.name.clone());
        let made = network.setup(&PodRequest { uid: uid.clone(), namespace, name }).await?;
        let ips: Vec<IpAddr> = made.ips.clone();
        policies.add(uid, LocalPod { ips, netns: made.netns.clone(), ..local.clone() }).await?;
        pods.insert(uid.clone(), made);
    }
    let settled = watch::Sender::new(None);
    let mut serves = settled.subscribe();
    let proxy = ProxyConfig {
        node_name: plan.name.clone(),
        mode: plan.mode,
        node_addresses: plan.config.node_ips.clone(),
        data_plane: Some(plane),
        attach_uplinks: false,
        keep_source: [nets(&CLUSTER)?, nets(&SERVICES)?].concat(),
        cluster_cidrs: nets(&CLUSTER)?,
        service_cidrs: nets(&SERVICES)?,
        host_ports: watch::Sender::new(Some(Arc::default())).subscribe(),
        netns_dir: plan.config.run_dir.join("netns"),
        record: Some(record),
        options: Default::default(),
        serve: ServeOptions { healthz: None, metrics: None },
        housekeeping: skep_service_proxy::HOUSEKEEPING,
        settled,
        metrics: Default::default(),
    };
    let run = skep_service_proxy::run(client, proxy, cancel.clone());
    let tell = async {
        if serves.wait_for(Option::is_some).await.is_ok() {
            // Whoever asked may have given up.
            let _ = ready.send(pods);
        }
    };
    let (ran, ()) = tokio::join!(run, tell);
    cancel.cancel();
    tracker.close();
    tracker.wait().await;
    Ok(ran?)
}
