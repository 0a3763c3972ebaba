//! From bytes to a tuple.

use skep_ebpf_abi::flow::Tuple;
use skep_ebpf_abi::{Addr, ICMP, ICMP_V6, SCTP, TCP, UDP};

use crate::skb::{Bytes, Skb};
use crate::work::{Work, settled, work};

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
#[repr(C)]
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
    /// Whether this is the first of several fragments.
    pub first_fragment: bool,
    /// Of a fragment: the datagram's identification.
    pub id: u32,
}

impl Packet {
    /// Where the packet ends according to its own header; a frame may be longer.
    #[inline(always)]
    pub fn end<B: Bytes>(&self, skb: B) -> Option<u32> {
        let (at, header) = if self.v4 { (2, 0) } else { (4, 40) };
        let length: u16 = skb.load(self.l3 + at)?;
        Some(self.l3 + header + u32::from(u16::from_be(length)))
    }
}

/// Parses the packet of a hook; `None` is what does not concern us or is cut short. It is valid until the next one is
/// parsed.
#[inline(always)]
pub fn parse(skb: Skb) -> Option<&'static mut Work> {
    parse_as(skb, skb.protocol())
}

/// Parses a packet of this kind.
#[inline(always)]
pub fn parse_as<B: Bytes>(bytes: B, protocol: u32) -> Option<&'static mut Work> {
    let work = work()?;
    if protocol == ETH_V4 {
        parse_v4(bytes, L3, true, &mut work.packet)?;
    } else if protocol == ETH_V6 {
        parse_v6(bytes, L3, true, &mut work.packet)?;
    } else {
        return None;
    }
    Some(settled(work))
}

/// Parses the beginning of the packet that an ICMP error quotes.
#[inline(always)]
pub fn parse_quoted(skb: Skb, work: &mut Work) -> Option<&mut Work> {
    let at = work.packet.l4 + 8;
    if work.packet.v4 {
        parse_v4(skb, at, false, &mut work.quoted)?;
    } else {
        parse_v6(skb, at, false, &mut work.quoted)?;
    }
    Some(settled(work))
}

#[inline(always)]
fn parse_v4<B: Bytes>(skb: B, l3: u32, whole: bool, into: &mut Packet) -> Option<()> {
    let words: [u32; 5] = skb.load(l3)?;
    let first = words[0].to_ne_bytes();
    let header = u32::from(first[0] & 0x0f) * 4;
    if first[0] >> 4 != 4 || header < 20 {
        return None;
    }
    let [id_high, id_low, high, low] = words[1].to_ne_bytes();
    let place = u16::from_be_bytes([high, low]);
    let later_fragment = place & 0x1fff != 0;
    let protocol = words[2].to_ne_bytes()[1];
    let tuple = Tuple { src: Addr::v4(words[3]), dst: Addr::v4(words[4]), src_port_be: 0, dst_port_be: 0 };
    *into = Packet {
        tuple,
        l3,
        l4: l3 + header,
        v4: true,
        protocol,
        tcp_flags: 0,
        content: Content::Other,
        first_fragment: place & 0x3fff == 0x2000,
        id: u32::from(u16::from_ne_bytes([id_high, id_low])),
    };
    transport(skb, into, later_fragment, whole)
}

#[inline(always)]
fn parse_v6<B: Bytes>(skb: B, l3: u32, whole: bool, into: &mut Packet) -> Option<()> {
    let words: [u32; 10] = skb.load(l3)?;
    if words[0].to_ne_bytes()[0] >> 4 != 6 {
        return None;
    }
    let mut protocol = words[1].to_ne_bytes()[2];
    let mut l4 = l3 + 40;
    let (mut first_fragment, mut later_fragment, mut id) = (false, false, 0);
    // Hop-by-hop, routing, destination options, fragment: more than four in a packet is no honest traffic.
    for _ in 0..4 {
        match protocol {
            0 | 43 | 60 => {
                let header: [u8; 2] = skb.load(l4)?;
                protocol = header[0];
                l4 += (u32::from(header[1]) + 1) * 8;
            }
            44 => {
                let header: [u32; 2] = skb.load(l4)?;
                let [next, _, high, low] = header[0].to_ne_bytes();
                protocol = next;
                let place = u16::from_be_bytes([high, low]);
                later_fragment = place >> 3 != 0;
                first_fragment = place & 0xfff9 == 1;
                id = header[1];
                l4 += 8;
                if later_fragment {
                    break;
                }
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
    *into = Packet {
        tuple,
        l3,
        l4,
        v4: false,
        protocol,
        tcp_flags: 0,
        content: Content::Other,
        first_fragment,
        id,
    };
    transport(skb, into, later_fragment, whole)
}

#[inline(always)]
fn transport<B: Bytes>(skb: B, packet: &mut Packet, later_fragment: bool, whole: bool) -> Option<()> {
    if later_fragment {
        packet.content = Content::Fragment;
        return Some(());
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
    Some(())
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
