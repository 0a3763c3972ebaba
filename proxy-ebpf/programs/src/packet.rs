//! From bytes to a tuple.

#![allow(missing_docs)] // The macro generates an undocumented item beside each documented one.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use skep_ebpf_abi::flow::Tuple;
use skep_ebpf_abi::{Addr, ICMP, ICMP_V6, SCTP, TCP, UDP};

use crate::skb::Skb;

/// The length of an Ethernet header.
pub const L3: u32 = 14;

/// IPv4, as packet buffers name it.
pub const ETH_V4: u32 = 0x0800_u16.to_be() as u32;
/// IPv6.
pub const ETH_V6: u32 = 0x86dd_u16.to_be() as u32;

/// What a packet carries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Ports, or an echo's identifier.
    Flow,
    /// An ICMP error about another packet.
    IcmpError,
    /// A later fragment: no ports.
    Fragment,
    /// Something without ports.
    Other,
}

/// A parsed packet, or the packet inside an ICMP error.
#[derive(Clone, Copy)]
pub struct Packet {
    /// Who sends to whom.
    pub tuple: Tuple,
    /// Where the network header begins.
    pub l3: u32,
    /// Where the transport header begins.
    pub l4: u32,
    /// IPv4 or IPv6.
    pub v4: bool,
    /// The transport protocol's number.
    pub protocol: u8,
    /// TCP flags; 0 otherwise.
    pub tcp_flags: u8,
    /// What follows.
    pub content: Content,
}

/// The packet of this run and the one that it quotes: programs are not preempted, so each processor has one of each.
/// On the stack, of which a chain of functions has 512 bytes, there is no room for both.
#[map(name = "packets")]
static PACKETS: PerCpuArray<Packet> = PerCpuArray::with_max_entries(2, 0);
const OWN: u32 = 0;
const QUOTED: u32 = 1;

/// Parses the packet of a hook; `None` is what does not concern us or is cut short. The packet is valid until the
/// next one is parsed.
#[inline(always)]
pub fn parse(skb: Skb) -> Option<&'static Packet> {
    let v4 = skb.protocol() == ETH_V4;
    if v4 || skb.protocol() == ETH_V6 { parse_into(skb, OWN, L3, v4) } else { None }
}

/// Parses the beginning of a packet that an ICMP error quotes.
#[inline(always)]
pub fn parse_quoted(skb: Skb, offset: u32, v4: bool) -> Option<&'static Packet> {
    parse_into(skb, QUOTED, offset, v4)
}

// A function of its own, like the other large ones: what they need on the stack is free again when they return.
#[inline(never)]
fn parse_into(skb: Skb, place: u32, l3: u32, v4: bool) -> Option<&'static Packet> {
    let packet = PACKETS.get_ptr_mut(place)?;
    // SAFETY: this processor's own value, and the program is not preempted.
    let packet = unsafe { &mut *packet };
    let whole = place == OWN;
    *packet = if v4 { parse_v4(skb, l3, whole)? } else { parse_v6(skb, l3, whole)? };
    Some(packet)
}

#[inline(always)]
fn parse_v4(skb: Skb, l3: u32, whole: bool) -> Option<Packet> {
    let words: [u32; 5] = skb.load(l3)?;
    let first = words[0].to_ne_bytes();
    let header = u32::from(first[0] & 0x0f) * 4;
    if first[0] >> 4 != 4 || header < 20 {
        return None;
    }
    let second = words[1].to_ne_bytes();
    let later_fragment = (u16::from_be_bytes([second[2], second[3]]) & 0x1fff) != 0;
    let protocol = words[2].to_ne_bytes()[1];
    let tuple = Tuple { src: Addr::v4(words[3]), dst: Addr::v4(words[4]), src_port_be: 0, dst_port_be: 0 };
    let packet =
        Packet { tuple, l3, l4: l3 + header, v4: true, protocol, tcp_flags: 0, content: Content::Other };
    transport(skb, packet, later_fragment, whole)
}

#[inline(always)]
fn parse_v6(skb: Skb, l3: u32, whole: bool) -> Option<Packet> {
    let words: [u32; 10] = skb.load(l3)?;
    if words[0].to_ne_bytes()[0] >> 4 != 6 {
        return None;
    }
    let mut protocol = words[1].to_ne_bytes()[2];
    let mut l4 = l3 + 40;
    let mut later_fragment = false;
    // Hop-by-hop, routing, destination options, fragment: more than four in a packet is no honest traffic.
    for _ in 0..4 {
        match protocol {
            0 | 43 | 60 => {
                let header: [u8; 2] = skb.load(l4)?;
                protocol = header[0];
                l4 += (u32::from(header[1]) + 1) * 8;
            }
            44 => {
                let header: [u8; 4] = skb.load(l4)?;
                protocol = header[0];
                later_fragment = u16::from_be_bytes([header[2], header[3]]) >> 3 != 0;
                l4 += 8;
            }
            _ => break,
        }
    }
    let tuple = Tuple {
        src: Addr::v6([words[2], words[3], words[4], words[5]]),
        dst: Addr::v6([words[6], words[7], words[8], words[9]]),
        src_port_be: 0,
        dst_port_be: 0,
    };
    let packet = Packet { tuple, l3, l4, v4: false, protocol, tcp_flags: 0, content: Content::Other };
    transport(skb, packet, later_fragment, whole)
}

#[inline(always)]
fn transport(skb: Skb, mut packet: Packet, later_fragment: bool, whole: bool) -> Option<Packet> {
    if later_fragment {
        packet.content = Content::Fragment;
        return Some(packet);
    }
    match packet.protocol {
        TCP | UDP | SCTP => {
            let ports: [u16; 2] = skb.load(packet.l4)?;
            packet.tuple.src_port_be = ports[0];
            packet.tuple.dst_port_be = ports[1];
            packet.content = Content::Flow;
            // A quoted packet may end after eight bytes.
            if packet.protocol == TCP && whole {
                packet.tcp_flags = skb.load(packet.l4 + 13)?;
            }
        }
        ICMP | ICMP_V6 => {
            let header: [u8; 8] = skb.load(packet.l4)?;
            packet.content = icmp_content(packet.protocol, header[0]);
            if packet.content == Content::Flow {
                let identifier_be = u16::from_ne_bytes([header[4], header[5]]);
                packet.tuple.src_port_be = identifier_be;
                packet.tuple.dst_port_be = identifier_be;
            }
        }
        _ => {}
    }
    Some(packet)
}

#[inline(always)]
fn icmp_content(protocol: u8, kind: u8) -> Content {
    if protocol == ICMP {
        match kind {
            0 | 8 => Content::Flow,
            // Unreachable (also "too big"), quench, redirect, time exceeded, bad parameter.
            3 | 4 | 5 | 11 | 12 => Content::IcmpError,
            _ => Content::Other,
        }
    } else {
        match kind {
            128 | 129 => Content::Flow,
            1..=4 => Content::IcmpError,
            _ => Content::Other,
        }
    }
}
