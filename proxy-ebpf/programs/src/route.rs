//! Sending a translated packet on its way without another turn through the host's stack.

#![allow(missing_docs)] // The macro generates an undocumented item beside each documented one.

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, TC_ACT_OK,
    TC_ACT_SHOT, bpf_redir_neigh,
};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_redirect_neigh, bpf_redirect_peer};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use skep_ebpf_abi::Addr;
use skep_ebpf_abi::counter::Counter;
use skep_ebpf_abi::flow::Tuple;
use skep_ebpf_abi::node::{Endpoint, endpoint};

use crate::count::count;
use crate::maps::ENDPOINTS;
use crate::packet::{Content, Packet};
use crate::policy;
use crate::skb::Skb;
use crate::too_big::{bounce, forbids_fragments};
use crate::work::Work;

/// `AF_INET`.
pub const AF_INET: u8 = 2;
/// `AF_INET6`.
pub const AF_INET6: u8 = 10;

/// The question to the kernel's routing under construction: too large for the stack.
#[map(name = "query")]
static QUERY: PerCpuArray<[u32; 16]> = PerCpuArray::with_max_entries(1, 0);

/// The address's place on this node, if it has one.
#[inline(always)]
pub fn local(addr: &Addr) -> Option<&'static Endpoint> {
    // SAFETY: the value is only read.
    unsafe { ENDPOINTS.get(addr) }
}

/// Hands a packet to a pod of this node if its policies allow what the packet has become: `work.to`.
#[inline(always)]
fn enter(skb: Skb, work: &Work, pod: &Endpoint) -> i32 {
    // An error that was translated belongs to a flow that was allowed.
    if pod.flags & endpoint::POLICED != 0
        && work.packet.content != Content::IcmpError
        && !policy::enters(skb, work)
    {
        return TC_ACT_SHOT;
    }
    to_pod(skb, pod)
}

/// Hands a packet that becomes nothing else to a pod of this node.
#[inline(always)]
pub fn enter_as_it_is(skb: Skb, work: &mut Work, pod: &Endpoint) -> i32 {
    if pod.flags & endpoint::POLICED != 0 && !policy::enters(skb, policy::as_it_is(work)) {
        return TC_ACT_SHOT;
    }
    to_pod(skb, pod)
}

/// Hands a packet to a pod of this node: straight into its namespace.
#[inline(always)]
pub fn to_pod(skb: Skb, pod: &Endpoint) -> i32 {
    let macs = [
        u32::from_ne_bytes([pod.pod_mac[0], pod.pod_mac[1], pod.pod_mac[2], pod.pod_mac[3]]),
        u32::from_ne_bytes([pod.pod_mac[4], pod.pod_mac[5], pod.host_mac[0], pod.host_mac[1]]),
        u32::from_ne_bytes([pod.host_mac[2], pod.host_mac[3], pod.host_mac[4], pod.host_mac[5]]),
    ];
    if skb.store(0, &macs).is_err() {
        count(Counter::DropRewrite);
        return TC_ACT_SHOT;
    }
    // SAFETY: the helper has no preconditions; the hook is an ingress one.
    unsafe { bpf_redirect_peer(pod.ifindex, 0) as i32 }
}

/// Sends a rewritten packet to where its new destination is.
#[inline(always)]
pub fn deliver(skb: Skb, work: &Work) -> i32 {
    let (packet, to) = (&work.packet, &work.to);
    match local(&to.dst) {
        Some(place) if place.flags & endpoint::HOST != 0 => TC_ACT_OK,
        Some(pod) => enter(skb, work, pod),
        None => to_neighbour(skb, packet, to),
    }
}

/// Routes the packet by the kernel's tables. The stack itself would refuse it: its source may be the node's own.
#[inline(never)]
fn to_neighbour(skb: Skb, packet: &Packet, to: &Tuple) -> i32 {
    let Some(query) = way(packet, to, skb.ifindex()) else { return TC_ACT_SHOT };
    // SAFETY: the query is as large as the helper's structure.
    let found = unsafe { bpf_fib_lookup(skb.raw.cast(), query.as_mut_ptr().cast(), 64, 0) };
    if found == i64::from(BPF_FIB_LKUP_RET_FRAG_NEEDED) {
        if packet.content == Content::IcmpError {
            count(Counter::DropNoRoute);
            return TC_ACT_SHOT;
        }
        if forbids_fragments(skb, packet.v4) {
            let [_, _, low, high] = query[1].to_ne_bytes();
            return bounce(skb, packet.v4, u32::from(u16::from_ne_bytes([low, high])));
        }
        // Whoever carries it may cut it: what the tunnel makes of it, above all.
    } else if found != i64::from(BPF_FIB_LKUP_RET_SUCCESS) && found != i64::from(BPF_FIB_LKUP_RET_NO_NEIGH) {
        count(Counter::DropNoRoute);
        return TC_ACT_SHOT;
    }
    if decrement_hops(skb, packet).is_none() {
        count(Counter::DropNoRoute);
        return TC_ACT_SHOT;
    }
    let mut next: [u32; 5] = [u32::from(query[0].to_ne_bytes()[0]), query[8], query[9], query[10], query[11]];
    const { assert!(core::mem::size_of::<bpf_redir_neigh>() == 20) };
    // SAFETY: the words of `struct bpf_redir_neigh`: family and address.
    unsafe { bpf_redirect_neigh(query[2], next.as_mut_ptr().cast(), 20, 0) as i32 }
}

/// The question where a packet that came in at an interface goes as `to`.
#[inline(always)]
pub fn way(packet: &Packet, to: &Tuple, ifindex: u32) -> Option<&'static mut [u32; 16]> {
    let family = if packet.v4 { AF_INET } else { AF_INET6 };
    let (src, dst) = if packet.v4 {
        ([to.src.v4_word_be(), 0, 0, 0], [to.dst.v4_word_be(), 0, 0, 0])
    } else {
        (to.src.words_be, to.dst.words_be)
    };
    let query = fib_query()?;
    query[0] = u32::from_ne_bytes([family, packet.protocol, 0, 0]);
    query[2] = ifindex;
    query[4] = src[0];
    query[5] = src[1];
    query[6] = src[2];
    query[7] = src[3];
    query[8] = dst[0];
    query[9] = dst[1];
    query[10] = dst[2];
    query[11] = dst[3];
    Some(query)
}

/// The words of `struct bpf_fib_lookup`, all zero: family and protocol; ports and length; interface; class; source
/// (4); destination, then next hop (4); and what is not needed here.
#[inline(always)]
pub fn fib_query() -> Option<&'static mut [u32; 16]> {
    let query = QUERY.get_ptr_mut(0)?;
    // SAFETY: this processor's own value, and the program is not preempted.
    let query = unsafe { &mut *query };
    *query = [0; 16];
    Some(query)
}

#[inline(always)]
fn decrement_hops(skb: Skb, packet: &Packet) -> Option<()> {
    if packet.v4 {
        let pair: u16 = skb.load(packet.l3 + 8)?;
        let [hops, protocol] = pair.to_ne_bytes();
        if hops <= 1 {
            return None;
        }
        let less = u16::from_ne_bytes([hops - 1, protocol]);
        let (from, to) = ([u32::from(pair)], [u32::from(less)]);
        skb.fix_l3(packet.l3 + 10, crate::skb::difference(&from, &to)).ok()?;
        skb.store(packet.l3 + 8, &less).ok()
    } else {
        let hops: u8 = skb.load(packet.l3 + 7)?;
        if hops <= 1 {
            return None;
        }
        skb.store(packet.l3 + 7, &(hops - 1)).ok()
    }
}
