//! Two nodes of the classic shape: pods on a bridge, iptables in their way, routes or VXLAN between the nodes.

use std::net::IpAddr;

use anyhow::{Context, Result};
use skep_tests::{NetBox, succeed};

use crate::ground::wired;

/// What a kube-proxy and a pod network of this shape have every packet pass.
const RULES: [&str; 6] = [
    "-P FORWARD DROP",
    "-A FORWARD -m conntrack --ctstate INVALID -j DROP",
    "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A FORWARD -s 10.244.0.0/16 -j ACCEPT",
    "-A FORWARD -d 10.244.0.0/16 -j ACCEPT",
    "-t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE",
];

/// A node: its pods with their addresses, a client's and a server's.
pub(crate) struct BridgeNode {
    pub(crate) pods: Vec<(NetBox, IpAddr)>,
    _netbox: NetBox,
}

/// Two of them.
pub(crate) struct BridgePair {
    pub(crate) nodes: Vec<BridgeNode>,
}

impl BridgePair {
    pub(crate) fn new(tunnel: bool) -> Result<Self> {
        let (one, two) = wired(if tunnel { "bridge-vxlan" } else { "bridge" })?;
        let nodes = vec![node(one, (1, 2), tunnel)?, node(two, (2, 1), tunnel)?];
        Ok(Self { nodes })
    }
}

fn node(netbox: NetBox, (own, other): (u8, u8), tunnel: bool) -> Result<BridgeNode> {
    succeed(netbox.command("sysctl").args(["-qw", "net.ipv4.ip_forward=1"]))?;
    // As Kubernetes asks for: what crosses the bridge passes the rules too.
    succeed(netbox.command("sysctl").args(["-qw", "net.bridge.bridge-nf-call-iptables=1"]))
        .context("bridged packets do not pass iptables (module br_netfilter)")?;
    netbox.ip("link add cni0 type bridge")?;
    netbox.ip(&format!("address add 10.244.{own}.1/24 dev cni0"))?;
    netbox.ip("link set cni0 up")?;
    for rule in RULES {
        succeed(netbox.command("iptables").args(rule.split(' ')))?;
    }
    let mtu = if tunnel { 1450 } else { 1500 };
    if tunnel {
        netbox.ip(&format!(
            "link add flannel.1 address 02:00:00:00:00:0{own} type vxlan id 1 dstport 8472 nolearning local 192.168.77.{own} remote 192.168.77.{other} dev wire"
        ))?;
        netbox.ip(&format!("address add 10.244.{own}.0/32 dev flannel.1"))?;
        netbox.ip("link set flannel.1 up")?;
        netbox.ip(&format!(
            "neighbour add 10.244.{other}.0 lladdr 02:00:00:00:00:0{other} dev flannel.1 nud permanent"
        ))?;
        netbox.ip(&format!("route add 10.244.{other}.0/24 via 10.244.{other}.0 dev flannel.1 onlink"))?;
    } else {
        netbox.ip(&format!("route add 10.244.{other}.0/24 via 192.168.77.{other}"))?;
    }
    let mut pods = Vec::new();
    for last in [2, 3] {
        let pod = NetBox::new(&format!("bridge-pod-{last}"))?;
        netbox.ip(&format!(
            "link add veth{last} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}",
            pod.name()
        ))?;
        netbox.ip(&format!("link set veth{last} master cni0 up"))?;
        pod.ip(&format!("address add 10.244.{own}.{last}/24 dev eth0"))?;
        pod.ip("link set eth0 up")?;
        pod.ip(&format!("route add default via 10.244.{own}.1"))?;
        pods.push((pod, format!("10.244.{own}.{last}").parse()?));
    }
    Ok(BridgeNode { pods, _netbox: netbox })
}
