//! What the agent tells the pod network, and what it gets back.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;

use crate::{Error, PodDataPath, Result};

/// The smallest MTU that IPv6 may have.
const MIN_MTU: u32 = 1280;

/// The port of the tunnel: what Linux has for VXLAN by custom, and other pod networks too.
pub const TUNNEL_PORT: u16 = 8472;

/// How pods of other nodes are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodRouting {
    /// Nodes on a segment of ours by routes, others through the tunnel.
    #[default]
    Auto,
    /// By routes through the nodes' addresses only. A node that is on no segment of ours must be known to routers.
    Native,
    /// Through the tunnel only.
    Vxlan,
}

impl PodRouting {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Native, Self::Vxlan];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Vxlan => "vxlan",
        }
    }
}

impl std::fmt::Display for PodRouting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for PodRouting {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let found = Self::ALL.into_iter().find(|routing| routing.name() == text);
        found.ok_or_else(|| format!("{text:?} is no way to other nodes' pods: want auto, native or vxlan"))
    }
}

/// How the pod network of one node is set up.
#[derive(Clone, Default)]
pub struct NetworkConfig {
    /// Pod namespaces are pinned at `run_dir/netns/<uid>`.
    pub run_dir: PathBuf,
    /// Address records and touched sysctls are kept in `state_dir/network`.
    pub state_dir: PathBuf,
    /// This node's pod ranges, at most one of each family. A pod gets one address of each.
    pub pod_cidrs: Vec<IpNet>,
    /// Service ranges: what of them is not translated is unreachable rather than sent to the gateway.
    pub service_cidrs: Vec<IpNet>,
    /// Services are translated by rules in the host's stack: the node's own processes need a route to service
    /// addresses for their packets to get there. See [`crate::PodNetwork::set_services_by_stack`].
    pub services_by_stack: bool,
    /// The cluster's pod ranges, unreachable where no route to a node or pod is more specific.
    pub cluster_cidrs: Vec<IpNet>,
    /// This node's addresses: the source of what the host sends to its pods, and the guide to the uplink.
    pub node_ips: Vec<IpAddr>,
    /// The pods' MTU. If not given, the uplink's, less what the tunnel needs where pods may be behind it.
    pub mtu: Option<u32>,
    /// How pods of other nodes are reached.
    pub routing: PodRouting,
    /// The UDP port of the tunnel, the same on every node; 0 is [`TUNNEL_PORT`].
    pub tunnel_port: u16,
    /// The eBPF data path, if there is one.
    pub data_plane: Option<Arc<dyn PodDataPath>>,
}

impl NetworkConfig {
    /// Refuses what cannot work, before anything is touched.
    ///
    /// # Errors
    /// Names the first thing that is wrong.
    pub fn validate(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Config(message));
        if self.pod_cidrs.is_empty() {
            return fail("no pod range".into());
        }
        for family in [4, 6] {
            if self.pod_cidrs.iter().filter(|cidr| family_of(cidr) == family).count() > 1 {
                return fail(format!("more than one IPv{family} pod range"));
            }
        }
        for cidr in self.pod_cidrs.iter().chain(&self.service_cidrs).chain(&self.cluster_cidrs) {
            if cidr.trunc() != *cidr {
                return fail(format!("{cidr} has host bits set"));
            }
        }
        for cidr in &self.pod_cidrs {
            if cidr.max_prefix_len() - cidr.prefix_len() < 3 {
                return fail(format!("pod range {cidr} is too small"));
            }
            if let Some(service) = self.service_cidrs.iter().find(|service| overlap(cidr, service)) {
                return fail(format!("pod range {cidr} and service range {service} overlap"));
            }
            if let Some(ip) = self.node_ips.iter().find(|ip| cidr.contains(*ip)) {
                return fail(format!("node address {ip} lies in pod range {cidr}"));
            }
        }
        match self.mtu {
            Some(mtu) if mtu < MIN_MTU => fail(format!("MTU {mtu} is below {MIN_MTU}")),
            Some(mtu) if mtu > 65_535 => fail(format!("MTU {mtu} is above 65535")),
            Some(_) | None => Ok(()),
        }
    }

    /// The folder of pinned pod namespaces.
    #[must_use]
    pub fn netns_dir(&self) -> PathBuf {
        netns_dir(&self.run_dir)
    }

    pub(crate) fn tunnel_port(&self) -> u16 {
        if self.tunnel_port == 0 { TUNNEL_PORT } else { self.tunnel_port }
    }

    pub(crate) fn has_ipv6(&self) -> bool {
        self.pod_cidrs.iter().any(|cidr| family_of(cidr) == 6)
    }
}

pub(crate) fn netns_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("netns")
}

pub(crate) fn network_state_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("network")
}

fn family_of(net: &IpNet) -> u8 {
    match net {
        IpNet::V4(_) => 4,
        IpNet::V6(_) => 6,
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// A pod that wants a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRequest {
    /// The pod's uid (for a static pod its hash).
    pub uid: String,
    /// Its namespace, for logs and the interface's alias.
    pub namespace: String,
    /// Its name, for logs and the interface's alias.
    pub name: String,
}

/// A pod's network as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodAttachment {
    /// One address of each family of the node's ranges, in their order.
    pub ips: Vec<IpAddr>,
    /// Where the pod's network namespace is pinned.
    pub netns: PathBuf,
    /// The name of the host's end of the pod's veth pair.
    pub host_interface: String,
}

/// Another node with pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// The other node's pod ranges.
    pub pod_cidrs: Vec<IpNet>,
    /// The other node's addresses; one of a range's family is its gateway.
    pub node_ips: Vec<IpAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pods: &[&str], services: &[&str]) -> NetworkConfig {
        let parse = |list: &[&str]| list.iter().map(|net| net.parse().expect("a range")).collect();
        NetworkConfig { pod_cidrs: parse(pods), service_cidrs: parse(services), ..NetworkConfig::default() }
    }

    #[test]
    fn ranges_that_cannot_work_are_refused() {
        let cases: &[(&[&str], &[&str], Option<&str>)] = &[
            (&["10.244.0.0/24"], &["10.96.0.0/16"], None),
            (&["10.244.0.0/24", "fd00:10:244::/64"], &["10.96.0.0/16"], None),
            (&[], &[], Some("no pod range")),
            (&["10.244.0.0/24", "10.245.0.0/24"], &[], Some("more than one IPv4")),
            (&["10.244.0.1/24"], &[], Some("host bits")),
            (&["10.244.0.0/30"], &[], Some("too small")),
            (&["10.96.3.0/24"], &["10.96.0.0/16"], Some("overlap")),
        ];
        for (pods, services, want) in cases {
            let got = config(pods, services).validate().map_err(|error| error.to_string());
            match (want, got) {
                (None, Ok(())) => {}
                (Some(want), Err(got)) if got.contains(want) => {}
                (want, got) => panic!("{pods:?} {services:?}: want {want:?}, got {got:?}"),
            }
        }
    }

    #[test]
    fn a_node_address_inside_its_pod_range_is_refused() {
        let mut config = config(&["10.244.0.0/24"], &[]);
        config.node_ips = vec!["10.244.0.9".parse().expect("an address")];
        assert!(config.validate().is_err());
    }
}
