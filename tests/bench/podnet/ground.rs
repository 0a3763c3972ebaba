//! Where it is measured: pairs of boxes and nodes, and the ways between their pods.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::Result;
use skep_network::PodRouting;
use skep_tests::{NetBox, cgroup::CgroupTree, netbox::command_in};

use crate::bridge::BridgePair;
use crate::server::{PORTS, ServerProcess};
use crate::skep::SkepPair;

const VETH: &str = "bare veth";
const VXLAN: &str = "bare VXLAN";

/// One way from a client to a server.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// What could not be less.
    pub(crate) floor: &'static str,
    /// The same way by a bridge and iptables.
    pub(crate) classic: Option<&'static str>,
    /// The same way without policy.
    pub(crate) open: Option<&'static str>,
    pub(crate) target: SocketAddr,
    client: PathBuf,
    cgroup: Option<Arc<CgroupTree>>,
}

impl Row {
    /// The load tool in the client's place.
    pub(crate) fn client(&self) -> Command {
        command_in(&self.client, self.cgroup.as_deref(), env!("CARGO_BIN_EXE_netload"))
    }
}

/// The names of the ways by Skep (open, policed) and by a bridge.
type Names = [&'static str; 3];
const SAME: Names = ["same node, Skep", "same node, Skep, policy", "same node, bridge + iptables"];
const NATIVE: Names = ["native, Skep", "native, Skep, policy", "native, bridge + iptables"];
const TUNNEL: Names = ["VXLAN, Skep", "VXLAN, Skep, policy", "VXLAN, bridge + iptables"];

/// Everything that must live while measuring. It vanishes when dropped.
pub(crate) struct Ground {
    rows: Vec<Row>,
    // In the order of dropping: processes, then nodes, then the rest.
    servers: Vec<ServerProcess>,
    skep: Vec<SkepPair>,
    bridges: Vec<BridgePair>,
    bare: Vec<(NetBox, NetBox)>,
}

/// Two boxes and the wire between them: `wire` in both, with 192.168.77.1 and .2.
pub(crate) fn wired(label: &str) -> Result<(NetBox, NetBox)> {
    let pair = (NetBox::new(&format!("{label}-a"))?, NetBox::new(&format!("{label}-b"))?);
    pair.0.ip(&format!("link add wire type veth peer name wire netns {}", pair.1.name()))?;
    for (netbox, last) in [(&pair.0, 1), (&pair.1, 2)] {
        netbox.ip(&format!("address add 192.168.77.{last}/24 dev wire"))?;
        netbox.ip("link set wire up")?;
    }
    Ok(pair)
}

impl Ground {
    pub(crate) fn prepare() -> Result<Self> {
        let (rows, servers, skep) = (Vec::new(), Vec::new(), Vec::new());
        let mut ground = Self { rows, servers, skep, bridges: Vec::new(), bare: Vec::new() };
        ground.bare_ways()?;
        for (routing, tunnel) in [(PodRouting::Native, false), (PodRouting::Vxlan, true)] {
            ground.skep_ways(routing, tunnel)?;
            ground.bridge_ways(tunnel)?;
        }
        Ok(ground)
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    fn bare_ways(&mut self) -> Result<()> {
        for (name, tunnel) in [(VETH, false), (VXLAN, true)] {
            let pair = wired(if tunnel { "bare-vxlan" } else { "bare" })?;
            if tunnel {
                for (netbox, own, other) in [(&pair.0, 1, 2), (&pair.1, 2, 1)] {
                    netbox.ip(&format!(
                        "link add tunnel type vxlan id 1 dstport 8472 nolearning local 192.168.77.{own} remote 192.168.77.{other} dev wire"
                    ))?;
                    netbox.ip(&format!("address add 10.9.0.{own}/24 dev tunnel"))?;
                    netbox.ip("link set tunnel up")?;
                }
            }
            let server: IpAddr = if tunnel { "10.9.0.2" } else { "192.168.77.2" }.parse()?;
            let (client, far) = (pair.0.netns_path(), pair.1.netns_path());
            self.serve(&far, None, server)?;
            self.row((name, name), &client, None, server);
            self.bare.push(pair);
        }
        Ok(())
    }

    fn skep_ways(&mut self, routing: PodRouting, tunnel: bool) -> Result<()> {
        let pair = SkepPair::new(routing)?;
        let (near, far) = (&pair.nodes[0], &pair.nodes[1]);
        for (place, policed) in [(0, false), (1, true)] {
            let client = near.clients[place].netns.clone();
            let cgroup = Some(Arc::clone(&near.cgroup));
            let mut ways = vec![(far, if tunnel { TUNNEL } else { NATIVE })];
            if !tunnel {
                ways.insert(0, (near, SAME));
            }
            for (node, names) in ways {
                let server = &node.servers[place];
                self.serve(&server.netns, Some(&node.cgroup), server.ips[0])?;
                let floor = if tunnel { VXLAN } else { VETH };
                self.row((names[place], floor), &client, cgroup.clone(), server.ips[0]);
                if let Some(row) = self.rows.last_mut() {
                    row.classic = Some(names[2]);
                    row.open = policed.then_some(names[0]);
                }
            }
        }
        self.skep.push(pair);
        Ok(())
    }

    fn bridge_ways(&mut self, tunnel: bool) -> Result<()> {
        let pair = BridgePair::new(tunnel)?;
        let client = pair.nodes[0].pods[0].0.netns_path();
        let mut ways = vec![(&pair.nodes[1].pods[1], if tunnel { TUNNEL } else { NATIVE })];
        if !tunnel {
            ways.insert(0, (&pair.nodes[0].pods[1], SAME));
        }
        for ((server, ip), names) in ways {
            self.serve(&server.netns_path(), None, *ip)?;
            self.row((names[2], if tunnel { VXLAN } else { VETH }), &client, None, *ip);
        }
        self.bridges.push(pair);
        Ok(())
    }

    fn row(
        &mut self,
        (name, floor): (&'static str, &'static str),
        client: &Path,
        cgroup: Option<Arc<CgroupTree>>,
        server: IpAddr,
    ) {
        let (client, target) = (client.to_owned(), SocketAddr::new(server, PORTS[0]));
        self.rows.push(Row { name, floor, classic: None, open: None, target, client, cgroup });
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
        self.skep.clear();
        self.bridges.clear();
        self.bare.clear();
    }
}
