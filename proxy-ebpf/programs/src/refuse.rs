//! Telling a client that nobody serves what it dials: a TCP reset, or an ICMP error "port unreachable".
//!
//! The answer is made of the packet itself, without any state. Nothing tells a program whether the packet's transport
//! checksum is complete or still to be completed by a device (as it is for what a pod sends), so the answer must be
//! right in both cases:
//! - A reset keeps the packet's length; all that changes is told to the kernel as differences, which it applies where
//!   the checksum is complete.
//! - An error quotes a UDP header with a checksum that completing would leave as it is. Nobody verifies it there.

use aya_ebpf::bindings::{TC_ACT_SHOT, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC};
use skep_ebpf_abi::counter::Counter;
use skep_ebpf_abi::flow::Tuple;
use skep_ebpf_abi::node::endpoint;
use skep_ebpf_abi::sum::{fixed_point, fold, pair, word};
use skep_ebpf_abi::{ICMP, ICMP_V6, SCTP, TCP, UDP, tcp};

use crate::count::count;
use crate::limit::may_send_error;
use crate::packet::{L3, Packet};
use crate::rewrite::write_addresses;
use crate::route::{local, to_pod};
use crate::skb::{Refused, Skb, difference};
use crate::too_big::swap_hardware_addresses;
use crate::work::Work;

const HOPS: u8 = 64;

/// Answers a packet that nobody serves; the verdict.
#[inline(never)]
pub fn refuse(skb: Skb, work: &Work) -> i32 {
    let packet = &work.packet;
    let made = if packet.protocol == TCP {
        // The client's next try is short enough.
        if packet.tcp_flags & tcp::RST != 0 || skb.gso_size() != 0 {
            Err(Refused)
        } else {
            reset(skb, packet)
        }
    } else if may_send_error() {
        unreachable(skb, packet)
    } else {
        Err(Refused)
    };
    if made.is_err() {
        count(Counter::DropNoBackend);
        return TC_ACT_SHOT;
    }
    count(Counter::Rejected);
    match local(&packet.tuple.src) {
        Some(pod) if pod.flags & endpoint::HOST == 0 => to_pod(skb, pod),
        _ => skb.send_back(),
    }
}

/// RFC 9293, 3.10.7.1. What the packet carried follows the reset as data, which nobody reads.
#[inline(always)]
fn reset(skb: Skb, packet: &Packet) -> Result<(), Refused> {
    let before: [u32; 3] = skb.load(packet.l4 + 4).ok_or(Refused)?;
    let [offset, flags, _, _] = before[2].to_ne_bytes();
    let after = if flags & tcp::ACK != 0 {
        [before[1], 0, u32::from_ne_bytes([0x50, tcp::RST, 0, 0])]
    } else {
        let header = u32::from(offset >> 4) * 4;
        let carried = packet.end(skb).ok_or(Refused)?.wrapping_sub(packet.l4 + header);
        let taken = carried + u32::from(flags & tcp::SYN != 0) + u32::from(flags & tcp::FIN != 0);
        let acknowledged = u32::from_be(before[0]).wrapping_add(taken);
        [0, acknowledged.to_be(), u32::from_ne_bytes([0x50, tcp::RST | tcp::ACK, 0, 0])]
    };
    skb.fix_l4(packet.l4 + 16, 0, u64::from(difference(&before, &after)), 0)?;
    skb.store(packet.l4 + 4, &after)?;
    // Both ways round the sums over addresses and ports are the same.
    let back = packet.tuple.reversed();
    skb.store(packet.l4, &[back.src_port_be, back.dst_port_be])?;
    write_addresses(skb, packet.v4, packet.l3, &back)?;
    set_hops(skb, packet)?;
    swap_hardware_addresses(skb)
}

#[inline(always)]
fn set_hops(skb: Skb, packet: &Packet) -> Result<(), Refused> {
    if !packet.v4 {
        return skb.store(packet.l3 + 7, &HOPS);
    }
    let before: u16 = skb.load(packet.l3 + 8).ok_or(Refused)?;
    let after = u16::from_ne_bytes([HOPS, before.to_ne_bytes()[1]]);
    skb.fix_l3(packet.l3 + 10, difference(&[u32::from(before)], &[u32::from(after)]))?;
    skb.store(packet.l3 + 8, &after)
}

/// An error that quotes the network header and the beginning of the transport header.
#[inline(always)]
fn unreachable(skb: Skb, packet: &Packet) -> Result<(), Refused> {
    // SCTP's checksum lies behind the eight bytes that an error must quote, and may not be cut off.
    let quoted = if packet.protocol == SCTP { 12 } else { 8 };
    skb.set_length(packet.l4 + quoted)?;
    if packet.protocol == UDP {
        settle_checksum(skb, packet)?;
    }
    let words: [u32; 2] = skb.load(packet.l4).ok_or(Refused)?;
    let mut transport = word(words[0]) + word(words[1]);
    if packet.protocol == SCTP {
        transport += word(skb.load(packet.l4 + 8).ok_or(Refused)?);
    }
    swap_hardware_addresses(skb)?;
    let back = packet.tuple.reversed();
    if packet.v4 {
        let length = 28 + packet.l4 - L3 + quoted;
        skb.make_room(28, BPF_ADJ_ROOM_MAC)?;
        // The quoted header's checksum makes the sum over all of it zero.
        answer_v4(skb, &back, length as u16, transport)
    } else {
        let length = packet.l4 - L3 + quoted;
        let network = sum_v6(skb, packet.l4)?;
        skb.make_room(48, BPF_ADJ_ROOM_MAC)?;
        answer_v6(skb, &back, length, transport + network)
    }
}

/// Writes a checksum into the UDP header that does not change when it is taken for one to be completed.
#[inline(always)]
fn settle_checksum(skb: Skb, packet: &Packet) -> Result<(), Refused> {
    let [ports, rest]: [u32; 2] = skb.load(packet.l4).ok_or(Refused)?;
    let [high, low, x, y] = rest.to_ne_bytes();
    if x == 0 && y == 0 {
        return Ok(());
    }
    let others = word(ports) + u32::from(u16::from_ne_bytes([high, low]));
    skb.store(packet.l4 + 6, &fixed_point(others))
}

#[inline(always)]
fn answer_v4(skb: Skb, to: &Tuple, length: u16, quoted: u32) -> Result<(), Refused> {
    const START: u32 = pair([0x45, 0], [0, 0]);
    let mut header = [
        START | pair([0, 0], length.to_be_bytes()),
        // Don't fragment; with it the identification says nothing.
        pair([0, 0], [0x40, 0]),
        pair([HOPS, ICMP], [0, 0]),
        to.src.v4_word_be(),
        to.dst.v4_word_be(),
    ];
    let total = word(header[0]) + word(header[1]) + word(header[2]) + word(header[3]) + word(header[4]);
    header[2] |= pair([0, 0], fold(total).to_ne_bytes());
    // Destination unreachable: port.
    let kind = pair([3, 3], [0, 0]);
    let icmp = [kind | pair([0, 0], fold(word(kind) + quoted).to_ne_bytes()), 0];
    skb.store(L3, &header)?;
    skb.store(L3 + 20, &icmp)
}

#[inline(always)]
fn answer_v6(skb: Skb, to: &Tuple, quoted_length: u32, quoted: u32) -> Result<(), Refused> {
    let length = 8 + quoted_length;
    let (src, dst) = (to.src.words_be, to.dst.words_be);
    let header = [
        pair([0x60, 0], [0, 0]),
        pair((length as u16).to_be_bytes(), [ICMP_V6, HOPS]),
        src[0],
        src[1],
        src[2],
        src[3],
        dst[0],
        dst[1],
        dst[2],
        dst[3],
    ];
    let mut pseudo = word(length.to_be()) + word(u32::from(ICMP_V6).to_be());
    for address_word in [src, dst].as_flattened() {
        pseudo += word(*address_word);
    }
    // Destination unreachable: port.
    let kind = pair([1, 4], [0, 0]);
    let icmp = [kind | pair([0, 0], fold(word(kind) + quoted + pseudo).to_ne_bytes()), 0];
    skb.store(L3, &header)?;
    skb.store(L3 + 40, &icmp)
}

/// The sum over an IPv6 header with its extensions; none with more of these than honest traffic has.
#[inline(always)]
fn sum_v6(skb: Skb, l4: u32) -> Result<u32, Refused> {
    let mut total = 0;
    let mut at = L3;
    for _ in 0..16 {
        let words: [u32; 2] = skb.load(at).ok_or(Refused)?;
        total += word(words[0]) + word(words[1]);
        at += 8;
        if at == l4 {
            return Ok(total);
        }
    }
    Err(Refused)
}
