//! What kube-proxy lets one choose, under its words.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use skep_ebpf_loader::XdpChoice;

/// The choices. The default is kube-proxy's, for iptables.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProxyOptions {
    /// Where node ports are served (`nodePortAddresses`); nothing is everywhere.
    pub node_port_addresses: Vec<NodePortAddress>,
    /// Whether all that goes to a cluster IP gets the node's address (`masqueradeAll`); by rules only.
    pub masquerade_all: bool,
    /// How long flows live, where the sysctls shall not say it.
    pub timeouts: TimeoutOptions,
    /// Whether processes of the node may bind ports that are node ports of services; by eBPF only, as rules cannot
    /// forbid it.
    pub free_node_ports: bool,
    /// Whether backends of what comes from outside are chosen by Maglev's hashing of the flow rather than by chance, so
    /// that every node chooses alike: a flow that another node takes over then keeps its backend. By eBPF only.
    pub maglev: bool,
    /// How packets to services with backends on other nodes are forwarded before the kernel's stack; by eBPF only.
    pub xdp: XdpChoice,
}

/// Some of the node's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodePortAddress {
    /// The node's own idea of its address, in each family.
    Primary,
    /// Loopback.
    Localhost,
    /// Every one.
    All,
    /// Those in a network.
    Net(IpNet),
}

/// How long flows live without a packet (`conntrack` of kube-proxy's configuration).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TimeoutOptions {
    /// TCP, established.
    pub tcp_established: Option<Duration>,
    /// UDP without an answer.
    pub udp: Option<Duration>,
    /// UDP with answers.
    pub udp_stream: Option<Duration>,
}

impl FromStr for NodePortAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "primary" => Self::Primary,
            "localhost" => Self::Localhost,
            "all" => Self::All,
            net => Self::Net(net.parse().map_err(|_| {
                format!("{net:?} is none of primary, localhost, all, and no network (as 192.0.2.0/24)")
            })?),
        })
    }
}

impl fmt::Display for NodePortAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("primary"),
            Self::Localhost => f.write_str("localhost"),
            Self::All => f.write_str("all"),
            Self::Net(net) => net.fmt(f),
        }
    }
}

impl ProxyOptions {
    /// Those of the node's `addresses` that serve node ports; `primary` is the node's idea of its addresses.
    pub(crate) fn node_port_addresses(&self, addresses: &[IpAddr], primary: &[IpAddr]) -> Vec<IpAddr> {
        addresses.iter().copied().filter(|address| self.serves(address, primary)).collect()
    }

    fn serves(&self, address: &IpAddr, primary: &[IpAddr]) -> bool {
        let is_primary = || {
            let first = primary.iter().find(|own| own.is_ipv4() == address.is_ipv4());
            first == Some(address)
        };
        self.node_port_addresses.is_empty()
            || self.node_port_addresses.iter().any(|choice| match choice {
                NodePortAddress::Primary => is_primary(),
                NodePortAddress::Localhost => address.is_loopback(),
                NodePortAddress::All => true,
                NodePortAddress::Net(net) => net.contains(address),
            })
    }

    /// Whether node ports are served on 127.0.0.1.
    pub(crate) fn serves_loopback(&self) -> bool {
        self.serves(&IpAddr::V4(Ipv4Addr::LOCALHOST), &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_add_up() {
        let ip = |text: &&str| text.parse::<IpAddr>().expect("an address");
        let all: Vec<IpAddr> =
            ["192.0.2.1", "2001:db8::1", "192.0.2.77", "127.0.0.1", "::1"].iter().map(ip).collect();
        for (choices, expected) in [
            (&[][..], "192.0.2.1 2001:db8::1 192.0.2.77 127.0.0.1 ::1"),
            (&["primary"], "192.0.2.1 2001:db8::1"),
            (&["localhost"], "127.0.0.1 ::1"),
            (&["192.0.2.64/26", "primary"], "192.0.2.1 2001:db8::1 192.0.2.77"),
            (&["192.0.2.64/26", "all"], "192.0.2.1 2001:db8::1 192.0.2.77 127.0.0.1 ::1"),
            (&["203.0.113.0/24"], ""),
        ] {
            let node_port_addresses = choices.iter().map(|text| text.parse().expect("a choice")).collect();
            let options = ProxyOptions { node_port_addresses, ..ProxyOptions::default() };
            let found = options.node_port_addresses(&all, &all[..2]);
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found.join(" "), expected, "{choices:?}");
            assert_eq!(options.serves_loopback(), expected.contains("127.0.0.1"), "{choices:?}");
        }
        assert!("192.0.2.1".parse::<NodePortAddress>().is_err(), "an address is no network");
    }
}
