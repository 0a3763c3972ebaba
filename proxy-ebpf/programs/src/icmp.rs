//! ICMP errors about translated packets: without them path-MTU discovery and "port unreachable" die at the service.
//!
//! An error quotes the packet it is about, which travelled the other way. The quoted addresses and ports are turned
//! into those that the receiver of the error knows, and the error itself is sent to that receiver.

use aya_ebpf::bindings::{BPF_F_PSEUDO_HDR, TC_ACT_OK, TC_ACT_SHOT};
use skep_ebpf_abi::ICMP;
use skep_ebpf_abi::counter::Counter;
use skep_ebpf_abi::flow::{FlowKey, Tuple};

use crate::count::count;
use crate::flows::{same, same_addr};
use crate::maps::{FLOW_INDEX, FLOWS};
use crate::packet::{Content, Packet, parse_quoted};
use crate::rewrite::{address_difference, write_addresses};
use crate::skb::{Refused, Skb};
use crate::work::{Work, settled};

/// The error was translated; whoever asked sends it on.
pub const TRANSLATED: i32 = -1;

/// Translates an error. The verdict of one that was not, or [`TRANSLATED`].
#[inline(never)]
pub fn error(skb: Skb, work: &mut Work) -> i32 {
    let Some(work) = parse_quoted(skb, work) else { return TC_ACT_OK };
    if work.quoted.content != Content::Flow || turn(work).is_none() {
        return TC_ACT_OK;
    }
    if apply(skb, settled(work)).is_err() {
        count(Counter::DropRewrite);
        return TC_ACT_SHOT;
    }
    count(Counter::IcmpTranslated);
    TRANSLATED
}

/// Finds the new form of the quoted packet and of the error's own addresses.
#[inline(always)]
fn turn(work: &mut Work) -> Option<()> {
    let (packet, quoted) = (&work.packet, &work.quoted);
    let key = FlowKey::new(&quoted.tuple, quoted.protocol);
    work.to = packet.tuple;
    // SAFETY: the value is only read.
    if let Some(flow) = unsafe { FLOWS.get(key) } {
        // About a packet on its way to the backend: the client must see what it sent.
        if !same(&quoted.tuple, &flow.inner) {
            return None;
        }
        if same_addr(&packet.tuple.src, &flow.inner.dst) {
            work.to.src = flow.outer.dst;
        }
        work.to.dst = flow.outer.src;
        work.quoted_to = flow.outer;
        return Some(());
    }
    // SAFETY: the values are only read.
    let flow = unsafe { FLOWS.get(FLOW_INDEX.get(key)?) }?;
    // About an answer on its way to the client: the backend must see what it sent.
    if !same(&quoted.tuple, &flow.outer.reversed()) {
        return None;
    }
    if same_addr(&packet.tuple.src, &flow.outer.src) {
        work.to.src = flow.inner.src;
    }
    work.to.dst = flow.inner.dst;
    work.quoted_to = flow.inner.reversed();
    Some(())
}

#[inline(always)]
fn apply(skb: Skb, work: &Work) -> Result<(), Refused> {
    let Work { packet, quoted, to, quoted_to, .. } = work;
    let checksum = packet.l4 + 2;
    let inside = address_difference(packet.v4, &quoted.tuple, quoted_to);
    let outside = address_difference(packet.v4, &packet.tuple, to);
    write_addresses(skb, packet.v4, quoted.l3, quoted_to)?;
    if packet.v4 {
        // The quoted header's own checksum takes up the change, so the sum over the quoted header stays what it was.
        skb.fix_l3(quoted.l3 + 10, inside)?;
    } else {
        skb.fix_l4(checksum, 0, u64::from(inside), 0)?;
    }
    quote_ports(skb, quoted, quoted_to, checksum)?;

    if packet.v4 {
        skb.fix_l3(packet.l3 + 10, outside)?;
    } else {
        skb.fix_l4(checksum, 0, u64::from(outside), u64::from(BPF_F_PSEUDO_HDR))?;
    }
    write_addresses(skb, packet.v4, packet.l3, to)
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
