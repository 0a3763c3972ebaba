//! A node with three pods, another node with two, and a client outside; and the proxy on the node.
//!
//! ```text
//! client 192.0.2.9 --- segment --- node 192.0.2.1 (pods p1, p2, p3 of 10.244.0.0/24, fd00:10:244::/64)
//!                            | \--- far  192.0.2.2 (r1 10.244.1.5, r2 10.244.1.6)
//! edge 198.51.100.9 ------ router 192.0.2.8, over which nothing longer than 1280 bytes passes
//! ```

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};
use skep_ebpf_loader::{DataPlane, LoadOptions};
use skep_network::{NetworkConfig, Peer, PodAttachment, PodDataPath, PodNetwork, PodRequest};
use skep_service_proxy::{HostPorts, ProxyConfig, ProxyMode, ProxyOptions, purge_rules, serve::ServeOptions};
use skep_tests::{NetBox, Segment, cgroup::CgroupTree, succeed};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::Api;
use crate::probe::{Running, Spot};
use crate::script::{Names, Options, Scenario, Step};

/// How long a change may take to have its effect.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);
const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const FAR: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
const CLIENT: [&str; 2] = ["192.0.2.9", "2001:db8::9"];
const ROUTER: [&str; 2] = ["192.0.2.8", "2001:db8::8"];
const EDGE: [&str; 2] = ["198.51.100.9", "2001:db8:51::9"];
const FAR_PODS: [(&str, &str, &str); 2] =
    [("r1", "10.244.1.5", "fd00:10:244:1::5"), ("r2", "10.244.1.6", "fd00:10:244:1::6")];
const POD_RANGES: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/56"];
const SERVICE_RANGES: [&str; 2] = ["10.96.0.0/16", "fd00:96::/112"];
/// What pods serve at.
const PORTS: [u16; 2] = [8080, 8081];
/// What the node's own server serves at.
const HOST_PORT: u16 = 9090;

/// What the client serves at.
const CLIENT_PORT: u16 = 7070;

/// Everything that a back end's scenarios run in.
pub(crate) struct World {
    // In the order of dropping: what runs inside first.
    pub(crate) flows: BTreeMap<String, Running>,
    servers: Vec<Running>,
    proxy: Option<Proxy>,
    mode: ProxyMode,
    options: Options,
    pods: BTreeMap<String, PodAttachment>,
    api: Api,
    /// Pods' host ports as the node agent would tell them.
    bound: BTreeMap<String, Value>,
    host_ports: watch::Sender<Option<Arc<HostPorts>>>,
    config: NetworkConfig,
    data_plane: Option<Arc<DataPlane>>,
    cgroup: CgroupTree,
    pub(crate) node: NetBox,
    far: NetBox,
    client: NetBox,
    edge: NetBox,
    _router: NetBox,
    _segment: Segment,
    pub(crate) pins: PathBuf,
    dir: PathBuf,
}

/// The running proxy.
struct Proxy {
    cancel: CancellationToken,
    settled: watch::Receiver<Option<ProxyMode>>,
    thread: JoinHandle<Result<()>>,
}

impl Proxy {
    fn stop(self) -> Result<()> {
        self.cancel.cancel();
        self.thread.join().map_err(|_| anyhow!("the proxy panicked"))?
    }
}

fn nets(list: &[&str]) -> Result<Vec<IpNet>> {
    list.iter().map(|text| Ok(text.parse()?)).collect()
}

impl World {
    pub(crate) fn new(mode: ProxyMode) -> Result<Self> {
        let segment = Segment::new("wire")?;
        let (node, far, client) = (NetBox::new("node")?, NetBox::new("far")?, NetBox::new("client")?);
        let (router, edge) = (NetBox::new("router")?, NetBox::new("edge")?);
        for (netbox, addresses) in [(&node, NODE), (&far, FAR), (&client, CLIENT), (&router, ROUTER)] {
            let [v4, v6] = addresses;
            segment.plug(netbox, &[format!("{v4}/24").parse()?, format!("{v6}/64").parse()?])?;
        }
        narrow(&router, &edge, &[&node, &far])?;
        // The client is the way out, and the way of service addresses to the node.
        node.ip(&format!("route add default via {}", CLIENT[0]))?;
        node.ip(&format!("-6 route add default via {}", CLIENT[1]))?;
        for netbox in [&client, &far] {
            for range in [SERVICE_RANGES[0], "203.0.113.0/24", "10.244.0.0/24"] {
                netbox.ip(&format!("route add {range} via {}", NODE[0]))?;
            }
            for range in [SERVICE_RANGES[1], "2001:db8:113::/64", "fd00:10:244::/64"] {
                netbox.ip(&format!("-6 route add {range} via {}", NODE[1]))?;
            }
        }
        // Scenarios ask more often than the kernel likes to answer that there is nobody.
        for netbox in [&node, &router] {
            sysctls(netbox, &[("ipv4/icmp_ratelimit", "0"), ("ipv6/icmp/ratelimit", "0")])?;
        }
        for (_, v4, v6) in FAR_PODS {
            far.ip(&format!("address add {v4}/32 dev lo"))?;
            far.ip(&format!("-6 address add {v6}/128 dev lo nodad"))?;
        }
        let cgroup = CgroupTree::create(node.name())?;
        let pins = Path::new("/sys/fs/bpf").join(node.name());
        let dir = node.dir()?;
        let (data_plane, config, pods) = node.run_async(|| network(mode, &cgroup, &pins, &dir))??;
        let mut world = Self {
            flows: BTreeMap::new(),
            servers: Vec::new(),
            proxy: None,
            mode,
            options: Options::default(),
            pods,
            api: Api::new(),
            bound: BTreeMap::new(),
            host_ports: watch::Sender::new(Some(Arc::default())),
            config,
            data_plane,
            cgroup,
            node,
            far,
            client,
            edge,
            _router: router,
            _segment: segment,
            pins,
            dir,
        };
        world.serve()?;
        world.api.put("nodes", "n1", json!({"metadata": {"name": "n1"}, "status": {}}));
        world.start(mode, Options::default())?;
        Ok(world)
    }

    fn serve(&mut self) -> Result<()> {
        let mut servers = Vec::new();
        for name in self.pods.keys() {
            servers.push(Running::serve(self.spot(name)?, name, &PORTS, &[])?);
        }
        for (name, v4, v6) in FAR_PODS {
            // Both live in one namespace.
            let ports = if v4.ends_with('5') { PORTS } else { PORTS.map(|port| port + 100) };
            servers.push(Running::serve(self.spot("far")?, name, &ports, &[v4, v6])?);
        }
        servers.push(Running::serve(self.spot("node")?, "host", &[HOST_PORT], &[])?);
        servers.push(Running::serve(self.spot("client")?, "client", &[CLIENT_PORT], &[])?);
        self.servers = servers;
        Ok(())
    }

    /// Where a name is.
    pub(crate) fn spot(&self, name: &str) -> Result<Spot<'_>> {
        if let Some(pod) = name.strip_suffix("/wire") {
            // The programs of sockets are the cgroup's.
            return Ok(Spot { cgroup: None, ..self.spot(pod)? });
        }
        if let Some(pod) = self.pods.get(name) {
            return Ok(Spot { netns: &pod.netns, cgroup: Some(&self.cgroup) });
        }
        let (netbox, cgroup) = match name {
            "node" => (&self.node, Some(&self.cgroup)),
            "client" => (&self.client, None),
            "far" => (&self.far, None),
            "edge" => (&self.edge, None),
            _ => bail!("{name} is nobody here"),
        };
        // A path must outlive the spot; namespaces of boxes have fixed ones.
        let netns: &'static Path = Box::leak(netbox.netns_path().into_boxed_path());
        Ok(Spot { netns, cgroup })
    }

    pub(crate) fn address(&self, name: &str, v6: bool) -> Result<IpAddr> {
        let name = name.trim_end_matches("/wire");
        let text = match name {
            "node" => NODE[usize::from(v6)],
            "client" => CLIENT[usize::from(v6)],
            "far" => FAR[usize::from(v6)],
            "edge" => EDGE[usize::from(v6)],
            _ => return Ok(self.pod(name, v6)?.0.parse()?),
        };
        Ok(text.parse()?)
    }

    /// Starts the proxy and waits until it serves what there is.
    fn start(&mut self, mode: ProxyMode, options: Options) -> Result<()> {
        self.launch(mode, options)?;
        self.settle()
    }

    /// Starts the proxy.
    fn launch(&mut self, mode: ProxyMode, options: Options) -> Result<()> {
        let (cancel, settled) = (CancellationToken::new(), watch::Sender::new(None));
        let receiver = settled.subscribe();
        let data_plane = self.load(mode)?;
        self.data_plane.clone_from(&data_plane);
        // As the agent has it: the route that rules need comes first and goes last.
        let by_stack = mode.is_rules() || self.mode.is_rules();
        self.route_services(by_stack)?;
        let ranges = nets(&POD_RANGES)?.into_iter().chain(nets(&SERVICE_RANGES)?).collect();
        let config = ProxyConfig {
            node_name: "n1".to_owned(),
            mode,
            node_addresses: NODE.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
            data_plane,
            host_ports: self.host_ports.subscribe(),
            attach_uplinks: false,
            keep_source: ranges,
            cluster_cidrs: nets(&POD_RANGES)?,
            service_cidrs: nets(&SERVICE_RANGES)?,
            netns_dir: self.config.run_dir.join("netns"),
            record: Some(self.dir.join("proxy.json")),
            options: ProxyOptions {
                node_port_addresses: options
                    .node_port_addresses
                    .iter()
                    .map(|text| text.parse().map_err(|error| anyhow!("{error}")))
                    .collect::<Result<_>>()?,
                masquerade_all: options.masquerade_all,
                maglev: options.maglev,
                ..ProxyOptions::default()
            },
            serve: ServeOptions {
                healthz: Some("0.0.0.0:10256".parse()?),
                metrics: Some("127.0.0.1:10249".parse()?),
            },
            housekeeping: Duration::from_secs(1),
            settled,
            metrics: skep_service_proxy::metrics::Metrics::default(),
        };
        let (api, netns, token) = (self.api.clone(), self.node.netns_path(), cancel.clone());
        let thread = thread::spawn(move || {
            skep_tests::netbox::run_in(&netns, move || -> Result<()> {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                Ok(runtime.block_on(skep_service_proxy::run(api.client(), config, token))?)
            })?
        });
        self.mode = mode;
        self.options = options;
        self.proxy = Some(Proxy { cancel, settled: receiver, thread });
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE * 2;
        while let Some(proxy) = self.proxy.take_if(|proxy| proxy.settled.borrow().is_none()) {
            if proxy.thread.is_finished() || Instant::now() > deadline {
                proxy.stop().context("the proxy did not start")?;
                bail!("the proxy does not settle");
            }
            self.proxy = Some(proxy);
            thread::sleep(Duration::from_millis(20));
        }
        self.route_services(self.mode.is_rules())
    }

    /// Tells the proxy which ports of pods are bound.
    fn tell_host_ports(&self) -> Result<()> {
        let mut pods = Vec::new();
        for (name, ports) in &self.bound {
            let ips = [self.pod(name, false)?.0, self.pod(name, true)?.0].map(|ip| json!({"ip": ip}));
            let pod = json!({"metadata": {"name": name, "namespace": "default"},
                "spec": {"containers": [{"name": "c", "ports": ports}]}, "status": {"podIPs": ips}});
            pods.push(Arc::new(serde_json::from_value(pod)?));
        }
        self.host_ports.send_replace(Some(Arc::new(HostPorts::of_pods(&pods))));
        Ok(())
    }

    fn route_services(&self, by_stack: bool) -> Result<()> {
        let config = NetworkConfig { services_by_stack: by_stack, data_plane: None, ..self.config.clone() };
        self.node.run_async(|| async {
            let network = PodNetwork::new(config).await?;
            Ok(network.set_services_by_stack(by_stack).await?)
        })?
    }

    fn load(&self, mode: ProxyMode) -> Result<Option<Arc<DataPlane>>> {
        let options = options(mode, &self.cgroup, &self.pins)?;
        self.node.run(|| Ok(Some(Arc::new(DataPlane::load(options)?))))?
    }

    /// Runs a scenario and cleans up after it, whatever came of it.
    pub(crate) fn run(&mut self, scenario: &Scenario) -> Result<()> {
        let mode = self.mode;
        let mut result = Ok(());
        for (number, step) in scenario.steps.iter().enumerate() {
            result = self.step(step).with_context(|| format!("step {}", number + 1));
            if result.is_err() {
                break;
            }
        }
        if std::env::var("SKEP_SCENARIO_DUMP").is_ok() && result.is_err() {
            self.dump();
        }
        self.flows.clear();
        self.bound.clear();
        self.host_ports.send_replace(Some(Arc::default()));
        for resource in ["endpointslices", "services"] {
            for name in self.api.names(resource) {
                self.api.delete(resource, &name);
            }
        }
        self.api.put("nodes", "n1", json!({"metadata": {"name": "n1"}, "status": {}}));
        if self.mode != mode || self.options != Options::default() {
            self.restart(mode, Options::default(), false)?;
        }
        result
    }

    /// What the kernel holds, for whoever looks for a failure.
    fn dump(&self) {
        let text = match self.mode {
            ProxyMode::Ebpf => {
                skep_service_proxy::inspect::services(&self.pins, Default::default()).unwrap_or_default()
            }
            ProxyMode::Nftables => output_of(self.node.command("nft").args(["list", "ruleset"])),
            ProxyMode::Iptables => output_of(&mut self.node.command("iptables-save")),
        };
        println!("{text}");
    }

    fn restart(&mut self, mode: ProxyMode, options: Options, blind: bool) -> Result<()> {
        if let Some(proxy) = self.proxy.take() {
            proxy.stop()?;
        }
        if blind { self.launch(mode, options) } else { self.start(mode, options) }
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        for words in &step.ip {
            self.node.ip(words)?;
        }
        if let Some(change) = &step.node {
            let mut node = self.api.get("nodes", "n1").context("the node")?;
            merge(&mut node, change);
            self.api.put("nodes", "n1", node);
        }
        for object in &step.apply {
            let (resource, name, object) = object.build(self)?;
            self.api.put(resource, &name, object);
        }
        for path in &step.delete {
            let (kind, name) = path.split_once('/').context("KIND/NAME")?;
            let resource = if kind == "slice" { "endpointslices" } else { "services" };
            self.api.delete(resource, name);
        }
        if let Some(restart) = &step.restart {
            let mode = match &restart.mode {
                Some(mode) => mode.parse().map_err(|error| anyhow!("{error}"))?,
                None => self.mode,
            };
            if restart.blind {
                self.host_ports.send_replace(None);
            }
            self.restart(mode, restart.options.clone(), restart.blind)?;
        }
        if !step.bind.is_empty() {
            self.bound.extend(step.bind.clone());
            self.tell_host_ports()?;
            self.settle()?;
        }
        if step.flush {
            succeed(self.node.command("nft").args(["flush", "ruleset"]))?;
        }
        for (name, dial) in &step.open {
            let (protocol, target) = parse_target(&dial.to)?;
            let flow = Running::flow(self.spot(&dial.from)?, protocol, target)?;
            self.flows.insert(name.clone(), flow);
        }
        for check in &step.check {
            self.check(check)?;
        }
        Ok(())
    }

    /// Ends the proxy and removes everything; says what is left.
    pub(crate) fn leave(&mut self) -> Result<()> {
        if let Some(proxy) = self.proxy.take() {
            proxy.stop()?;
        }
        let record = self.dir.join("proxy.json");
        self.node.run_async(|| async { purge_rules(&record).await })??;
        let rules = output_of(self.node.command("nft").args(["list", "ruleset"]));
        ensure!(!rules.to_lowercase().contains("skep"), "rules are left:\n{rules}");
        let rules = output_of(&mut self.node.command("iptables-legacy-save"));
        ensure!(!rules.contains("SKEP"), "rules are left:\n{rules}");
        ensure!(!record.exists(), "the record is left");
        Ok(())
    }
}

impl Names for World {
    fn pod(&self, name: &str, v6: bool) -> Result<(String, String)> {
        if let Some(pod) = self.pods.get(name) {
            let ip = pod.ips.iter().find(|ip| ip.is_ipv6() == v6).context("no address of this family")?;
            return Ok((ip.to_string(), "n1".to_owned()));
        }
        if let Some((_, v4, six)) = FAR_PODS.iter().find(|(far, ..)| *far == name) {
            return Ok(((if v6 { six } else { v4 }).to_string(), "n2".to_owned()));
        }
        if name == "host" {
            return Ok((NODE[usize::from(v6)].to_owned(), "n1".to_owned()));
        }
        // An address that nobody has.
        let parsed: IpAddr = name.parse().with_context(|| format!("{name} is no pod and no address"))?;
        Ok((parsed.to_string(), "n2".to_owned()))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.flows.clear();
        self.servers.clear();
        if let Some(proxy) = self.proxy.take()
            && let Err(error) = proxy.stop()
        {
            eprintln!("the proxy ended with {error:#}");
        }
        let purged = self.node.run_async(|| async {
            PodNetwork::purge(&self.config.run_dir, &self.config.state_dir).await?;
            DataPlane::purge(&self.pins)?;
            anyhow::Ok(())
        });
        if let Err(error) = purged.and_then(std::convert::identity) {
            eprintln!("the node leaves something behind: {error:#}");
        }
    }
}

fn sysctls(netbox: &NetBox, values: &[(&str, &str)]) -> Result<()> {
    let write = |(name, value): &(&str, &str)| std::fs::write(format!("/proc/sys/net/{name}"), value);
    Ok(netbox.run(|| values.iter().try_for_each(write))??)
}

/// Puts a box behind a router that sends nothing longer than 1280 bytes on, and says so.
fn narrow(router: &NetBox, edge: &NetBox, others: &[&NetBox]) -> Result<()> {
    router.ip(&format!("link add down0 type veth peer name up0 netns {}", edge.name()))?;
    for (netbox, link, last) in [(router, "down0", 1), (edge, "up0", 9)] {
        netbox.ip(&format!("address add 198.51.100.{last}/24 dev {link}"))?;
        netbox.ip(&format!("address add 2001:db8:51::{last}/64 dev {link} nodad"))?;
        netbox.ip(&format!("link set {link} up"))?;
    }
    edge.ip("route add default via 198.51.100.1")?;
    edge.ip("-6 route add default via 2001:db8:51::1")?;
    sysctls(router, &[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
    router.ip(&format!("route add {} dev down0 mtu lock 1280", EDGE[0]))?;
    router.ip(&format!("-6 route add {} dev down0 mtu lock 1280", EDGE[1]))?;
    for range in ["192.0.2.1/32", SERVICE_RANGES[0], "203.0.113.0/24"] {
        let via =
            if range.starts_with(NODE[0]) { "dev netport3".to_owned() } else { format!("via {}", NODE[0]) };
        router.ip(&format!("route add {range} {via} mtu lock 1280"))?;
    }
    for range in ["2001:db8::1/128", SERVICE_RANGES[1], "2001:db8:113::/64"] {
        let via =
            if range.starts_with(NODE[1]) { "dev netport3".to_owned() } else { format!("via {}", NODE[1]) };
        router.ip(&format!("-6 route add {range} {via} mtu lock 1280"))?;
    }
    for netbox in others {
        netbox.ip(&format!("route add 198.51.100.0/24 via {}", ROUTER[0]))?;
        netbox.ip(&format!("-6 route add 2001:db8:51::/64 via {}", ROUTER[1]))?;
    }
    Ok(())
}

fn options(mode: ProxyMode, cgroup: &CgroupTree, pins: &Path) -> Result<LoadOptions> {
    Ok(LoadOptions {
        pin_dir: pins.to_owned(),
        cgroup: Some(cgroup.unified().context("no cgroup v2 hierarchy")?.to_owned()),
        pods_only: mode.is_rules(),
        ..LoadOptions::default()
    })
}

type Built = (Option<Arc<DataPlane>>, NetworkConfig, BTreeMap<String, PodAttachment>);

async fn network(mode: ProxyMode, cgroup: &CgroupTree, pins: &Path, dir: &Path) -> Result<Built> {
    let data_plane =
        Some(Arc::new(DataPlane::load(options(mode, cgroup, pins)?).context("load the data plane")?));
    let config = NetworkConfig {
        run_dir: dir.join("run"),
        state_dir: dir.join("state"),
        pod_cidrs: nets(&["10.244.0.0/24", "fd00:10:244::/64"])?,
        service_cidrs: nets(&SERVICE_RANGES)?,
        cluster_cidrs: nets(&POD_RANGES)?,
        services_by_stack: mode.is_rules(),
        node_ips: NODE.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
        data_plane: data_plane.clone().map(|plane| plane as Arc<dyn PodDataPath>),
        ..NetworkConfig::default()
    };
    let network = PodNetwork::new(config.clone()).await?;
    let far = Peer {
        node_ips: FAR.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
        pod_cidrs: nets(&["10.244.1.0/24", "fd00:10:244:1::/64"])?,
    };
    network.set_peers(vec![far]).await?;
    let mut pods = BTreeMap::new();
    for name in ["p1", "p2", "p3"] {
        let request = PodRequest { uid: name.into(), namespace: "default".into(), name: name.into() };
        pods.insert(name.to_owned(), network.setup(&request).await?);
    }
    Ok((data_plane, config, pods))
}

pub(crate) fn parse_target(text: &str) -> Result<(&str, &str)> {
    text.split_once(' ').with_context(|| format!("{text:?} is not PROTOCOL ADDRESS:PORT"))
}

pub(crate) fn output_of(command: &mut std::process::Command) -> String {
    skep_tests::output(command)
        .map(|done| String::from_utf8_lossy(&done.stdout).into_owned())
        .unwrap_or_default()
}

fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (into, change) => *into = change.clone(),
    }
}
