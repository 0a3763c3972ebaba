//! From what is wanted and what is there to the steps between: pure functions.

pub(crate) mod peers;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use self::peers::Ways;
use crate::{
    config::NetworkConfig,
    model::{Address, Link, Neighbour, Op, Route, Seen, Target, Wanted, WantedLink},
    names,
    records::Record,
};

/// The pod's end of its veth pair.
pub(crate) const POD_INTERFACE: &str = "eth0";
/// The pods' gateways: addresses that no interface has. The pod's permanent neighbour entry leads to the host.
const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
const FALLBACK_MTU: u32 = 1500;

/// What becomes of routes and interfaces of ours that nothing wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strays {
    /// They may belong to a pod that is just being set up.
    Keep,
    /// Nothing is being set up: they are leftovers.
    Remove,
}

/// The state of a pod's veth pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pair {
    /// Both ends are there and belong together.
    Whole,
    /// Neither end is there.
    Missing,
    /// An end without its other end, or with a stranger: both go before a new pair is made.
    Torn,
}

/// Whether the pod's pair is whole.
pub(crate) fn pair(record: &Record, node: &Seen, pod: &Seen) -> Pair {
    match (node.links.get(&record.host_interface), pod.links.get(POD_INTERFACE)) {
        (None, None) => Pair::Missing,
        (Some(host), Some(inner)) if inner.peer == Some(host.index) => Pair::Whole,
        (Some(_) | None, Some(_)) | (Some(_), None) => Pair::Torn,
    }
}

/// The MTU of the way out: of the interface with the node's address, else of the default route.
fn uplink_mtu(config: &NetworkConfig, node: &Seen) -> u32 {
    let of = |name: &str| node.links.get(name).map(|link| link.mtu);
    let by_address = || {
        let holder = node.addresses.iter().find(|a| config.node_ips.contains(&a.net.addr()))?;
        // A node address on the loopback interface says nothing about the wire.
        (holder.interface != "lo").then(|| of(&holder.interface)).flatten()
    };
    by_address().or_else(|| node.uplink.as_deref().and_then(of)).unwrap_or(FALLBACK_MTU)
}

/// The MTU inside the tunnel.
fn tunnel_mtu(config: &NetworkConfig, ways: &Ways, node: &Seen) -> u32 {
    uplink_mtu(config, node).saturating_sub(peers::overhead(config, ways))
}

/// The pods' MTU: as configured, else what fits through the tunnel where pods may be behind it, else the way out's.
/// Before the peers are known, a tunnel that is there says what was so before.
pub(crate) fn mtu(config: &NetworkConfig, ways: Option<&Ways>, node: &Seen) -> u32 {
    let as_before = || {
        let uplink = uplink_mtu(config, node);
        node.links.get(names::TUNNEL).map_or(uplink, |tunnel| tunnel.mtu.min(uplink))
    };
    config.mtu.unwrap_or_else(|| ways.map_or_else(as_before, |ways| tunnel_mtu(config, ways, node)))
}

/// The interfaces that lead out of the node: those with its addresses, and that of the default route. Loopback
/// and the pods' interfaces are none.
pub(crate) fn uplinks(config: &NetworkConfig, node: &Seen) -> BTreeMap<String, u32> {
    let holders = node.addresses.iter().filter(|address| config.node_ips.contains(&address.net.addr()));
    let names = holders.map(|address| address.interface.as_str()).chain(node.uplink.as_deref());
    names
        .filter(|name| *name != "lo" && *name != names::TUNNEL && !names::is_host_interface(name))
        .filter_map(|name| Some((name.to_owned(), node.links.get(name)?.index)))
        .collect()
}

/// What the pod's namespace shall have.
pub(crate) fn wanted_in_pod(record: &Record, mtu: u32) -> Wanted {
    let (pod_mac, host_mac) = names::macs(&record.uid);
    let mut wanted = Wanted {
        links: vec![
            WantedLink { name: "lo".into(), mtu: None, mac: None, alias: None },
            WantedLink { name: POD_INTERFACE.into(), mtu: Some(mtu), mac: Some(pod_mac), alias: None },
        ],
        ..Wanted::default()
    };
    for ip in &record.ips {
        let (gateway, everything) = match ip {
            IpAddr::V4(_) => (GATEWAY_V4, IpNet::from(ipnet::Ipv4Net::default())),
            IpAddr::V6(_) => (GATEWAY_V6, IpNet::from(ipnet::Ipv6Net::default())),
        };
        let interface = POD_INTERFACE.to_owned();
        wanted.addresses.push(Address { interface: interface.clone(), net: IpNet::from(*ip) });
        wanted.neighbours.push(Neighbour { interface: interface.clone(), address: gateway, mac: host_mac });
        wanted.routes.push(Route {
            destination: IpNet::from(gateway),
            target: Target::Interface(interface.clone()),
            source: None,
        });
        wanted.routes.push(Route {
            destination: everything,
            target: Target::Gateway(gateway, interface),
            source: None,
        });
    }
    wanted
}

/// What the node's namespace shall have for these pods and, where they are known, the ways to peers.
pub(crate) fn wanted_on_node<'a>(
    config: &NetworkConfig,
    pods: impl IntoIterator<Item = &'a Record>,
    ways: Option<&Ways>,
    node: &Seen,
) -> Wanted {
    let mut wanted = Wanted::default();
    let mtu = mtu(config, ways, node);
    for record in pods {
        let (pod_mac, host_mac) = names::macs(&record.uid);
        let interface = &record.host_interface;
        wanted.links.push(WantedLink {
            name: interface.clone(),
            mtu: Some(mtu),
            mac: Some(host_mac),
            alias: Some(alias(record)),
        });
        for ip in &record.ips {
            wanted.routes.push(Route {
                destination: IpNet::from(*ip),
                target: Target::Interface(interface.clone()),
                source: local_source(config, *ip, node),
            });
            wanted.neighbours.push(Neighbour { interface: interface.clone(), address: *ip, mac: pod_mac });
        }
    }
    if let Some(ways) = ways {
        peers::add(config, ways, tunnel_mtu(config, ways, node), node, &mut wanted);
    }
    let ranges = config.service_cidrs.iter().chain(&config.pod_cidrs).chain(&config.cluster_cidrs);
    for range in ranges {
        let dead_end = Route { destination: *range, target: Target::Unreachable, source: None };
        if !wanted.routes.iter().any(|route| route.destination == *range) {
            wanted.routes.push(dead_end);
        }
    }
    wanted
}

/// Routes for service addresses. Rules that translate the node's own packets come after routing, which must not have
/// refused them; where the route leads does not matter, as what no rule translates is refused by another one. The
/// loopback interface is the place that nothing leaves; for IPv6, where a route over it means "refuse", an uplink is.
pub(crate) fn service_routes(config: &NetworkConfig, node: &Seen) -> Vec<Route> {
    let uplink = uplinks(config, node).into_keys().next();
    let route = |range: &IpNet| {
        let interface = if range.addr().is_ipv6() { uplink.clone()? } else { "lo".to_owned() };
        let source = local_source(config, range.addr(), node);
        Some(Route { destination: *range, target: Target::Interface(interface), source })
    };
    config.service_cidrs.iter().filter_map(route).collect()
}

fn alias(record: &Record) -> String {
    // The kernel takes 255 bytes; names are at most 253 each.
    let mut text = format!("pod {} {}/{}", record.uid, record.namespace, record.name);
    text.truncate(text.floor_char_boundary(250));
    text
}

/// The node's address of this family, if it is really on an interface: the kernel refuses any other source.
fn local_source(config: &NetworkConfig, ip: IpAddr, node: &Seen) -> Option<IpAddr> {
    config.node_ips.iter().copied().find(|own| own.is_ipv4() == ip.is_ipv4() && node.has_address(*own))
}

/// The steps from `seen` to `wanted`. Empty when nothing is to be done.
///
/// Interfaces that are wanted but absent are not made here: a veth pair spans two namespaces. What depends on
/// an absent interface is left out.
pub(crate) fn steps(wanted: &Wanted, seen: &Seen, strays: Strays) -> Vec<Op> {
    let mut ops = Vec::new();
    if strays == Strays::Remove {
        ops.extend(stray_steps(wanted, seen));
    }
    let mut renewed = Vec::new();
    for link in &wanted.links {
        let Some(there) = seen.links.get(&link.name) else { continue };
        if let Some(change) = link_change(link, there) {
            ops.push(Op::SetLink(change));
        }
        if !there.up {
            renewed.push(link.name.as_str());
        }
    }
    let present = |name: &str| seen.links.contains_key(name);
    for address in &wanted.addresses {
        if present(&address.interface) && !seen.addresses.contains(address) {
            ops.push(Op::AddAddress(address.clone()));
        }
    }
    // Neighbours before routes: the first packet that follows a route finds its neighbour.
    for neighbour in &wanted.neighbours {
        if present(&neighbour.interface) && !seen.neighbours.contains(neighbour) {
            ops.push(Op::ReplaceNeighbour(neighbour.clone()));
        }
    }
    for route in &wanted.routes {
        let interface = interface_of(route);
        let usable = interface.is_none_or(present);
        let lost = interface.is_some_and(|name| renewed.contains(&name));
        if usable && (lost || !seen.routes.contains(route)) {
            ops.push(Op::ReplaceRoute(route.clone()));
        }
    }
    ops
}

/// What is there for other nodes and no peer wants any more.
pub(crate) fn stale_peer_steps(ways: &Ways, wanted: &Wanted, seen: &Seen) -> Vec<Op> {
    if !ways.tunnels && seen.links.contains_key(names::TUNNEL) {
        // Routes and neighbours over it go with it.
        return vec![Op::DeleteLink(names::TUNNEL.to_owned())];
    }
    let is_stale = |route: &&Route| {
        is_to_peer(route) && !wanted.routes.iter().any(|w| w.destination == route.destination)
    };
    let routes = seen.routes.iter().filter(is_stale).cloned().map(Op::DeleteRoute);
    let is_left = |neighbour: &&Neighbour| {
        neighbour.interface == names::TUNNEL
            && !wanted.neighbours.iter().any(|w| w.address == neighbour.address)
    };
    let neighbours = seen.neighbours.iter().filter(is_left).cloned().map(Op::DeleteNeighbour);
    routes.chain(neighbours).collect()
}

/// Whether a route leads through another node.
fn is_to_peer(route: &Route) -> bool {
    matches!(route.target, Target::Via(_) | Target::Tunnel(_))
}

/// Whether a step deletes a route through another node.
pub(crate) fn is_peer_route_deletion(op: &Op) -> bool {
    matches!(op, Op::DeleteRoute(route) if is_to_peer(route))
}

/// The record of a pod as its devices tell it: the interface is named by the uid, the routes over it lead to
/// the pod's addresses. `None` when that does not give one address of each range.
pub(crate) fn recovered(uid: &str, cidrs: &[IpNet], node: &Seen) -> Option<Record> {
    let host_interface = names::host_interface(uid, 0);
    let over = |route: &&Route| route.target == Target::Interface(host_interface.clone());
    let found: Vec<IpAddr> = node.routes.iter().filter(over).map(|route| route.destination.addr()).collect();
    let ips: Vec<IpAddr> =
        cidrs.iter().filter_map(|cidr| found.iter().copied().find(|ip| cidr.contains(ip))).collect();
    let alias = &node.links.get(&host_interface)?.alias;
    let full_name = alias.rsplit(' ').next().unwrap_or_default();
    let (namespace, name) = full_name.split_once('/').unwrap_or(("", full_name));
    (ips.len() == cidrs.len()).then(|| Record {
        uid: uid.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ips,
        host_interface,
    })
}

fn stray_steps<'a>(wanted: &'a Wanted, seen: &'a Seen) -> impl Iterator<Item = Op> + 'a {
    let routes = seen
        .routes
        .iter()
        .filter(|route| !wanted.routes.iter().any(|w| w.destination == route.destination))
        .map(|route| Op::DeleteRoute(route.clone()));
    let links = seen
        .links
        .keys()
        .filter(|name| names::is_host_interface(name) && !wanted.links.iter().any(|w| w.name == **name))
        .map(|name| Op::DeleteLink(name.clone()));
    routes.chain(links)
}

/// What of an interface is not as wanted. Only that: when a hardware address is set, the same one too, the kernel
/// forgets all neighbours.
fn link_change(wanted: &WantedLink, seen: &Link) -> Option<WantedLink> {
    let change = WantedLink {
        name: wanted.name.clone(),
        mtu: wanted.mtu.filter(|mtu| *mtu != seen.mtu),
        mac: wanted.mac.filter(|mac| *mac != seen.mac),
        alias: wanted.alias.clone().filter(|alias| *alias != seen.alias),
    };
    let is_same = change.mtu.is_none() && change.mac.is_none() && change.alias.is_none();
    (!seen.up || !is_same).then_some(change)
}

fn interface_of(route: &Route) -> Option<&str> {
    match &route.target {
        Target::Interface(name) | Target::Gateway(_, name) => Some(name),
        Target::Tunnel(_) => Some(names::TUNNEL),
        Target::Via(_) | Target::Unreachable => None,
    }
}

#[cfg(test)]
mod tests;
