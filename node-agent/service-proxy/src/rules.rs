//! The back ends that write packet filter rules: what they share. Pure, but for [`apply`].
//!
//! ```text
//! ServiceTables -> view (units: one port of one service in one family) -> nftables or iptables (fragments of text)
//!              -> difference to the fragments that are in the kernel -> one script for `nft` or `iptables-restore`
//! ```
//! A fragment is what one owner (a service, or the node itself) has in the kernel, so the size of a script follows
//! what changed, not what there is.

pub(crate) mod apply;
pub(crate) mod conntrack;
#[cfg(test)]
mod fixture;
pub(crate) mod iptables;
pub(crate) mod names;
pub(crate) mod nftables;
pub(crate) mod owners;
pub(crate) mod view;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

/// The nftables table, and with it the mark that both back ends set on packets to be masqueraded.
pub const TABLE: &str = "skep-proxy";
/// The bit of the packet's mark that asks for masquerading; kube-proxy's.
pub(crate) const MASQUERADE_MARK: u32 = 0x4000;

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn of(address: &IpAddr) -> Self {
        if address.is_ipv6() { Self::V6 } else { Self::V4 }
    }

    pub(crate) fn of_net(net: &IpNet) -> Self {
        Self::of(&net.addr())
    }
}

/// What the rules must know besides services.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ground {
    /// Where node ports are served.
    pub(crate) node_addresses: BTreeSet<IpAddr>,
    /// The cluster's pods: traffic from them keeps its source.
    pub(crate) pods: Vec<IpNet>,
    /// The range of cluster IPs.
    pub(crate) services: Vec<IpNet>,
    /// Whether pods' packets that leave the cluster get the node's address, and what is not leaving.
    pub(crate) keep_source: Vec<IpNet>,
    /// Whether all that goes to a cluster IP gets the node's address.
    pub(crate) masquerade_all: bool,
}

impl Ground {
    pub(crate) fn nets(list: &[IpNet], family: Family) -> Vec<String> {
        let mut nets: Vec<IpNet> =
            list.iter().filter(|net| Family::of_net(net) == family).map(IpNet::trunc).collect();
        nets.sort();
        nets.dedup();
        // One that lies within another would be an overlap, which sets of intervals refuse.
        let kept = nets.iter().filter(|net| !nets.iter().any(|other| other != *net && other.contains(*net)));
        kept.map(ToString::to_string).collect()
    }

    pub(crate) fn addresses(&self, family: Family) -> Vec<IpAddr> {
        self.node_addresses.iter().copied().filter(|address| Family::of(address) == family).collect()
    }
}
