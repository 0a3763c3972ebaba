//! ICMP errors about translated packets: without them path-MTU discovery and "port unreachable" die at the service.
//!
//! An error quotes the packet it is about, which travelled the other way. The quoted addresses and ports are turned
//! into those that the receiver of the error knows, and the error itself is sent to that receiver.

#![allow(missing_docs)] // The macro generates an undocumented item beside each documented one.

use aya_ebpf::bindings::{BPF_F_PSEUDO_HDR, TC_ACT_OK, TC_ACT_SHOT};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use skep_ebpf_abi::ICMP;
use skep_ebpf_abi::counter::Counter;
use skep_ebpf_abi::flow::{FlowKey, Tuple};

use crate::count::count;
use crate::flows::{same, same_addr};
use crate::maps::{FLOW_INDEX, FLOWS};
use crate::packet::{Content, Packet, parse_quoted};
use crate::rewrite::{address_difference, write_addresses};
use crate::route::deliver;
use crate::skb::{Refused, Skb};

/// The new form of the quoted packet and of the error's own addresses.
struct Turned {
    quoted: Tuple,
    error: Tuple,
}

/// Where it is kept: too large for the stack.
#[map(name = "turned")]
static TURNED: PerCpuArray<Turned> = PerCpuArray::with_max_entries(1, 0);

/// Handles an error that enters the node.
#[inline(never)]
pub fn error(skb: Skb, packet: &Packet) -> i32 {
    let Some(quoted) = quoted_flow(skb, packet) else { return TC_ACT_OK };
    let Some(turned) = turn(packet, quoted) else { return TC_ACT_OK };
    if apply(skb, packet, quoted, turned).is_err() {
        count(Counter::DropRewrite);
        return TC_ACT_SHOT;
    }
    count(Counter::IcmpTranslated);
    deliver(skb, packet, &turned.error)
}

/// Handles an error that the node itself sends, for example a backend in the host's namespace.
#[inline(always)]
pub fn error_out(skb: Skb, packet: &Packet) -> i32 {
    let Some(quoted) = quoted_flow(skb, packet) else { return TC_ACT_OK };
    let Some(turned) = turn(packet, quoted) else { return TC_ACT_OK };
    if apply(skb, packet, quoted, turned).is_err() {
        count(Counter::DropRewrite);
        return TC_ACT_SHOT;
    }
    count(Counter::IcmpTranslated);
    TC_ACT_OK
}

#[inline(always)]
fn quoted_flow(skb: Skb, packet: &Packet) -> Option<&'static Packet> {
    let quoted = parse_quoted(skb, packet.l4 + 8, packet.v4)?;
    if quoted.content == Content::Flow { Some(quoted) } else { None }
}

#[inline(never)]
fn turn(packet: &Packet, quoted: &Packet) -> Option<&'static Turned> {
    let turned = TURNED.get_ptr_mut(0)?;
    // SAFETY: this processor's own value, and the program is not preempted.
    let turned = unsafe { &mut *turned };
    let key = FlowKey::new(&quoted.tuple, quoted.protocol);
    // SAFETY: the value is only read.
    if let Some(flow) = unsafe { FLOWS.get(key) } {
        // About a packet on its way to the backend: the client must see what it sent.
        if !same(&quoted.tuple, &flow.inner) {
            return None;
        }
        let by_backend = same_addr(&packet.tuple.src, &flow.inner.dst);
        let src = if by_backend { flow.outer.dst } else { packet.tuple.src };
        turned.quoted = flow.outer;
        turned.error = Tuple { src, dst: flow.outer.src, ..packet.tuple };
        return Some(turned);
    }
    // SAFETY: the values are only read.
    let flow = unsafe { FLOWS.get(FLOW_INDEX.get(key)?) }?;
    // About an answer on its way to the client: the backend must see what it sent.
    if !same(&quoted.tuple, &flow.outer.reversed()) {
        return None;
    }
    let by_client = same_addr(&packet.tuple.src, &flow.outer.src);
    let src = if by_client { flow.inner.src } else { packet.tuple.src };
    turned.quoted = flow.inner.reversed();
    turned.error = Tuple { src, dst: flow.inner.dst, ..packet.tuple };
    Some(turned)
}

#[inline(never)]
fn apply(skb: Skb, packet: &Packet, quoted: &Packet, turned: &Turned) -> Result<(), Refused> {
    let checksum = packet.l4 + 2;
    let inside = address_difference(packet.v4, &quoted.tuple, &turned.quoted);
    let outside = address_difference(packet.v4, &packet.tuple, &turned.error);
    write_addresses(skb, packet.v4, quoted.l3, &turned.quoted)?;
    if packet.v4 {
        // The quoted header's own checksum takes up the change, so the sum over the quoted header stays what it was.
        skb.fix_l3(quoted.l3 + 10, inside)?;
    } else {
        skb.fix_l4(checksum, 0, u64::from(inside), 0)?;
    }
    quote_ports(skb, quoted, &turned.quoted, checksum)?;

    if packet.v4 {
        skb.fix_l3(packet.l3 + 10, outside)?;
    } else {
        skb.fix_l4(checksum, 0, u64::from(outside), u64::from(BPF_F_PSEUDO_HDR))?;
    }
    write_addresses(skb, packet.v4, packet.l3, &turned.error)
}

/// The quoted transport checksum is left alone: it may be cut off, and nobody verifies it.
#[inline(always)]
fn quote_ports(skb: Skb, quoted: &Packet, to: &Tuple, checksum: u32) -> Result<(), Refused> {
    let from = &quoted.tuple;
    if quoted.protocol == ICMP || quoted.protocol == skep_ebpf_abi::ICMP_V6 {
        if from.src_port_be != to.src_port_be {
            skb.fix_l4(checksum, u64::from(from.src_port_be), u64::from(to.src_port_be), 2)?;
            skb.store(quoted.l4 + 4, &to.src_port_be)?;
        }
        return Ok(());
    }
    if from.src_port_be != to.src_port_be {
        skb.fix_l4(checksum, u64::from(from.src_port_be), u64::from(to.src_port_be), 2)?;
    }
    if from.dst_port_be != to.dst_port_be {
        skb.fix_l4(checksum, u64::from(from.dst_port_be), u64::from(to.dst_port_be), 2)?;
    }
    skb.store(quoted.l4, &[to.src_port_be, to.dst_port_be])
}
