//! Fragments: only the first one of a datagram has ports.
//!
//! The first fragment leaves its ports under the datagram's name for the others. One that comes before it is held, and
//! goes on when the first has come. Both memories are short and small: a datagram whose parts do not come together in
//! time is lost to its receiver anyway.

use crate::address::Addr;
use crate::conntrack::ticks_of_seconds;
use crate::plain::plain;

/// What the fragments of one datagram have in common.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Datagram {
    /// The sender.
    pub src: Addr,
    /// The receiver.
    pub dst: Addr,
    /// The identification, as it lies in the header; of IPv4 sixteen bits.
    pub id: u32,
    /// The transport protocol's number.
    pub protocol: u8,
    /// Always zero.
    pub zero: [u8; 3],
}
plain!(Datagram, 40);

/// What the first fragment tells.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ports {
    /// The sender's port.
    pub src_port_be: u16,
    /// The receiver's port.
    pub dst_port_be: u16,
    /// When it came, see [`crate::conntrack::ticks`].
    pub seen_ticks: u32,
}
plain!(Ports, 8);

impl Ports {
    /// How long ports hold for the other fragments; the kernel waits as long for them (`ipfrag_time`). Later the
    /// identification may be another datagram's.
    pub const LIFE: u32 = ticks_of_seconds(30);

    /// Whether they may still be used.
    #[inline(always)]
    pub const fn are_fresh(&self, now: u32) -> bool {
        now.wrapping_sub(self.seen_ticks) <= Self::LIFE
    }
}

/// The name of a held fragment.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HeldKey {
    /// The datagram.
    pub datagram: Datagram,
    /// Below [`MAX_HELD`].
    pub index: u32,
}
plain!(HeldKey, 44);

/// The most fragments of one datagram that are held.
pub const MAX_HELD: u32 = 16;

/// A frame that is to be held is shorter than this: a power of two, so that masking bounds a length.
pub const MAX_FRAME: usize = 2048;

/// A held frame.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Held {
    /// How much of `bytes` is the frame.
    pub length: u32,
    /// The frame.
    pub bytes: [u8; MAX_FRAME],
}
plain!(Held, 2052);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_grow_old_also_when_times_wrap() {
        let ports = Ports { src_port_be: 1, dst_port_be: 2, seen_ticks: u32::MAX - 3 };
        assert!(ports.are_fresh(u32::MAX));
        assert!(ports.are_fresh(Ports::LIFE - 4));
        assert!(!ports.are_fresh(Ports::LIFE - 3));
    }
}
