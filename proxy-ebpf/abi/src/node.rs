//! The node: its addresses, its pods, and what the programs must know about it.

use crate::address::Addr;
use crate::conntrack::Timeouts;
use crate::plain::plain;

/// How to reach an address that lives on this node.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Endpoint {
    /// The host's end of the pod's interface pair; 0 for the node's own addresses.
    pub ifindex: u32,
    /// [`endpoint`] flags.
    pub flags: u32,
    /// The pod's hardware address.
    pub pod_mac: [u8; 6],
    /// The hardware address the pod sends to.
    pub host_mac: [u8; 6],
}
plain!(Endpoint, 20);

/// Flags of an [`Endpoint`].
pub mod endpoint {
    /// An address of the node itself: packets go up the node's own stack.
    pub const HOST: u32 = 1;
    /// A pod that network policies select: what goes to it is asked about.
    pub const POLICED: u32 = 2;
}

/// The one entry of the node's map.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct NodeConfig {
    /// The source of translated IPv4 packets; unspecified: refuse what would need one.
    pub source_v4: Addr,
    /// The source of translated IPv6 packets.
    pub source_v6: Addr,
    /// The lowest port for translated sources.
    pub port_min: u32,
    /// The highest port for translated sources.
    pub port_max: u32,
    /// [`node`](flags) flags.
    pub flags: u32,
    /// How long flows live.
    pub timeouts: Timeouts,
}
plain!(NodeConfig, 72);

/// Flags of a [`NodeConfig`].
pub mod flags {
    /// Pods' packets that leave the cluster get the node's address.
    pub const MASQUERADE: u32 = 1;
    /// Services are the packet filter's: no packet of a pod may take a way that avoids the host's stack.
    pub const STACK: u32 = 2;
}

/// Who wants a network to be reached under the pods' own addresses: bits of the map's values.
pub mod keep {
    /// The cluster's ranges, and others that know pod addresses.
    pub const NETWORKS: u32 = 1;
    /// Other nodes that have routes to this one's pods.
    pub const NODES: u32 = 2;
}

/// Ports below the node ports and below the range from which local sockets take theirs, so that a translated flow
/// never meets a socket of the node.
pub const DEFAULT_PORTS: (u16, u16) = (10_240, 29_999);
