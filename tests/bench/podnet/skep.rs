//! Two nodes with Skep's pod network; of their pods some have network policies.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use ipnet::IpNet;
use skep_ebpf_abi::{
    Addr, TCP, UDP,
    policy::{Policed, RuleKey, direction, isolated, peer},
};
use skep_ebpf_loader::{
    DataPlane, LoadOptions,
    policy::{PolicyChange, PolicyMaps, RuleEntry},
};
use skep_network::{NetworkConfig, Peer, PodAttachment, PodDataPath, PodNetwork, PodRequest, PodRouting};
use skep_tests::{NetBox, cgroup::CgroupTree};

use crate::ground::wired;

/// A node with its pods: those at the first place have no policy, those at the second have.
pub(crate) struct SkepNode {
    pub(crate) clients: [PodAttachment; 2],
    pub(crate) servers: [PodAttachment; 2],
    pub(crate) cgroup: Arc<CgroupTree>,
    plane: Arc<DataPlane>,
    config: NetworkConfig,
    pins: PathBuf,
    netbox: NetBox,
}

/// Two of them.
pub(crate) struct SkepPair {
    pub(crate) nodes: Vec<SkepNode>,
}

fn range(number: u8) -> Result<IpNet> {
    Ok(format!("10.244.{number}.0/24").parse()?)
}

impl SkepPair {
    pub(crate) fn new(routing: PodRouting) -> Result<Self> {
        let (one, two) = wired(&format!("skep-{routing}"))?;
        let nodes = vec![SkepNode::new(one, (1, 2), routing)?, SkepNode::new(two, (2, 1), routing)?];
        // Both know who the policed pods of both are.
        let policed: Vec<Addr> = nodes
            .iter()
            .flat_map(|node| [&node.clients[1], &node.servers[1]])
            .flat_map(|pod| pod.ips.iter().map(|ip| Addr::from(*ip)))
            .collect();
        nodes.iter().try_for_each(|node| node.police(&policed))?;
        Ok(Self { nodes })
    }
}

impl SkepNode {
    fn new(netbox: NetBox, (own, other): (u8, u8), routing: PodRouting) -> Result<Self> {
        let dir = netbox.dir()?;
        let cgroup = Arc::new(CgroupTree::create(netbox.name())?);
        let pins = Path::new("/sys/fs/bpf").join(netbox.name());
        let options = LoadOptions {
            pin_dir: pins.clone(),
            cgroup: Some(cgroup.unified().context("no cgroup v2 hierarchy")?.to_owned()),
            ..LoadOptions::default()
        };
        let mut config = NetworkConfig {
            run_dir: dir.join("run"),
            state_dir: dir.join("state"),
            pod_cidrs: vec![range(own)?],
            cluster_cidrs: vec!["10.244.0.0/16".parse()?],
            service_cidrs: vec!["10.96.0.0/12".parse()?],
            node_ips: vec![format!("192.168.77.{own}").parse()?],
            routing,
            ..NetworkConfig::default()
        };
        let peer =
            Peer { pod_cidrs: vec![range(other)?], node_ips: vec![format!("192.168.77.{other}").parse()?] };
        // Everything about interfaces happens inside the node's namespace, attaching programs too.
        let (plane, config, clients, servers) = netbox.run_async(|| async {
            let plane = Arc::new(DataPlane::load(options).context("load the data plane")?);
            plane.set_node_addresses(&config.node_ips)?;
            let networks: Vec<_> =
                config.cluster_cidrs.iter().map(|net| (net.network(), net.prefix_len())).collect();
            plane.set_masquerade(&networks)?;
            config.data_plane = Some(Arc::clone(&plane) as Arc<dyn PodDataPath>);
            let network = PodNetwork::new(config.clone()).await?;
            network.set_peers(vec![peer]).await?;
            let pod = |uid: &str| PodRequest { uid: uid.into(), namespace: "bench".into(), name: uid.into() };
            let clients =
                [network.setup(&pod("client")).await?, network.setup(&pod("policed-client")).await?];
            let servers =
                [network.setup(&pod("server")).await?, network.setup(&pod("policed-server")).await?];
            anyhow::Ok((plane, config, clients, servers))
        })??;
        Ok(Self { clients, servers, cgroup, plane, config, pins, netbox })
    }

    /// Isolates the pods at the second place both ways, and lets them speak to each other.
    fn police(&self, everyone: &[Addr]) -> Result<()> {
        let who = peer::FIRST_POD;
        let rule = |direction, protocol| {
            let key = RuleKey { table: 1, peer: who, direction, protocol, port_be: 0 };
            (RuleEntry { bits: RuleKey::ANY_PORT, key }, 1)
        };
        let rules = [direction::INGRESS, direction::EGRESS].map(|way| [rule(way, TCP), rule(way, UDP)]);
        let pods = [&self.clients[1], &self.servers[1]];
        let policed =
            Policed { table: 1, epoch: 1, isolated: isolated::INGRESS | isolated::EGRESS, ifindex: 0 };
        let own = pods.iter().flat_map(|pod| &pod.ips).map(|ip| (Addr::from(*ip), policed));
        let changes = [
            PolicyChange::PutRules(rules.concat()),
            PolicyChange::PutIdentities(everyone.iter().map(|addr| (*addr, who)).collect()),
            PolicyChange::Police(own.collect()),
        ];
        self.netbox.run(|| changes.iter().try_for_each(|change| self.plane.apply(change)))??;
        Ok(())
    }
}

impl Drop for SkepNode {
    fn drop(&mut self) {
        let purged = self.netbox.run_async(|| async {
            PodNetwork::purge(&self.config.run_dir, &self.config.state_dir).await?;
            DataPlane::purge(&self.pins)?;
            anyhow::Ok(())
        });
        if let Err(error) = purged.and_then(std::convert::identity) {
            eprintln!("node {} leaves something behind: {error:#}", self.netbox.name());
        }
    }
}
