//! Where it is measured: nodes, pods, services.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context, Result};
use skep_ebpf_abi::{
    Addr, TCP,
    service::{Backend, Frontend, FrontendKey, Set, SlotKey, backend, frontend},
};
use skep_ebpf_loader::tables::Change;
use skep_tests::{NetBox, cgroup::CgroupTree, netbox::command_in};

use crate::rules::{self, Service};
use crate::stage::node::{TestNode, vip};
use crate::stage::server::{PORTS, ServerProcess, WIRE_PORTS};

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
        program(&node, services)?;
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
        rules::load(flavour, &node.netbox, &self::services(&node, services))
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

/// The services. The first two are dialled; all have the same shape.
fn services(node: &TestNode, count: usize) -> Vec<Service> {
    let server = node.pods[1].ips[0];
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
fn program(node: &TestNode, count: usize) -> Result<()> {
    let maps = node.data_plane.as_ref().context("no data plane")?.services();
    for (number, service) in (1_u32..).zip(services(node, count)) {
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
