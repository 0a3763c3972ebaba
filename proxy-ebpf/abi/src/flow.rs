//! Flows: who talks to whom, and what the packets are rewritten to.
//!
//! All state of a flow is one [`Flow`], found by both directions of the packets on the backend's side through one
//! normalised key. A flow whose client side looks different (its destination or source was rewritten) has in
//! addition an index from that side's normalised key to the flow's key; the index holds no state.
//! Inserting the flow's key with `NOEXIST` is at the same time the reservation of a source port.

use crate::address::Addr;
use crate::plain::plain;

/// A packet's addresses and ports in the direction it travels. For ICMP echo both ports are the identifier.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Tuple {
    /// The sender.
    pub src: Addr,
    /// The receiver.
    pub dst: Addr,
    /// The sender's port.
    pub src_port_be: u16,
    /// The receiver's port.
    pub dst_port_be: u16,
}
plain!(Tuple, 36);

impl Tuple {
    /// The tuple of the answers.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, src_port_be: self.dst_port_be, dst_port_be: self.src_port_be }
    }
}

/// A tuple with its ends in a fixed order, so that both directions have the same key.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FlowKey {
    /// The lower end's address.
    pub low: Addr,
    /// The higher end's address.
    pub high: Addr,
    /// The lower end's port.
    pub low_port_be: u16,
    /// The higher end's port.
    pub high_port_be: u16,
    /// The transport protocol's number.
    pub protocol: u8,
    /// Always zero.
    pub zero: [u8; 3],
}
plain!(FlowKey, 40);

impl FlowKey {
    /// The key of both directions of `tuple`.
    #[inline(always)]
    pub fn new(tuple: &Tuple, protocol: u8) -> Self {
        let forward = if tuple.src_port_be == tuple.dst_port_be {
            is_lower(&tuple.src, &tuple.dst)
        } else {
            tuple.src_port_be < tuple.dst_port_be
        };
        if forward {
            Self {
                low: tuple.src,
                high: tuple.dst,
                low_port_be: tuple.src_port_be,
                high_port_be: tuple.dst_port_be,
                protocol,
                zero: [0; 3],
            }
        } else {
            Self {
                low: tuple.dst,
                high: tuple.src,
                low_port_be: tuple.dst_port_be,
                high_port_be: tuple.src_port_be,
                protocol,
                zero: [0; 3],
            }
        }
    }
}

// The derived comparison calls memcmp, which the kernel's machine lacks; ports are compared first as they mostly
// decide.
#[inline(always)]
fn is_lower(a: &Addr, b: &Addr) -> bool {
    let first = |w: &Addr| (u64::from(w.words_be[0]) << 32) | u64::from(w.words_be[1]);
    let second = |w: &Addr| (u64::from(w.words_be[2]) << 32) | u64::from(w.words_be[3]);
    if first(a) == first(b) { second(a) < second(b) } else { first(a) < first(b) }
}

/// One flow.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Flow {
    /// What the client's packets look like when they arrive.
    pub outer: Tuple,
    /// What they look like when they leave for the backend.
    pub inner: Tuple,
    /// The backend's id; 0 when none was chosen (masquerade).
    pub backend: u32,
    /// When a packet was seen last, see [`crate::conntrack::ticks`].
    pub seen_ticks: u32,
    /// [`crate::conntrack::State`] bits.
    pub state: u8,
    /// [`kind`] bits.
    pub kind: u8,
    /// Always zero.
    pub zero: [u8; 2],
}
plain!(Flow, 84);

/// Bits of [`Flow::kind`].
pub mod kind {
    /// The destination was rewritten.
    pub const DESTINATION: u8 = 1;
    /// The source was rewritten.
    pub const SOURCE: u8 = 2;
    /// The client is outside the node.
    pub const FROM_OUTSIDE: u8 = 4;
    /// Nothing was rewritten: a stranger dialled a pod itself, and the answers must not get the node's address.
    pub const DIRECT: u8 = 8;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn tuple()(src: [u32; 4], dst: [u32; 4], src_port_be: u16, dst_port_be: u16) -> Tuple {
            Tuple { src: Addr { words_be: src }, dst: Addr { words_be: dst }, src_port_be, dst_port_be }
        }
    }

    proptest! {
        #[test]
        fn both_directions_have_one_key(tuple in tuple(), protocol: u8) {
            prop_assert_eq!(FlowKey::new(&tuple, protocol), FlowKey::new(&tuple.reversed(), protocol));
        }

        #[test]
        fn different_flows_have_different_keys(a in tuple(), b in tuple()) {
            prop_assume!(a != b && a != b.reversed());
            prop_assert_ne!(FlowKey::new(&a, 6), FlowKey::new(&b, 6));
        }

        #[test]
        fn equal_ports_are_still_ordered(mut tuple in tuple(), port: u16) {
            tuple.src_port_be = port;
            tuple.dst_port_be = port;
            prop_assert_eq!(FlowKey::new(&tuple, 17), FlowKey::new(&tuple.reversed(), 17));
        }
    }
}
