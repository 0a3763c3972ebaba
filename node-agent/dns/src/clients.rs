//! Who may ask: a node's address may be one that the world can reach.

use std::{collections::HashSet, net::IpAddr};

use ipnet::IpNet;

/// Those who may ask; empty is everyone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    /// Ranges: the pods'.
    pub ranges: Vec<IpNet>,
    /// Single addresses: the nodes'.
    pub addresses: HashSet<IpAddr>,
}

impl Clients {
    /// Whether this one may.
    #[must_use]
    pub fn allow(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        (self.ranges.is_empty() && self.addresses.is_empty())
            || ip.is_loopback()
            || self.ranges.iter().any(|range| range.contains(&ip))
            || self.addresses.contains(&ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_nodes_and_the_machine_itself_may_ask() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let clients = Clients {
            ranges: vec!["10.244.0.0/16".parse().expect("a range"), "fd00::/56".parse().expect("a range")],
            addresses: [ip("192.0.2.1")].into(),
        };
        for (who, may) in [
            ("10.244.7.7", true),
            ("::ffff:10.244.7.7", true),
            ("fd00::7", true),
            ("192.0.2.1", true),
            ("127.0.0.1", true),
            ("::1", true),
            ("192.0.2.2", false),
            ("10.96.0.1", false),
            ("fd01::1", false),
        ] {
            assert_eq!(clients.allow(ip(who)), may, "{who}");
            assert!(Clients::default().allow(ip(who)));
        }
    }
}
