//! The life of a flow, as pure functions.
//!
//! The state is a set of bits that only grows until a new SYN starts over, so processors that race on it can at
//! worst lose a bit that the next packet sets again.

use crate::plain::plain;
use crate::{ICMP, ICMP_V6, TCP, UDP, tcp};

/// The unit of flow times: 2^30 ns, about 1.07 s, so that the kernel shifts in place of dividing.
#[inline(always)]
pub const fn ticks(nanoseconds: u64) -> u32 {
    (nanoseconds >> 30) as u32
}

/// The ticks that last at least `seconds`.
pub const fn ticks_of_seconds(seconds: u32) -> u32 {
    (seconds as u64 * 1_000_000_000).div_ceil(1 << 30) as u32
}

/// Which way a packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the client.
    Forward,
    /// To the client.
    Reply,
}

/// Bits of a flow's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State;

impl State {
    /// An answer was seen.
    pub const REPLIED: u8 = 1;
    /// TCP: the client has finished.
    pub const FIN_FORWARD: u8 = 2;
    /// TCP: the backend has finished.
    pub const FIN_REPLY: u8 = 4;
    /// TCP: one side has reset.
    pub const RESET: u8 = 8;
    /// TCP: the handshake is complete.
    pub const ESTABLISHED: u8 = 16;
    /// Any bit that says the connection ends.
    pub const CLOSING: u8 = Self::FIN_FORWARD | Self::FIN_REPLY | Self::RESET;
}

/// Whether a packet starts the flow over: a SYN on a connection that was ending. Its backend is chosen anew.
#[inline(always)]
pub const fn reopens(state: u8, protocol: u8, direction: Direction, flags: u8) -> bool {
    protocol == TCP
        && matches!(direction, Direction::Forward)
        && flags & (tcp::SYN | tcp::ACK) == tcp::SYN
        && state & State::CLOSING != 0
}

/// The state after a packet.
#[inline(always)]
pub const fn advance(state: u8, protocol: u8, direction: Direction, flags: u8) -> u8 {
    let mut next = state;
    if matches!(direction, Direction::Reply) {
        next |= State::REPLIED;
    }
    if protocol != TCP {
        return next;
    }
    if flags & tcp::SYN == 0 && matches!(direction, Direction::Forward) && state & State::REPLIED != 0 {
        next |= State::ESTABLISHED;
    }
    if flags & tcp::FIN != 0 {
        next |= if matches!(direction, Direction::Forward) { State::FIN_FORWARD } else { State::FIN_REPLY };
    }
    if flags & tcp::RST != 0 {
        next |= State::RESET;
    }
    next
}

/// How long flows live without a packet, in ticks.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timeouts {
    /// TCP before the handshake is complete.
    pub tcp_opening: u32,
    /// TCP with data; longer than the two hours after which keep-alives begin.
    pub tcp_established: u32,
    /// TCP after a FIN or reset.
    pub tcp_closing: u32,
    /// UDP without an answer.
    pub udp: u32,
    /// UDP with answers.
    pub udp_replied: u32,
    /// Echo requests.
    pub icmp: u32,
    /// Everything else.
    pub other: u32,
}
plain!(Timeouts, 28);

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_opening: ticks_of_seconds(60),
            tcp_established: ticks_of_seconds(8000),
            tcp_closing: ticks_of_seconds(10),
            udp: ticks_of_seconds(30),
            udp_replied: ticks_of_seconds(120),
            icmp: ticks_of_seconds(30),
            other: ticks_of_seconds(600),
        }
    }
}

impl Timeouts {
    /// The time a flow in `state` may be silent.
    #[inline(always)]
    pub const fn of(&self, state: u8, protocol: u8) -> u32 {
        match protocol {
            TCP if state & State::RESET != 0 => self.tcp_closing,
            // Half closed: the other side may still send for long.
            TCP if state & State::CLOSING == State::FIN_FORWARD | State::FIN_REPLY => self.tcp_closing,
            TCP if state & State::ESTABLISHED != 0 => self.tcp_established,
            TCP => self.tcp_opening,
            UDP if state & State::REPLIED != 0 => self.udp_replied,
            UDP => self.udp,
            ICMP | ICMP_V6 => self.icmp,
            _ => self.other,
        }
    }

    /// Whether a flow last seen at `seen` is over at `now`. Times are compared by difference, so they may wrap; a
    /// packet seen "after now" by another processor is not old.
    #[inline(always)]
    pub const fn expired(&self, state: u8, protocol: u8, seen: u32, now: u32) -> bool {
        let silent = now.wrapping_sub(seen) as i32;
        silent > 0 && silent as u32 > self.of(state, protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn walk(packets: &[(Direction, u8)]) -> u8 {
        packets.iter().fold(0, |state, &(direction, flags)| advance(state, TCP, direction, flags))
    }

    use Direction::{Forward, Reply};

    #[test]
    fn a_handshake_establishes() {
        let state = walk(&[(Forward, tcp::SYN), (Reply, tcp::SYN | tcp::ACK)]);
        assert_eq!(Timeouts::default().of(state, TCP), Timeouts::default().tcp_opening);
        let state = walk(&[(Forward, tcp::SYN), (Reply, tcp::SYN | tcp::ACK), (Forward, tcp::ACK)]);
        assert_eq!(Timeouts::default().of(state, TCP), Timeouts::default().tcp_established);
    }

    #[test]
    fn one_fin_keeps_the_long_timeout_and_two_end_it() {
        let open = [
            (Forward, tcp::SYN),
            (Reply, tcp::SYN | tcp::ACK),
            (Forward, tcp::ACK),
            (Forward, tcp::FIN | tcp::ACK),
        ];
        let timeouts = Timeouts::default();
        assert_eq!(timeouts.of(walk(&open), TCP), timeouts.tcp_established);
        let mut both = open.to_vec();
        both.push((Reply, tcp::FIN | tcp::ACK));
        assert_eq!(timeouts.of(walk(&both), TCP), timeouts.tcp_closing);
    }

    #[test]
    fn a_lone_reset_ends_the_flow() {
        let timeouts = Timeouts::default();
        assert_eq!(timeouts.of(walk(&[(Forward, tcp::SYN), (Reply, tcp::RST)]), TCP), timeouts.tcp_closing);
    }

    #[test]
    fn a_syn_reopens_only_what_was_ending() {
        assert!(reopens(State::RESET, TCP, Forward, tcp::SYN));
        assert!(!reopens(State::ESTABLISHED, TCP, Forward, tcp::SYN), "a repeated SYN is no new connection");
        assert!(!reopens(State::RESET, TCP, Reply, tcp::SYN | tcp::ACK));
        assert!(!reopens(State::RESET, UDP, Forward, tcp::SYN));
    }

    #[test]
    fn ticks_are_never_shorter_than_the_seconds_asked_for() {
        for seconds in [1, 10, 30, 7200, 8000, 10_800, 86_400] {
            assert!(u64::from(ticks_of_seconds(seconds)) << 30 >= u64::from(seconds) * 1_000_000_000);
        }
    }

    proptest! {
        #[test]
        fn bits_only_grow(state: u8, protocol: u8, flags: u8, reply: bool) {
            let direction = if reply { Reply } else { Forward };
            prop_assert_eq!(advance(state, protocol, direction, flags) & state, state);
        }

        #[test]
        fn a_flow_just_seen_never_expires_even_when_times_wrap(state: u8, protocol: u8, now: u32, skew in 0u32..1000) {
            prop_assert!(!Timeouts::default().expired(state, protocol, now, now));
            prop_assert!(!Timeouts::default().expired(state, protocol, now.wrapping_add(skew), now));
        }
    }
}
