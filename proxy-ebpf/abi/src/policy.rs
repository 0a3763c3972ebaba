//! Network policy: who may talk to whom, decided once a flow.
//!
//! ```text
//! pod address                          -> its rule table, and the epoch of what was decided by it
//! address                              -> identity: all pods with the same labels have one
//! (table, direction, network)          -> class: the blocks of addresses of a table, cut where they overlap
//! (table, peer, direction, protocol, port) -> the rule that allows it; peer is an identity, a class, or anyone
//! flow                                 -> who opened it, and under which epoch each end's pod has allowed it
//! ```
//! There are only rules that allow: a pod without an entry of its own is not isolated, one with an entry takes what a
//! rule allows. A decision stands until the pod's epoch changes; then the next packet of the flow is decided anew, in
//! the direction in which the flow was opened.

use crate::address::Addr;
use crate::conntrack::reopens;
use crate::flow::{FlowKey, Tuple};
use crate::plain::plain;
use crate::{TCP, conntrack, tcp};

/// Which of a pod's traffic is meant.
pub mod direction {
    /// What is opened by others.
    pub const INGRESS: u8 = 0;
    /// What the pod opens.
    pub const EGRESS: u8 = 1;
}

/// A pod of this node that policies select.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Policed {
    /// The rule table.
    pub table: u32,
    /// The epoch of decisions; never 0.
    pub epoch: u32,
    /// [`isolated`] bits.
    pub isolated: u32,
    /// The host's end of the pod's interface pair: nobody else may send with the pod's address.
    pub ifindex: u32,
}
plain!(Policed, 16);

/// In which directions a pod takes only what rules allow.
pub mod isolated {
    /// What others open.
    pub const INGRESS: u32 = 1;
    /// What it opens.
    pub const EGRESS: u32 = 2;
}

impl Policed {
    /// Whether rules decide about a direction.
    #[inline(always)]
    pub const fn is_isolated(&self, direction: u8) -> bool {
        self.isolated & (1 << direction) != 0
    }
}

/// Who a peer is, or may be.
pub mod peer {
    /// Not known as a pod or node: the identity of every address without an entry.
    pub const WORLD: u32 = 0;
    /// A node, and what runs in its network.
    pub const NODE: u32 = 1;
    /// The first identity of pods.
    pub const FIRST_POD: u32 = 16;
    /// A class of addresses has this bit.
    pub const CLASS: u32 = 1 << 31;
    /// In rules: every pod.
    pub const ANY_POD: u32 = CLASS - 1;
    /// In rules: everyone.
    pub const ANYONE: u32 = u32::MAX;

    /// Whether an identity is one of pods.
    #[inline(always)]
    pub const fn is_pod(identity: u32) -> bool {
        identity >= FIRST_POD && identity < ANY_POD
    }
}

/// The data of a longest-prefix key of rules. The table, peer and direction are always matched whole; then protocol
/// and port as far as the rule says.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RuleKey {
    /// The rule table.
    pub table: u32,
    /// Identity, class, [`peer::ANY_POD`] or [`peer::ANYONE`].
    pub peer: u32,
    /// [`direction`].
    pub direction: u8,
    /// The transport protocol's number.
    pub protocol: u8,
    /// The port of the side that was dialled.
    pub port_be: u16,
}
plain!(RuleKey, 12);

impl RuleKey {
    /// The bits of a rule for all protocols.
    pub const ANY_PROTOCOL: u32 = 32 + 32 + 8;
    /// The bits of a rule for all ports of a protocol; each bit more is one of the port.
    pub const ANY_PORT: u32 = Self::ANY_PROTOCOL + 8;
    /// The bits of a look-up, and of a rule for one port.
    pub const WHOLE: u32 = Self::ANY_PORT + 16;
}

/// The data of a longest-prefix key of address blocks.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BlockKey {
    /// The rule table.
    pub table: u32,
    /// [`direction`]; as wide as a word, so that nothing is between it and the address.
    pub direction: u32,
    /// The network.
    pub addr: Addr,
}
plain!(BlockKey, 24);

impl BlockKey {
    /// The bits before the address.
    pub const FIXED: u32 = 64;
    /// The bits of a look-up.
    pub const WHOLE: u32 = Self::FIXED + 128;
}

/// What has been decided about a flow.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Verdict {
    /// The epoch under which the pod that opened it was allowed to; 0: not asked.
    pub opener_epoch: u32,
    /// The epoch under which the pod that was dialled allowed it; 0: not asked.
    pub target_epoch: u32,
    /// When a packet was seen last, see [`conntrack::ticks`].
    pub seen_ticks: u32,
    /// [`conntrack::State`] bits.
    pub state: u8,
    /// 1: the lower end of the key opened it; 0: the higher.
    pub low_opened: u8,
    /// Always zero.
    pub zero: [u8; 2],
}
plain!(Verdict, 16);

/// Which end of a flow a pod is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It opened the flow.
    Opener,
    /// It was dialled.
    Target,
}

impl Role {
    /// The direction of the rules that decide.
    #[inline(always)]
    pub const fn direction(self) -> u8 {
        match self {
            Self::Opener => direction::EGRESS,
            Self::Target => direction::INGRESS,
        }
    }
}

/// Whether the packet's sender is the lower end of its flow's key.
#[inline(always)]
pub fn sender_is_low(key: &FlowKey, tuple: &Tuple) -> bool {
    key.low_port_be == tuple.src_port_be
        && key.low.words_be[3] == tuple.src.words_be[3]
        && key.low.words_be[2] == tuple.src.words_be[2]
        && key.low.words_be[1] == tuple.src.words_be[1]
        && key.low.words_be[0] == tuple.src.words_be[0]
}

impl Verdict {
    /// A flow that a packet opens.
    #[inline(always)]
    pub const fn opened(low_opened: bool, protocol: u8, tcp_flags: u8, now: u32) -> Self {
        Self {
            opener_epoch: 0,
            target_epoch: 0,
            seen_ticks: now,
            state: conntrack::advance(0, protocol, conntrack::Direction::Forward, tcp_flags),
            low_opened: low_opened as u8,
            zero: [0; 2],
        }
    }

    /// Which way a packet goes in this flow.
    #[inline(always)]
    pub const fn way(&self, sender_is_low: bool) -> conntrack::Direction {
        if (self.low_opened != 0) == sender_is_low {
            conntrack::Direction::Forward
        } else {
            conntrack::Direction::Reply
        }
    }

    /// Whether a packet opens another flow in the place of this one: a connection after one that ended, or one that
    /// the other side opens. Nothing that was decided holds for it.
    #[inline(always)]
    pub const fn is_over(&self, protocol: u8, way: conntrack::Direction, tcp_flags: u8) -> bool {
        let opens = protocol == TCP && tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
        match way {
            conntrack::Direction::Forward => reopens(self.state, protocol, way, tcp_flags),
            conntrack::Direction::Reply => opens,
        }
    }

    /// The epoch under which a pod has allowed the flow.
    #[inline(always)]
    pub const fn epoch_of(&self, role: Role) -> u32 {
        match role {
            Role::Opener => self.opener_epoch,
            Role::Target => self.target_epoch,
        }
    }
}

/// What was not let through, and how often. The least recently seen are forgotten.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeniedKey {
    /// The pod whose policies decided.
    pub pod: Addr,
    /// The other side.
    pub peer: Addr,
    /// The rule table.
    pub table: u32,
    /// [`direction`].
    pub direction: u8,
    /// The transport protocol's number.
    pub protocol: u8,
    /// The port that was dialled.
    pub port_be: u16,
}
plain!(DeniedKey, 40);

/// The value of the same map.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Denied {
    /// Packets.
    pub packets: u64,
    /// When the last one was.
    pub seen_ticks: u32,
    /// Always zero.
    pub zero: u32,
}
plain!(Denied, 16);

/// The peers under which rules may stand for an address, as they are looked up; [`peer::WORLD`] stands for nobody.
#[inline(always)]
pub const fn looked_up(identity: u32, class: u32) -> [u32; 4] {
    let pod = peer::is_pod(identity);
    [peer::ANYONE, identity, if pod { peer::ANY_POD } else { peer::WORLD }, class]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::Direction::{Forward, Reply};
    use crate::conntrack::State;
    use core::net::IpAddr;
    use proptest::prelude::*;

    fn tuple(src: &str, src_port: u16, dst: &str, dst_port: u16) -> Tuple {
        let addr = |text: &str| text.parse::<IpAddr>().expect("an address").into();
        Tuple { src: addr(src), dst: addr(dst), src_port_be: src_port.to_be(), dst_port_be: dst_port.to_be() }
    }

    #[test]
    fn who_opened_a_flow_is_known_from_both_sides() {
        let there = tuple("10.0.0.1", 4000, "10.0.0.2", 80);
        let key = FlowKey::new(&there, TCP);
        let verdict = Verdict::opened(sender_is_low(&key, &there), TCP, tcp::SYN, 5);
        assert_eq!(verdict.way(sender_is_low(&key, &there)), Forward);
        assert_eq!(verdict.way(sender_is_low(&key, &there.reversed())), Reply);
    }

    #[test]
    fn a_new_connection_in_an_old_ones_place_is_asked_for_again() {
        let mut verdict = Verdict::opened(true, TCP, tcp::SYN, 5);
        assert!(!verdict.is_over(TCP, Forward, tcp::SYN), "a repeated SYN");
        assert!(!verdict.is_over(TCP, Reply, tcp::SYN | tcp::ACK), "the answer");
        assert!(verdict.is_over(TCP, Reply, tcp::SYN), "the other side opens one");
        verdict.state |= State::RESET;
        assert!(verdict.is_over(TCP, Forward, tcp::SYN));
        assert!(!verdict.is_over(crate::UDP, Reply, 0));
    }

    #[test]
    fn peers_are_anyone_the_identity_any_pod_and_the_class() {
        let class = peer::CLASS | 3;
        assert_eq!(looked_up(20, class), [peer::ANYONE, 20, peer::ANY_POD, class]);
        assert_eq!(looked_up(peer::NODE, 0), [peer::ANYONE, peer::NODE, peer::WORLD, peer::WORLD]);
        assert_eq!(looked_up(peer::WORLD, 0), [peer::ANYONE, 0, 0, 0]);
    }

    #[test]
    fn a_direction_is_isolated_by_its_bit() {
        let policed = Policed { isolated: isolated::EGRESS, ..Policed::default() };
        assert!(policed.is_isolated(Role::Opener.direction()));
        assert!(!policed.is_isolated(Role::Target.direction()));
    }

    proptest! {
        #[test]
        fn exactly_one_end_is_the_lower(src: [u32; 4], dst: [u32; 4], src_port_be: u16, dst_port_be: u16) {
            let tuple = Tuple { src: Addr { words_be: src }, dst: Addr { words_be: dst }, src_port_be, dst_port_be };
            prop_assume!(tuple != tuple.reversed());
            let key = FlowKey::new(&tuple, TCP);
            prop_assert_ne!(sender_is_low(&key, &tuple), sender_is_low(&key, &tuple.reversed()));
        }
    }
}
