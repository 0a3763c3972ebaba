//! Table tests: which way to whom, and what it costs.

use std::sync::Arc;

use super::*;
use crate::{DataPathError, PodDataPath, PodEndpoint, model::Link};

/// A data path that is there and does nothing.
#[derive(Debug)]
struct Idle;

impl PodDataPath for Idle {
    fn attach_pod(&self, _: u32) -> Result<(), DataPathError> {
        Ok(())
    }
    fn detach_pod(&self, _: u32) -> Result<(), DataPathError> {
        Ok(())
    }
    fn attach_uplink(&self, _: u32) -> Result<(), DataPathError> {
        Ok(())
    }
    fn detach_uplink(&self, _: u32) -> Result<(), DataPathError> {
        Ok(())
    }
    fn set_endpoint(&self, _: IpAddr, _: &PodEndpoint) -> Result<(), DataPathError> {
        Ok(())
    }
    fn remove_endpoint(&self, _: IpAddr) -> Result<(), DataPathError> {
        Ok(())
    }
    fn attach_tunnel(&self, _: u32) -> Result<(), DataPathError> {
        Ok(())
    }
    fn detach_tunnel(&self, _: u32) -> Result<(), DataPathError> {
        Ok(())
    }
    fn set_tunnel(&self, _: &Tunnel) -> Result<(), DataPathError> {
        Ok(())
    }
    fn set_peer_nodes(&self, _: &[IpAddr]) -> Result<(), DataPathError> {
        Ok(())
    }
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|text| text.parse().expect("an address")).collect()
}

fn nets(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|text| text.parse().expect("a range")).collect()
}

fn config(routing: PodRouting) -> NetworkConfig {
    NetworkConfig {
        pod_cidrs: nets(&["10.244.1.0/24", "fd00:1::/64"]),
        node_ips: ips(&["192.0.2.1", "2001:db8::1"]),
        routing,
        data_plane: Some(Arc::new(Idle)),
        ..NetworkConfig::default()
    }
}

fn node() -> Seen {
    let link = Link {
        index: 2,
        up: true,
        mtu: 1500,
        mac: [0; 6],
        alias: String::new(),
        peer: None,
        tunnel_port: None,
    };
    let address = |net: &str| Address { interface: "eth0".into(), net: net.parse().expect("a net") };
    Seen {
        links: [("eth0".to_owned(), link)].into(),
        addresses: vec![address("192.0.2.1/24"), address("2001:db8::1/64")],
        ..Seen::default()
    }
}

fn peer(cidrs: &[&str], node_ips: &[&str]) -> Peer {
    Peer { pod_cidrs: nets(cidrs), node_ips: ips(node_ips) }
}

fn way_to(config: &NetworkConfig, cidr: &str, node_ips: &[&str]) -> Option<Way> {
    ways(config, &[peer(&[cidr], node_ips)], &node()).ranges.first().map(|(_, way)| *way)
}

fn native(gateway: &str) -> Option<Way> {
    Some(Way::Native(gateway.parse().expect("an address")))
}

fn tunnel(gateway: &str, remote: &str, local: &str) -> Option<Way> {
    let ip = |text: &str| text.parse().expect("an address");
    let mac = names::tunnel_mac(ip(gateway));
    Some(Way::Tunnel { gateway: ip(gateway), mac, remote: ip(remote), local: ip(local) })
}

#[test]
fn the_way_is_by_the_segment_or_as_told() {
    use PodRouting::{Auto, Native, Vxlan};
    let (near, far) = ("192.0.2.8", "198.51.100.8");
    let inside = |remote| tunnel("10.244.2.1", remote, "192.0.2.1");
    for (routing, address, want) in [
        (Auto, near, native(near)),
        (Auto, far, inside(far)),
        (Native, near, native(near)),
        (Native, far, native(far)),
        (Vxlan, near, inside(near)),
        (Vxlan, far, inside(far)),
    ] {
        assert_eq!(way_to(&config(routing), "10.244.2.0/24", &[address]), want, "{routing} {address}");
    }
}

#[test]
fn each_family_has_its_way() {
    let config = config(PodRouting::Auto);
    // On our segment by IPv4, elsewhere by IPv6: the IPv6 pods go through the tunnel, over IPv4.
    let both = ["192.0.2.8", "2001:db8:1::8"];
    assert_eq!(way_to(&config, "10.244.2.0/24", &both), native("192.0.2.8"));
    assert_eq!(way_to(&config, "fd00:2::/64", &both), tunnel("fd00:2::1", "192.0.2.8", "192.0.2.1"));
    // A node that has only IPv6 still takes IPv4 pods' packets.
    let v6 = ["2001:db8:1::8"];
    assert_eq!(way_to(&config, "10.244.2.0/24", &v6), tunnel("10.244.2.1", "2001:db8:1::8", "2001:db8::1"));
    assert_eq!(way_to(&config, "fd00:2::/64", &["2001:db8::8"]), native("2001:db8::8"));
}

#[test]
fn without_a_common_family_or_programs_there_is_no_tunnel() {
    let v4_only = NetworkConfig { node_ips: ips(&["192.0.2.1"]), ..config(PodRouting::Auto) };
    assert_eq!(way_to(&v4_only, "10.244.2.0/24", &["2001:db8:1::8"]), None);
    let plain = NetworkConfig { data_plane: None, ..config(PodRouting::Auto) };
    assert_eq!(way_to(&plain, "10.244.2.0/24", &["198.51.100.8"]), native("198.51.100.8"));
}

#[test]
fn room_is_taken_from_the_mtu_only_where_pods_may_be_behind_the_tunnel() {
    let near = peer(&["10.244.2.0/24"], &["192.0.2.8"]);
    let far = peer(&["10.244.3.0/24"], &["198.51.100.8"]);
    let far6 = peer(&["10.244.4.0/24"], &["2001:db8:1::8"]);
    let mtu = |routing, peers: &[Peer]| {
        let config = config(routing);
        super::super::mtu(&config, Some(&ways(&config, peers, &node())), &node())
    };
    use PodRouting::{Auto, Native, Vxlan};
    assert_eq!(mtu(Auto, &[]), 1500);
    assert_eq!(mtu(Auto, std::slice::from_ref(&near)), 1500);
    assert_eq!(mtu(Auto, &[near.clone(), far.clone()]), 1450);
    assert_eq!(mtu(Auto, &[near, far.clone(), far6]), 1430, "the widest headers count");
    assert_eq!(mtu(Native, std::slice::from_ref(&far)), 1500);
    assert_eq!(mtu(Vxlan, &[]), 1450, "a pod that starts before the first peer is known");
}

#[test]
fn a_tunnel_of_before_says_the_mtu_until_the_peers_are_known() {
    let mut node = node();
    let mut device = node.links["eth0"].clone();
    device.mtu = 1450;
    node.links.insert(names::TUNNEL.into(), device);
    assert_eq!(super::super::mtu(&config(PodRouting::Auto), None, &node), 1450);
}

#[test]
fn only_nodes_with_routes_to_our_pods_see_them_themselves() {
    let config = config(PodRouting::Auto);
    let near = peer(&["10.244.2.0/24"], &["192.0.2.8", "2001:db8::8"]);
    let far = peer(&["10.244.3.0/24"], &["198.51.100.8"]);
    assert_eq!(native_nodes(&config, &[near, far], &node()), ips(&["192.0.2.8", "2001:db8::8"]));
}

#[test]
fn the_tunnel_stands_on_its_own_addresses_and_known_neighbours() {
    let config = config(PodRouting::Auto);
    let mut node = node();
    let peers = [peer(&["10.244.3.0/24", "fd00:3::/64"], &["198.51.100.8"])];
    let wanted = |node: &Seen| {
        let mut wanted = Wanted::default();
        add(&config, &ways(&config, &peers, node), 1450, node, &mut wanted);
        wanted
    };
    let before = wanted(&node);
    let addresses: Vec<_> = before.addresses.iter().map(|a| a.net.to_string()).collect();
    assert_eq!(addresses, ["10.244.1.1/32", "fd00:1::1/128"]);
    let neighbours: Vec<_> = before.neighbours.iter().map(|n| n.address.to_string()).collect();
    assert_eq!(neighbours, ["10.244.3.1", "fd00:3::1"]);
    assert_eq!(before.neighbours[0].mac, before.neighbours[1].mac, "one device, one hardware address");
    assert!(before.routes.iter().all(|route| route.source.is_none()), "the kernel refuses absent sources");
    node.addresses.extend(before.addresses);
    let sources: Vec<_> = wanted(&node).routes.iter().map(|route| route.source).collect();
    assert_eq!(sources, [Some(inside(&config.pod_cidrs[0])), Some(inside(&config.pod_cidrs[1]))]);
}

#[test]
fn a_device_of_another_shape_is_made_anew() {
    let config = config(PodRouting::Auto);
    let mut node = node();
    assert!(!is_wrong_tunnel(&config, &node), "an absent one is not wrong");
    let mac = names::tunnel_mac(inside(&config.pod_cidrs[0]));
    for (port, mac, want) in [(8472, mac, false), (4789, mac, true), (8472, [2; 6], true)] {
        let link = Link { mac, tunnel_port: Some(port), ..node.links["eth0"].clone() };
        node.links.insert(names::TUNNEL.into(), link);
        assert_eq!(is_wrong_tunnel(&config, &node), want, "{port} {mac:?}");
    }
}
