//! What the eBPF programs and user space share: the keys and values of the maps, and the pure decisions on them.
//!
//! Nothing here does I/O, allocates or panics, so the same code runs in the kernel and, natively, under tests.
//!
//! The tables of services, all keyed so that one change writes few entries:
//! ```text
//! frontend (address, port, protocol) -> the set for outside and for inside traffic
//! set id                             -> how many backends, affinity, what to do when empty
//! (set id, slot 1..=count)           -> backend id
//! (set id, page)                     -> backend ids by a flow's hash, of sets that are chosen from by hash
//! backend id                         -> address, port
//! ```
//! Several frontends of a service port (cluster IP, every node address, external IPs) share one set, so a changed
//! endpoint is written once. "Scope" is not part of the key: a frontend names two sets, which saves a second look-up.
//!
//! Invariants: no type has padding (checked where it is declared); fields that hold network byte order end in
//! `_be`; changing a layout means raising [`LAYOUT`].

#![no_std]

pub mod address;
pub mod conntrack;
pub mod counter;
pub mod crc32c;
pub mod flow;
pub mod fragment;
pub mod hash;
pub mod maglev;
pub mod node;
mod plain;
pub mod policy;
pub mod service;
pub mod sum;
pub mod tcp;
pub mod tunnel;

pub use address::Addr;
pub use plain::Plain;

/// The version of all layouts here; part of every pin's name. A new one needs its step in the loader's `migrate`.
pub const LAYOUT: u32 = 2;

/// `IPPROTO_ICMP`.
pub const ICMP: u8 = 1;
/// `IPPROTO_TCP`.
pub const TCP: u8 = 6;
/// `IPPROTO_UDP`.
pub const UDP: u8 = 17;
/// `IPPROTO_ICMPV6`.
pub const ICMP_V6: u8 = 58;
/// `IPPROTO_SCTP`.
pub const SCTP: u8 = 132;
