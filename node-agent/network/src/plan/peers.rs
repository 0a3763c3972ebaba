//! How the pods of other nodes are reached: by plain routes where a segment is shared, through the tunnel elsewhere.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{local_source, names};
use crate::{
    config::{NetworkConfig, Peer, PodRouting},
    data_path::{Tunnel, TunnelRange},
    model::{Address, Mac, Neighbour, Route, Seen, Target, Wanted, WantedLink},
};

/// What the tunnel adds to a packet: Ethernet of the inside, VXLAN, UDP, and IPv4 or IPv6.
const OVERHEAD_V4: u32 = 50;
const OVERHEAD_V6: u32 = 70;

/// The way to one range of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A route through the peer's address on a shared segment.
    Native(IpAddr),
    /// Through the tunnel.
    Tunnel {
        /// The peer's address inside.
        gateway: IpAddr,
        /// The hardware address of its device, which has one for both families.
        mac: Mac,
        /// Its address on the network that carries the tunnel.
        remote: IpAddr,
        /// Ours there.
        local: IpAddr,
    },
}

/// What other nodes need on this one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ways {
    /// The way to each range.
    pub(crate) ranges: Vec<(IpNet, Way)>,
    /// Whether the tunnel is in use, and so its device wanted and room for it taken from the pods' MTU.
    pub(crate) tunnels: bool,
}

/// The ways to all ranges of all peers.
pub(crate) fn ways(config: &NetworkConfig, peers: &[Peer], node: &Seen) -> Ways {
    let each = |peer: &Peer| {
        let peer = peer.clone();
        peer.pod_cidrs
            .clone()
            .into_iter()
            .filter_map(move |cidr| Some((cidr, way(config, &peer, cidr, node)?)))
    };
    let ranges: Vec<_> = peers.iter().flat_map(each).collect();
    let tunnels = config.routing == PodRouting::Vxlan
        || ranges.iter().any(|(_, way)| matches!(way, Way::Tunnel { .. }));
    Ways { ranges, tunnels }
}

fn way(config: &NetworkConfig, peer: &Peer, cidr: IpNet, node: &Seen) -> Option<Way> {
    let gateway = peer.node_ips.iter().copied().find(|ip| ip.is_ipv4() == cidr.addr().is_ipv4());
    let native = gateway.map(Way::Native);
    match config.routing {
        PodRouting::Native => native,
        PodRouting::Auto if gateway.is_some_and(|ip| is_on_segment(ip, node)) => native,
        // Without programs nobody could say whom a packet in the tunnel is for: the kernel has the last word.
        PodRouting::Auto if config.data_plane.is_none() => native,
        PodRouting::Auto | PodRouting::Vxlan => {
            let underlay = |remote: &IpAddr| Some((*remote, local_source(config, *remote, node)?));
            let (remote, local) = peer.node_ips.iter().find_map(underlay)?;
            let mac = device_mac(&peer.pod_cidrs);
            Some(Way::Tunnel { gateway: inside(&cidr), mac, remote, local })
        }
    }
}

/// Whether an interface of ours has a network that holds the address.
fn is_on_segment(ip: IpAddr, node: &Seen) -> bool {
    node.addresses.iter().any(|address| {
        address.interface != "lo"
            && address.net.prefix_len() < address.net.max_prefix_len()
            && address.net.contains(&ip)
    })
}

/// A node's address inside the tunnel: the first of its range, which no pod gets.
pub(crate) fn inside(cidr: &IpNet) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() + 1).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() + 1).into()),
    }
}

/// The hardware address of the tunnel's device on the node with these ranges.
fn device_mac(cidrs: &[IpNet]) -> Mac {
    cidrs.first().map(|cidr| names::tunnel_mac(inside(cidr))).unwrap_or_default()
}

/// What the tunnel takes of the uplink's MTU.
pub(crate) fn overhead(config: &NetworkConfig, ways: &Ways) -> u32 {
    let mut remotes = ways.ranges.iter().filter_map(|(_, way)| match way {
        Way::Tunnel { remote, .. } => Some(*remote),
        Way::Native(_) => None,
    });
    // Before the first peer is known, what this node has itself is what peers will be reached over.
    let by_own = config.node_ips.iter().all(IpAddr::is_ipv6);
    let v6 = if remotes.clone().next().is_some() { remotes.any(|ip| ip.is_ipv6()) } else { by_own };
    match (ways.tunnels, v6) {
        (false, _) => 0,
        (true, false) => OVERHEAD_V4,
        (true, true) => OVERHEAD_V6,
    }
}

/// The node's addresses inside the tunnel.
fn own_insides(config: &NetworkConfig) -> impl Iterator<Item = IpAddr> + '_ {
    config.pod_cidrs.iter().map(inside)
}

/// Adds routes to the peers' ranges, and the tunnel with all that is on it.
pub(super) fn add(config: &NetworkConfig, ways: &Ways, mtu: u32, node: &Seen, wanted: &mut Wanted) {
    for (destination, way) in &ways.ranges {
        let (target, source) = match *way {
            Way::Native(gateway) => (Target::Via(gateway), local_source(config, gateway, node)),
            Way::Tunnel { gateway, mac, .. } => {
                let interface = names::TUNNEL.to_owned();
                wanted.neighbours.push(Neighbour { interface, address: gateway, mac });
                let own = own_insides(config).find(|own| own.is_ipv4() == gateway.is_ipv4());
                (Target::Tunnel(gateway), own.filter(|own| node.has_address(*own)))
            }
        };
        wanted.routes.push(Route { destination: *destination, target, source });
    }
    if !ways.tunnels {
        return;
    }
    wanted.links.push(WantedLink {
        name: names::TUNNEL.to_owned(),
        mtu: Some(mtu),
        mac: Some(device_mac(&config.pod_cidrs)),
        alias: None,
    });
    let address = |ip| Address { interface: names::TUNNEL.to_owned(), net: IpNet::from(ip) };
    wanted.addresses.extend(own_insides(config).map(address));
}

/// The tunnel as the data path must know it.
pub(crate) fn tunnel(config: &NetworkConfig, ways: &Ways) -> Tunnel {
    let range = |(network, way): &(IpNet, Way)| match *way {
        Way::Tunnel { remote, local, .. } => Some(TunnelRange { network: *network, remote, local }),
        Way::Native(_) => None,
    };
    Tunnel { sources: own_insides(config).collect(), ranges: ways.ranges.iter().filter_map(range).collect() }
}

/// The addresses of the peers that have routes to this node's pods as this node has to theirs: pods reach these
/// nodes under their own addresses. Through the tunnel only pods are reached; the nodes themselves are strangers
/// there, as the routers between do not know pods.
pub(crate) fn native_nodes(config: &NetworkConfig, peers: &[Peer], node: &Seen) -> Vec<IpAddr> {
    let is_native = |peer: &&Peer| {
        peer.pod_cidrs.iter().any(|cidr| matches!(way(config, peer, *cidr, node), Some(Way::Native(_))))
    };
    peers.iter().filter(is_native).flat_map(|peer| peer.node_ips.iter().copied()).collect()
}

/// Hardware address and MTU of the tunnel's device.
pub(crate) fn tunnel_link(config: &NetworkConfig, ways: &Ways, node: &Seen) -> (Mac, u32) {
    (device_mac(&config.pod_cidrs), super::tunnel_mtu(config, ways, node))
}

/// The tunnel's device with its addresses, and no way into it.
pub(crate) fn tunnel_alone(config: &NetworkConfig, ways: &Ways, node: &Seen) -> Wanted {
    let mut wanted = Wanted::default();
    let no_ranges = Ways { ranges: Vec::new(), tunnels: ways.tunnels };
    add(config, &no_ranges, super::tunnel_mtu(config, ways, node), node, &mut wanted);
    wanted
}

/// Whether the tunnel's device is there but cannot be what is wanted: it is made anew then.
pub(crate) fn is_wrong_tunnel(config: &NetworkConfig, node: &Seen) -> bool {
    node.links.get(names::TUNNEL).is_some_and(|link| {
        link.tunnel_port != Some(config.tunnel_port()) || link.mac != device_mac(&config.pod_cidrs)
    })
}

#[cfg(test)]
mod tests;
