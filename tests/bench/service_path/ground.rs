//! Where it is measured: nodes, pods, services.

use std::{
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use anyhow::{Context, Result};
use skep_ebpf_abi::{
    Addr, TCP,
    service::{Backend, Frontend, FrontendKey, Set, SlotKey, backend, frontend},
};
use skep_ebpf_loader::{DataPlane, LoadOptions, tables::Change};
use skep_network::{NetworkConfig, PodAttachment, PodDataPath, PodNetwork, PodRequest};
use skep_tests::{NetBox, cgroup::CgroupTree, netbox::command_in};

use crate::rules::{self, Service};

/// The ports of the server, each an endpoint of the service.
const PORTS: [u16; 3] = [5001, 5002, 5003];
/// The endpoints of the service that is dialled on the wire. Not the same: the kernel chooses TCP timestamps by
/// the address that is dialled, so connections that ended on one way would hold up those on another.
const WIRE_PORTS: [u16; 3] = [5011, 5012, 5013];
const VIP_PORT: u16 = 80;

/// One way from a client to the server.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) target: SocketAddr,
    client: PathBuf,
    /// The files that put a process into the node's cgroups; none: outside of them.
    cgroup: Option<Arc<CgroupTree>>,
}

impl Row {
    /// The load tool in the client's place.
    pub(crate) fn client(&self) -> Command {
        command_in(&self.client, self.cgroup.as_deref(), env!("CARGO_BIN_EXE_netload"))
    }
}

/// Everything that must live while measuring. It vanishes when dropped.
pub(crate) struct Ground {
    rows: Vec<Row>,
    // In the order of dropping: processes, then nodes, then the rest.
    servers: Vec<ServerProcess>,
    nodes: Vec<TestNode>,
    _bare: (NetBox, NetBox),
}

impl Ground {
    pub(crate) fn prepare(services: usize, with_rules: bool) -> Result<Self> {
        let bare = (NetBox::new("bare-a")?, NetBox::new("bare-b")?);
        bare.0.ip(&format!("link add eth0 type veth peer name eth0 netns {}", bare.1.name()))?;
        for (netbox, address) in [(&bare.0, "10.1.0.1/24"), (&bare.1, "10.1.0.2/24")] {
            netbox.ip(&format!("address add {address} dev eth0"))?;
            netbox.ip("link set eth0 up")?;
        }
        let mut ground = Self { rows: Vec::new(), servers: Vec::new(), nodes: Vec::new(), _bare: bare };
        let server = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 2));
        let (client, far) = (ground._bare.0.netns_path(), ground._bare.1.netns_path());
        ground.serve(&far, None, server)?;
        ground.row("bare veth", &client, None, SocketAddr::new(server, PORTS[0]));
        ground.skep(services)?;
        if with_rules {
            ground.routed()?;
            for flavour in rules::FLAVOURS {
                ground.rules(flavour, services)?;
            }
        }
        Ok(ground)
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Skep: direct, through the socket, and packet by packet.
    fn skep(&mut self, services: usize) -> Result<()> {
        let node = TestNode::with_data_plane("skep")?;
        let (client, server) = (&node.pods[0], &node.pods[1]);
        node.program(services)?;
        let cgroup = Some(Arc::clone(&node.cgroup));
        let direct = SocketAddr::new(server.ips[0], PORTS[0]);
        self.serve(&server.netns, cgroup.as_deref(), server.ips[0])?;
        self.row("pod to pod, Skep", &client.netns, cgroup.clone(), direct);
        self.row("pod to ClusterIP, Skep", &client.netns, cgroup, vip(0));
        // A process outside the cgroup dials the ClusterIP on the wire, as a pod that opted out does.
        self.row("pod to ClusterIP, Skep per packet", &client.netns, None, vip(1));
        self.nodes.push(node);
        Ok(())
    }

    /// The kernel's routing, without programs or rules.
    fn routed(&mut self) -> Result<()> {
        let node = TestNode::new("routed")?;
        let (client, server) = (&node.pods[0], &node.pods[1]);
        self.serve(&server.netns, None, server.ips[0])?;
        let direct = SocketAddr::new(server.ips[0], PORTS[0]);
        self.row("pod to pod, routed", &client.netns, None, direct);
        self.nodes.push(node);
        Ok(())
    }

    fn rules(&mut self, flavour: &rules::Flavour, services: usize) -> Result<()> {
        let node = TestNode::new(flavour.label)?;
        let (client, server) = (&node.pods[0], &node.pods[1]);
        rules::load(flavour, &node.netbox, &node.services(services))
            .with_context(|| format!("load the rules of {}", flavour.label))?;
        self.serve(&server.netns, None, server.ips[0])?;
        self.row(flavour.row, &client.netns, None, vip(0));
        self.nodes.push(node);
        Ok(())
    }

    fn row(
        &mut self,
        name: &'static str,
        client: &Path,
        cgroup: Option<Arc<CgroupTree>>,
        target: SocketAddr,
    ) {
        self.rows.push(Row { name, target, client: client.to_owned(), cgroup });
    }

    fn serve(&mut self, netns: &Path, cgroup: Option<&CgroupTree>, ip: IpAddr) -> Result<()> {
        self.servers.push(ServerProcess::start(netns, cgroup, ip)?);
        Ok(())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.rows.clear();
        self.servers.clear();
        self.nodes.clear();
    }
}

/// The ClusterIP of a service.
fn vip(number: usize) -> SocketAddr {
    let host = u32::try_from(number).expect("few services") + 10;
    SocketAddr::new(IpAddr::V4((u32::from(Ipv4Addr::new(10, 96, 0, 0)) + host).into()), VIP_PORT)
}

/// The load tool answering; it ends with this value.
struct ServerProcess(Child);

impl ServerProcess {
    fn start(netns: &Path, cgroup: Option<&CgroupTree>, ip: IpAddr) -> Result<Self> {
        let mut command = command_in(netns, cgroup, env!("CARGO_BIN_EXE_netload"));
        command.args(["server", "--cpu", "1"]);
        for port in PORTS.into_iter().chain(WIRE_PORTS) {
            command.args(["--listen", &SocketAddr::new(ip, port).to_string()]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("the server's output")?).lines();
        let made = Self(child);
        for port in PORTS.into_iter().chain(WIRE_PORTS) {
            lines.next().with_context(|| format!("the server does not answer on {port}"))??;
        }
        Ok(made)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Its input closes, so it ends by itself.
        drop(self.0.stdin.take());
        if let Err(error) = self.0.wait() {
            eprintln!("a server does not end: {error}");
        }
    }
}

/// A node with a client pod and a server pod.
struct TestNode {
    pods: [PodAttachment; 2],
    data_plane: Option<Arc<DataPlane>>,
    config: NetworkConfig,
    cgroup: Arc<CgroupTree>,
    netbox: NetBox,
    pins: PathBuf,
}

impl TestNode {
    fn new(label: &str) -> Result<Self> {
        Self::make(label, |_, _| Ok(None))
    }

    fn with_data_plane(label: &str) -> Result<Self> {
        Self::make(label, |cgroup, pins| {
            let options = LoadOptions {
                pin_dir: pins.to_owned(),
                cgroup: Some(cgroup.unified().context("no cgroup v2 hierarchy")?.to_owned()),
                ..LoadOptions::default()
            };
            Ok(Some(Arc::new(DataPlane::load(options).context("load the data plane")?)))
        })
    }

    fn make(
        label: &str,
        load: impl FnOnce(&CgroupTree, &Path) -> Result<Option<Arc<DataPlane>>> + Send,
    ) -> Result<Self> {
        let netbox = NetBox::new(label)?;
        let dir = netbox.dir()?;
        let cgroup = Arc::new(CgroupTree::create(netbox.name())?);
        let pins = Path::new("/sys/fs/bpf").join(netbox.name());
        netbox.ip("address add 192.168.77.1/32 dev lo")?;
        // Everything about interfaces happens inside the node's namespace, attaching programs too.
        let (data_plane, config, pods) = netbox.run_async(|| async {
            let data_plane = load(&cgroup, &pins)?;
            let config = NetworkConfig {
                run_dir: dir.join("run"),
                state_dir: dir.join("state"),
                pod_cidrs: vec!["10.244.1.0/24".parse()?],
                service_cidrs: vec!["10.96.0.0/12".parse()?],
                node_ips: vec!["192.168.77.1".parse()?],
                data_plane: data_plane.clone().map(|plane| plane as Arc<dyn PodDataPath>),
                ..NetworkConfig::default()
            };
            let network = PodNetwork::new(config.clone()).await?;
            let pod = |uid: &str| PodRequest { uid: uid.into(), namespace: "bench".into(), name: uid.into() };
            let pods = [network.setup(&pod("client")).await?, network.setup(&pod("server")).await?];
            anyhow::Ok((data_plane, config, pods))
        })??;
        Ok(Self { pods, data_plane, config, cgroup, netbox, pins })
    }

    /// The services. The first two are dialled; all have the same shape.
    fn services(&self, count: usize) -> Vec<Service> {
        let server = self.pods[1].ips[0];
        (0..count)
            .map(|number| Service {
                vip: vip(number),
                backends: if number == 1 { WIRE_PORTS } else { PORTS }
                    .map(|port| SocketAddr::new(server, port))
                    .into(),
            })
            .collect()
    }

    /// Writes the services into the maps, in the order that the service proxy keeps.
    fn program(&self, count: usize) -> Result<()> {
        let maps = self.data_plane.as_ref().context("no data plane")?.services();
        for (number, service) in (1_u32..).zip(self.services(count)) {
            let mut changes = Vec::new();
            for (slot, target) in (1_u32..).zip(&service.backends) {
                let id = number * 16 + slot;
                let (addr, port_be) = (Addr::from(target.ip()), target.port().to_be());
                changes.push(Change::PutBackend(
                    id,
                    Backend { addr, port_be, protocol: TCP, state: backend::ACTIVE },
                ));
                changes.push(Change::PutSlot(SlotKey { set: number, slot }, id));
            }
            let slots = u32::try_from(service.backends.len())?;
            changes.push(Change::PutSet(number, Set { count: slots, ..Set::default() }));
            let key = FrontendKey::new(service.vip.ip().into(), service.vip.port().to_be(), TCP);
            let value = Frontend { external_set: number, internal_set: number, flags: frontend::CLUSTER_IP };
            changes.push(Change::PutFrontend(key, value));
            changes.iter().try_for_each(|change| maps.apply(change))?;
        }
        Ok(())
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        let purged = self.netbox.run_async(|| async {
            PodNetwork::purge(&self.config.run_dir, &self.config.state_dir).await?;
            if self.data_plane.is_some() {
                DataPlane::purge(&self.pins)?;
            }
            anyhow::Ok(())
        });
        if let Err(error) = purged.and_then(std::convert::identity) {
            eprintln!("node {} leaves something behind: {error:#}", self.netbox.name());
        }
    }
}
