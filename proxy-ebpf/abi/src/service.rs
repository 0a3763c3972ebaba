//! Services: frontends, sets of backends, backends, affinity, and the memory of translated sockets.

use crate::address::Addr;
use crate::plain::plain;

/// What a client dials.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FrontendKey {
    /// The virtual or node address.
    pub addr: Addr,
    /// The port.
    pub port_be: u16,
    /// The transport protocol's number.
    pub protocol: u8,
    /// Always zero.
    pub zero: u8,
}
plain!(FrontendKey, 20);

impl FrontendKey {
    /// A key; `port_be` in network byte order.
    #[inline(always)]
    pub const fn new(addr: Addr, port_be: u16, protocol: u8) -> Self {
        Self { addr, port_be, protocol, zero: 0 }
    }
}

/// Where traffic to a frontend goes. The two sets differ when a traffic policy keeps outside traffic on the node.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Frontend {
    /// The set for packets that come from outside the node.
    pub external_set: u32,
    /// The set for the node's own processes and pods.
    pub internal_set: u32,
    /// [`frontend`] flags.
    pub flags: u32,
}
plain!(Frontend, 12);

/// Flags of a [`Frontend`].
pub mod frontend {
    /// What kind of address it is; the low three bits.
    pub const KIND_MASK: u32 = 0b111;
    /// A cluster IP.
    pub const CLUSTER_IP: u32 = 0;
    /// A node port.
    pub const NODE_PORT: u32 = 1;
    /// An external IP.
    pub const EXTERNAL_IP: u32 = 2;
    /// A load balancer's IP.
    pub const LOAD_BALANCER: u32 = 3;
    /// A port of a pod bound on the node.
    pub const HOST_PORT: u32 = 4;
    /// Packets from outside must match one of the set's source ranges.
    pub const SOURCE_RANGES: u32 = 1 << 3;
    /// Outside traffic stays on this node and keeps its source (`externalTrafficPolicy: Local`).
    pub const EXTERNAL_LOCAL: u32 = 1 << 4;
}

/// A group of backends that frontends share.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Set {
    /// The slots in use are `1..=count`. Written after the slots it makes visible.
    pub count: u32,
    /// [`set`] flags.
    pub flags: u32,
    /// How long a client keeps its backend; 0 is no affinity.
    pub affinity_seconds: u32,
}
plain!(Set, 12);

/// Flags of a [`Set`].
pub mod set {
    /// Empty only because a policy leaves out backends elsewhere: drop instead of refusing.
    pub const DROP_WHEN_EMPTY: u32 = 1;
    /// Packets from outside are given backends by a table of hashes (see [`crate::maglev`]), which is there.
    pub const MAGLEV: u32 = 2;
}

/// A place in a set.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotKey {
    /// The set.
    pub set: u32,
    /// From 1.
    pub slot: u32,
}
plain!(SlotKey, 8);

/// One endpoint. An id is never given to another endpoint before its grace period is over.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Backend {
    /// The endpoint's address.
    pub addr: Addr,
    /// The endpoint's port.
    pub port_be: u16,
    /// The transport protocol's number.
    pub protocol: u8,
    /// [`backend`] state.
    pub state: u8,
}
plain!(Backend, 20);

/// States of a [`Backend`].
pub mod backend {
    /// Takes new connections.
    pub const ACTIVE: u8 = 0;
    /// In no set any more; kept for the connections it has.
    pub const LEAVING: u8 = 1;
}

/// Who sticks to a backend.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AffinityKey {
    /// The client's address, or its network namespace's cookie in the first two words.
    pub client: Addr,
    /// The set.
    pub set: u32,
    /// 0: `client` is an address; 1: it is a cookie.
    pub by_namespace: u32,
}
plain!(AffinityKey, 24);

impl AffinityKey {
    /// The key of a socket, whose source address is not chosen yet: its network namespace stands for it.
    #[inline(always)]
    pub const fn namespace(cookie: u64, set: u32) -> Self {
        let client = Addr { words_be: [cookie as u32, (cookie >> 32) as u32, 0, 0] };
        Self { client, set, by_namespace: 1 }
    }

    /// The key of a packet.
    #[inline(always)]
    pub const fn address(client: Addr, set: u32) -> Self {
        Self { client, set, by_namespace: 0 }
    }
}

/// The backend a client sticks to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Affinity {
    /// The backend's id.
    pub backend: u32,
    /// When it was used last, see [`crate::conntrack::ticks`].
    pub used_ticks: u32,
}
plain!(Affinity, 8);

/// Present while a backend belongs to a set with affinity, so that a removed one is forgotten at once.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AffinityMatch {
    /// The set.
    pub set: u32,
    /// The backend's id.
    pub backend: u32,
}
plain!(AffinityMatch, 8);

/// A translated socket: which one, and what it was connected to in truth.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReverseKey {
    /// The socket's cookie.
    pub cookie: u64,
    /// The backend's address.
    pub addr: Addr,
    /// The backend's port.
    pub port_be: u16,
    /// Always zero.
    pub zero: [u8; 6],
}
plain!(ReverseKey, 32);

impl ReverseKey {
    /// A key.
    #[inline(always)]
    pub const fn new(cookie: u64, addr: Addr, port_be: u16) -> Self {
        Self { cookie, addr, port_be, zero: [0; 6] }
    }
}

/// What the socket believes it talks to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reverse {
    /// The frontend's address.
    pub addr: Addr,
    /// The frontend's port.
    pub port_be: u16,
    /// Always zero.
    pub zero: [u8; 2],
    /// The set the backend was taken from.
    pub set: u32,
}
plain!(Reverse, 24);

/// A connected socket that was translated, by its cookie. Removed when the socket is released.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Connected {
    /// The backend's address.
    pub backend: Addr,
    /// What the socket believes it talks to.
    pub reverse: Reverse,
    /// The cookie of the socket's network namespace, its low half first; zero where that was not noted.
    pub namespace: [u32; 2],
    /// The backend's port.
    pub port_be: u16,
    /// The transport protocol's number; zero where that was not noted.
    pub protocol: u8,
    /// Always zero.
    pub zero: u8,
}
plain!(Connected, 52);

/// The data of a longest-prefix key of allowed sources; the set's bits come first and are always matched whole.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SourceRange {
    /// The outside set of the frontend.
    pub set: u32,
    /// The network.
    pub addr: Addr,
}
plain!(SourceRange, 20);

impl SourceRange {
    /// The bits a range with `length` bits of its own family covers.
    pub const fn prefix_bits(&self, length: u8) -> u32 {
        32 + self.addr.prefix_bits(length)
    }

    /// The bits of a look-up of one address.
    pub const LOOKUP_BITS: u32 = 32 + 128;
}
