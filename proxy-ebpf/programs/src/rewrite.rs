//! Writing a new tuple into a packet with every checksum repaired.

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use skep_ebpf_abi::crc32c::replace_first;
use skep_ebpf_abi::flow::Tuple;
use skep_ebpf_abi::{ICMP, ICMP_V6, SCTP, TCP, UDP};

use crate::packet::{Content, Packet};
use crate::skb::{Bytes, Refused, Skb, difference};
use crate::work::Work;

/// Where a transport header keeps its checksum, and how the helper is to treat it.
#[inline(always)]
pub fn checksum(protocol: u8) -> Option<(u32, u64)> {
    match protocol {
        TCP => Some((16, 0)),
        // A UDP checksum of zero means "none" and stays so.
        UDP => Some((6, u64::from(BPF_F_MARK_MANGLED_0))),
        ICMP | ICMP_V6 => Some((2, 0)),
        _ => None,
    }
}

/// Both addresses of an IPv4 header, or both of an IPv6 header, as they lie in the packet.
#[inline(always)]
fn v4_pair(tuple: &Tuple) -> [u32; 2] {
    [tuple.src.v4_word_be(), tuple.dst.v4_word_be()]
}

/// Makes the packet what it is to become; 0, or an error of which the packet is the victim.
#[inline(never)]
pub fn rewrite(skb: Skb, work: &Work) -> i32 {
    if try_rewrite(skb, &work.packet, &work.to).is_ok() { 0 } else { -1 }
}

#[inline(always)]
fn try_rewrite(skb: Skb, packet: &Packet, to: &Tuple) -> Result<(), Refused> {
    let from = &packet.tuple;
    let delta = address_difference(packet.v4, from, to);
    if packet.content == Content::Fragment {
        // The transport header is in the first fragment, and the change of the whole datagram's checksum with it.
        return rewrite_network(skb, packet, to, delta);
    }
    // ICMP has no pseudo header in IPv4.
    let covered = !(packet.v4 && packet.protocol == ICMP);
    if let Some((offset, flags)) = checksum(packet.protocol) {
        let at = packet.l4 + offset;
        if covered {
            skb.fix_l4(at, 0, u64::from(delta), u64::from(BPF_F_PSEUDO_HDR) | flags)?;
        }
        rewrite_ports(skb, packet, to, at, flags)?;
    } else if from.src_port_be != to.src_port_be || from.dst_port_be != to.dst_port_be {
        rewrite_sctp(skb, packet, to)?;
    }
    rewrite_network(skb, packet, to, delta)
}

#[inline(always)]
fn rewrite_network(skb: Skb, packet: &Packet, to: &Tuple, delta: u32) -> Result<(), Refused> {
    write_addresses(skb, packet.v4, packet.l3, to)?;
    if packet.v4 { skb.fix_l3(packet.l3 + 10, delta) } else { Ok(()) }
}

/// What the checksums must be changed by for the addresses.
#[inline(always)]
pub fn address_difference(v4: bool, from: &Tuple, to: &Tuple) -> u32 {
    if v4 {
        difference(&v4_pair(from), &v4_pair(to))
    } else {
        difference(&[from.src, from.dst], &[to.src, to.dst])
    }
}

/// Stores both addresses of a header at `l3`.
#[inline(always)]
pub fn write_addresses<B: Bytes>(skb: B, v4: bool, l3: u32, to: &Tuple) -> Result<(), Refused> {
    if v4 { skb.store(l3 + 12, &v4_pair(to)) } else { skb.store(l3 + 8, &[to.src, to.dst]) }
}

/// SCTP's checksum covers the ports and no addresses.
#[inline(always)]
fn rewrite_sctp(skb: Skb, packet: &Packet, to: &Tuple) -> Result<(), Refused> {
    if packet.protocol != SCTP || packet.first_fragment {
        // Of a fragment nothing tells how long the whole datagram is.
        return Err(Refused);
    }
    let word = |ports: [u16; 2]| {
        let ([a, b], [c, d]) = (ports[0].to_ne_bytes(), ports[1].to_ne_bytes());
        u32::from_ne_bytes([a, b, c, d])
    };
    let ports = [to.src_port_be, to.dst_port_be];
    let before: u32 = skb.load(packet.l4 + 8).ok_or(Refused)?;
    // Zero is what a device will complete, from the packet as it leaves.
    if before != 0 {
        let length = packet.end(skb).ok_or(Refused)?.wrapping_sub(packet.l4) as u16;
        let from = word([packet.tuple.src_port_be, packet.tuple.dst_port_be]);
        skb.store(packet.l4 + 8, &replace_first(before, length, from, word(ports)))?;
    }
    skb.store(packet.l4, &ports)
}

#[inline(always)]
fn rewrite_ports(skb: Skb, packet: &Packet, to: &Tuple, checksum: u32, flags: u64) -> Result<(), Refused> {
    let from = &packet.tuple;
    if packet.protocol == ICMP || packet.protocol == ICMP_V6 {
        // An echo has one identifier; of the two ports the one that the other side cannot choose is kept in both.
        let identifier = if to.src_port_be == from.src_port_be { to.dst_port_be } else { to.src_port_be };
        if identifier != from.src_port_be {
            skb.fix_l4(checksum, u64::from(from.src_port_be), u64::from(identifier), 2)?;
            skb.store(packet.l4 + 4, &identifier)?;
        }
        return Ok(());
    }
    if from.src_port_be != to.src_port_be {
        skb.fix_l4(checksum, u64::from(from.src_port_be), u64::from(to.src_port_be), flags | 2)?;
    }
    if from.dst_port_be != to.dst_port_be {
        skb.fix_l4(checksum, u64::from(from.dst_port_be), u64::from(to.dst_port_be), flags | 2)?;
    }
    skb.store(packet.l4, &[to.src_port_be, to.dst_port_be])
}
