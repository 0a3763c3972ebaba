//! Where it is measured: a bare veth pair, and a node for each way of serving, each with its agent and API server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use skep_service_proxy::ProxyMode;
use skep_tests::{NetBox, cgroup::CgroupTree, netbox::command_in};

use crate::agent::{Agent, Usage};
use crate::api::{Api, MOVING, MOVING_PORTS};
use crate::probe::{Probe, now};
use crate::stage::node::{TestNode, vip};
use crate::stage::server::{PORTS, ServerProcess};

/// The floor of everything.
pub(crate) const BARE: &str = "bare veth";
/// The floor of programs.
pub(crate) const DIRECT: &str = "pod to pod, Skep";
/// The floor of rules.
pub(crate) const ROUTED: &str = "pod to pod, routed";
/// What it is all for.
pub(crate) const SOCKET: &str = "ClusterIP, Skep";

/// One way from a client to a server.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) target: SocketAddr,
    /// What it is compared with besides the bare pair.
    pub(crate) floor: &'static str,
    client: PathBuf,
    cgroup: Option<Arc<CgroupTree>>,
}

impl Row {
    /// The load tool in the client's place.
    pub(crate) fn client(&self) -> Command {
        command_in(&self.client, self.cgroup.as_deref(), env!("CARGO_BIN_EXE_netload"))
    }
}

/// What bringing all services in took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Programming {
    /// Seconds until the programs were loaded (none for rules).
    pub(crate) load: f64,
    /// Seconds from nothing, the lists of all objects included.
    pub(crate) cold: f64,
    /// Processor seconds of that: of the agent, and of its tools.
    pub(crate) own: f64,
    pub(crate) tools: f64,
    /// Seconds of a restart, with everything in the kernel.
    pub(crate) warm: f64,
    /// MiB: afterwards, and at most.
    pub(crate) resident: f64,
    pub(crate) peak: f64,
}

/// What one change of an endpoint took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Updates {
    /// Milliseconds from the event's sending to the first answer of the new endpoint.
    pub(crate) effect: Vec<f64>,
    /// Milliseconds of the agent's processor time for one endpoint more or less, and of its tools.
    pub(crate) own: f64,
    pub(crate) tools: f64,
}

/// A node whose services are kept by an agent.
pub(crate) struct Served {
    pub(crate) mode: ProxyMode,
    pub(crate) programming: Programming,
    // In the order of dropping.
    agent: Agent,
    _answers: [Answers; 2],
    _server: ServerProcess,
    node: TestNode,
    api: Api,
    endpoints: usize,
}

/// Everything that must live while measuring. It vanishes when dropped.
pub(crate) struct Ground {
    rows: Vec<Row>,
    pub(crate) served: Vec<Served>,
    _servers: Vec<ServerProcess>,
    _nodes: Vec<TestNode>,
    _bare: (NetBox, NetBox),
    _runtime: tokio::runtime::Runtime,
}

impl Ground {
    pub(crate) fn prepare(services: usize, endpoints: usize, modes: &[ProxyMode]) -> Result<Self> {
        let bare = (NetBox::new("bare-a")?, NetBox::new("bare-b")?);
        bare.0.ip(&format!("link add eth0 type veth peer name eth0 netns {}", bare.1.name()))?;
        for (netbox, address) in [(&bare.0, "10.1.0.1/24"), (&bare.1, "10.1.0.2/24")] {
            netbox.ip(&format!("address add {address} dev eth0"))?;
            netbox.ip("link set eth0 up")?;
        }
        let server = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2));
        let mut servers = vec![ServerProcess::start(&bare.1.netns_path(), None, server)?];
        let mut rows = vec![Row {
            name: BARE,
            target: SocketAddr::new(server, PORTS[0]),
            floor: BARE,
            client: bare.0.netns_path(),
            cgroup: None,
        }];
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let mut nodes = Vec::new();
        if modes.iter().any(|mode| mode.is_rules()) {
            let node = TestNode::new("routed")?;
            servers.push(ServerProcess::start(&node.pods[1].netns, None, node.pods[1].ips[0])?);
            rows.push(row(ROUTED, &node, None, SocketAddr::new(node.pods[1].ips[0], PORTS[0]), ROUTED));
            nodes.push(node);
        }
        let mut served = Vec::new();
        for &mode in modes {
            eprintln!("{services} services by {mode}");
            let one = Served::start(mode, services, endpoints, &runtime)
                .with_context(|| format!("bring {services} services in by {mode}"))?;
            rows.extend(one.rows());
            served.push(one);
        }
        Ok(Self { rows, served, _servers: servers, _nodes: nodes, _bare: bare, _runtime: runtime })
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }
}

fn row(
    name: &'static str,
    node: &TestNode,
    cgroup: Option<Arc<CgroupTree>>,
    target: SocketAddr,
    floor: &'static str,
) -> Row {
    Row { name, target, floor, client: node.pods[0].netns.clone(), cgroup }
}

impl Served {
    fn start(
        mode: ProxyMode,
        services: usize,
        endpoints: usize,
        runtime: &tokio::runtime::Runtime,
    ) -> Result<Self> {
        let node =
            if mode.is_rules() { TestNode::new(mode.name())? } else { TestNode::with_data_plane("skep")? };
        let (pod, ip) = (&node.pods[1], node.pods[1].ips[0]);
        let cgroup = (!mode.is_rules()).then_some(&*node.cgroup);
        let server = ServerProcess::start(&pod.netns, cgroup, ip)?;
        let [first, second] = MOVING_PORTS;
        let answers = [
            Answers::start(&pod.netns, cgroup, "first", ip, first)?,
            Answers::start(&pod.netns, cgroup, "second", ip, second)?,
        ];
        let api = Api::new(services, endpoints, ip);
        let listener = node.netbox.run(|| std::net::TcpListener::bind("127.0.0.1:0"))??;
        let address = listener.local_addr()?;
        runtime.spawn(api.clone().serve(listener));

        let mut agent = Agent::start(&node, mode, address)?;
        let (load, cold) = agent.settled()?;
        let Usage { own, tools } = agent.usage()?;
        let (resident, peak) = agent.memory()?;
        agent.stop()?;
        let mut agent = Agent::start(&node, mode, address)?;
        let (_, warm) = agent.settled()?;
        let (own, tools) = (own.as_secs_f64(), tools.as_secs_f64());
        let programming = Programming { load, cold, own, tools, warm, resident, peak };
        eprintln!("{mode}: {programming:.2?}");
        Ok(Self { mode, programming, agent, _answers: answers, _server: server, node, api, endpoints })
    }

    fn rows(&self) -> Vec<Row> {
        match self.mode {
            ProxyMode::Ebpf => {
                let cgroup = Some(Arc::clone(&self.node.cgroup));
                let direct = SocketAddr::new(self.node.pods[1].ips[0], PORTS[0]);
                vec![
                    row(DIRECT, &self.node, cgroup.clone(), direct, DIRECT),
                    row(SOCKET, &self.node, cgroup, vip(0), DIRECT),
                    // A process outside the cgroup dials on the wire, as a pod that opted out does.
                    row("ClusterIP, Skep per packet", &self.node, None, vip(1), DIRECT),
                ]
            }
            ProxyMode::Nftables => vec![row("ClusterIP, nftables", &self.node, None, vip(0), ROUTED)],
            ProxyMode::Iptables => vec![row("ClusterIP, iptables", &self.node, None, vip(0), ROUTED)],
        }
    }

    /// Changes endpoints, one by one.
    pub(crate) fn updates(&self, count: usize) -> Result<Updates> {
        let cgroup = (!self.mode.is_rules()).then_some(&*self.node.cgroup);
        let mut probe = Probe::start(&self.node.pods[0].netns, cgroup, vip(MOVING.1))?;
        probe.ask_for("first")?;
        probe.answered()?;
        let mut effect = Vec::new();
        for number in 0..count {
            let which = 1 - number % 2;
            // A flow of before may still be there, by whose port the endpoint of before would answer.
            std::thread::sleep(Duration::from_millis(250));
            probe.ask_for(["first", "second"][which])?;
            std::thread::sleep(Duration::from_millis(20));
            let before = now()?;
            self.api.move_to(which);
            #[allow(clippy::cast_precision_loss)]
            effect.push((probe.answered()?.saturating_sub(before)) as f64 / 1e6);
        }
        drop(probe);
        let before = self.agent.usage()?;
        let started = Instant::now();
        for number in 0..count {
            // Far apart, so that each is one change; about one in the middle of all services.
            self.api.resize(4, self.endpoints, self.endpoints - (number + 1) % 2);
            std::thread::sleep(Duration::from_millis(if self.mode.is_rules() { 150 } else { 20 }));
        }
        // Rules may take longer than the pauses.
        std::thread::sleep((started.elapsed() / 10).max(Duration::from_millis(500)));
        let after = self.agent.usage()?;
        #[allow(clippy::cast_precision_loss)]
        let each = |time: Duration| time.as_secs_f64() * 1000.0 / count as f64;
        Ok(Updates { effect, own: each(after.own - before.own), tools: each(after.tools - before.tools) })
    }
}

/// A server that answers with its name; ends with this value.
struct Answers(Child);

impl Answers {
    fn start(netns: &Path, cgroup: Option<&CgroupTree>, name: &str, ip: IpAddr, port: u16) -> Result<Self> {
        let mut command = command_in(netns, cgroup, env!("CARGO_BIN_EXE_netprobe"));
        command.args(["serve", name, &port.to_string(), "--at", &ip.to_string()]);
        Ok(Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?))
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        if let Err(error) = self.0.wait() {
            eprintln!("a server does not end: {error}");
        }
    }
}
