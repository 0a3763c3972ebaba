//! The tunnel to nodes that share no segment with this one: who is at its other ends, and what it costs a packet.

use crate::address::Addr;
use crate::plain::plain;

/// Where the pods of a range are. The value of a longest-prefix map of the ranges of other nodes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Remote {
    /// The node's address on the network that carries the tunnel.
    pub addr: Addr,
    /// This node's own address there: the other side expects packets from it and from nobody else.
    pub local: Addr,
}
plain!(Remote, 32);

/// The one entry of the tunnel's map.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct TunnelConfig {
    /// The node's own IPv4 address inside the tunnel: the source of what it sends to pods elsewhere in its own
    /// name, so that answers come back through the tunnel; unspecified without one.
    pub source_v4: Addr,
    /// The same of IPv6.
    pub source_v6: Addr,
}
plain!(TunnelConfig, 32);

/// The network identifier of all tunnels.
pub const NETWORK: u32 = 1;

/// What the tunnel adds to a packet over IPv4, counted as MTUs are: Ethernet of the inside, VXLAN, UDP, IP.
pub const OVERHEAD_V4: u32 = 14 + 8 + 8 + 20;
/// The same over IPv6.
pub const OVERHEAD_V6: u32 = 14 + 8 + 8 + 40;

/// No network that carries IPv6 has a smaller MTU, so packets that stay below it need no look at the path.
pub const SMALLEST_MTU: u32 = 1280;

impl Remote {
    /// The bytes that the tunnel to this node adds.
    #[inline(always)]
    pub const fn overhead(&self) -> u32 {
        if self.addr.is_v4() { OVERHEAD_V4 } else { OVERHEAD_V6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    #[test]
    fn the_overhead_is_that_of_the_network_below() {
        let to = |text: &str| {
            let addr = text.parse::<IpAddr>().expect("an address").into();
            Remote { addr, local: Addr::UNSPECIFIED }.overhead()
        };
        assert_eq!((to("192.0.2.1"), to("2001:db8::1")), (50, 70));
    }
}
