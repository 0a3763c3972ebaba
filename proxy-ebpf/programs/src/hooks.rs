//! The tc programs.

#![allow(missing_docs)] // The macro generates an undocumented item beside each documented one.

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT};
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use aya_ebpf::macros::classifier;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::TcContext;
use skep_ebpf_abi::Addr;
use skep_ebpf_abi::counter::Counter;
use skep_ebpf_abi::flow::{Tuple, kind};
use skep_ebpf_abi::node::{endpoint, flags};
use skep_ebpf_abi::service::{AffinityKey, Frontend, FrontendKey, SourceRange, frontend, set};

use crate::count::count;
use crate::flows::{Found, Plan, find, node, node_source, open, same_addr};
use crate::icmp;
use crate::maps::{FRONTENDS, KEEP_SOURCE, SOURCE_RANGES};
use crate::packet::{Content, Packet, parse};
use crate::rewrite::rewrite;
use crate::route::{deliver, local, to_pod};
use crate::select::{Choice, choose};
use crate::skb::Skb;
use crate::tunnel::source_towards;

/// Where a packet enters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The world beyond the node.
    Outside,
    /// A pod of this node.
    Pod,
    /// Another node, through the tunnel.
    Tunnel,
}

#[inline(always)]
fn drop(reason: Counter) -> i32 {
    count(reason);
    TC_ACT_SHOT
}

/// What comes into the node.
#[inline(always)]
pub fn ingress(skb: Skb, origin: Origin) -> i32 {
    let Some(packet) = parse(skb) else { return TC_ACT_OK };
    match packet.content {
        Content::Flow => {}
        Content::IcmpError => return icmp::error(skb, packet),
        Content::Fragment | Content::Other => return TC_ACT_OK,
    }
    let mut to = Tuple::default();
    match find(packet, &mut to) {
        found @ (Found::Forward | Found::Reply) => {
            if rewrite(skb, packet, &to).is_err() {
                return drop(Counter::DropRewrite);
            }
            count(if found == Found::Reply { Counter::PacketReply } else { Counter::PacketTranslated });
            return deliver(skb, packet, &to);
        }
        Found::AsIs => return untouched(skb, packet, origin),
        Found::Unknown => {}
    }
    let key = FrontendKey::new(packet.tuple.dst, packet.tuple.dst_port_be, packet.protocol);
    // SAFETY: the value is only read.
    if let Some(frontend) = unsafe { FRONTENDS.get(key) } {
        let mut plan = Plan::default();
        return match balance(packet, frontend, origin, &mut plan) {
            PLANNED => send_new(skb, packet, &plan, Counter::PacketTranslated),
            verdict => verdict,
        };
    }
    if origin == Origin::Pod
        && leaves_cluster(packet)
        && let Some(plan) = masquerade(packet)
    {
        return send_new(skb, packet, &plan, Counter::Masqueraded);
    }
    untouched(skb, packet, origin)
}

/// A packet that is not ours to change: between pods it still takes the short way.
#[inline(always)]
fn untouched(skb: Skb, packet: &Packet, origin: Origin) -> i32 {
    if origin != Origin::Outside
        && let Some(place) = local(&packet.tuple.dst)
        && place.flags & endpoint::HOST == 0
        && !through_stack()
    {
        return to_pod(skb, place);
    }
    TC_ACT_OK
}

/// Whether the packet filter must see every packet, as it may have translated the other direction.
#[inline(always)]
fn through_stack() -> bool {
    match node() {
        Some(node) => node.flags & flags::STACK != 0,
        None => false,
    }
}

/// The verdict on a packet that has none yet.
const PLANNED: i32 = -2;

/// What becomes of the first packet of a flow to a service, or the verdict on it.
#[inline(never)]
fn balance(packet: &Packet, frontend: &Frontend, origin: Origin, plan: &mut Plan) -> i32 {
    let outside = origin == Origin::Outside;
    let set_id = if outside { frontend.external_set } else { frontend.internal_set };
    if outside && frontend.flags & frontend::SOURCE_RANGES != 0 && !allowed(frontend.external_set, packet) {
        return drop(Counter::DropSourceRange);
    }
    // SAFETY: the helper has no preconditions.
    let entropy = unsafe { bpf_get_prandom_u32() };
    let (backend, target) = match choose(set_id, &AffinityKey::address(packet.tuple.src, set_id), entropy) {
        Choice::Backend(id, backend) => (id, backend),
        Choice::Empty(set_flags) => return refuse(packet, frontend, set_flags),
        Choice::Broken => return drop(Counter::DropNoBackend),
    };
    let hairpin = same_addr(&target.addr, &packet.tuple.src);
    // Answers come back by themselves from this node's pods and to this node's pods; only a foreign client of a
    // backend elsewhere, or a pod that meets itself, must be given an address of the node.
    let needs_source = hairpin || (outside && local(&target.addr).is_none());
    let source = if needs_source {
        match source_towards(&target.addr, packet.v4) {
            Some(source) => source,
            None => return drop(Counter::DropNoSource),
        }
    } else {
        Addr::UNSPECIFIED
    };
    *plan = Plan {
        dst: target.addr,
        dst_port_be: target.port_be,
        source,
        backend,
        kind: kind::DESTINATION | if outside { kind::FROM_OUTSIDE } else { 0 },
    };
    PLANNED
}

#[inline(always)]
fn send_new(skb: Skb, packet: &Packet, plan: &Plan, counter: Counter) -> i32 {
    match open(packet, plan) {
        Some(to) => {
            if rewrite(skb, packet, to).is_err() {
                return drop(Counter::DropRewrite);
            }
            count(counter);
            deliver(skb, packet, to)
        }
        None => TC_ACT_SHOT,
    }
}

#[inline(always)]
fn refuse(packet: &Packet, frontend: &Frontend, set_flags: u32) -> i32 {
    // On an address of the node nothing listens, and the range of cluster IPs has an "unreachable" route: the kernel
    // itself answers with a reset or an ICMP error. Any other address it would send on.
    let is_own = match local(&packet.tuple.dst) {
        Some(place) => place.flags & endpoint::HOST != 0,
        None => false,
    };
    let is_answered = is_own || frontend.flags & frontend::KIND_MASK == frontend::CLUSTER_IP;
    if set_flags & set::DROP_WHEN_EMPTY == 0 && is_answered {
        count(Counter::Rejected);
        return TC_ACT_OK;
    }
    drop(Counter::DropNoBackend)
}

#[inline(always)]
fn allowed(set: u32, packet: &Packet) -> bool {
    let key = Key::new(SourceRange::LOOKUP_BITS, SourceRange { set, addr: packet.tuple.src });
    SOURCE_RANGES.get(&key).is_some()
}

/// Whether a pod's packet goes where pod addresses mean nothing.
#[inline(always)]
fn leaves_cluster(packet: &Packet) -> bool {
    let wanted = match node() {
        Some(node) => node.flags & flags::MASQUERADE != 0,
        None => false,
    };
    wanted
        && local(&packet.tuple.dst).is_none()
        && KEEP_SOURCE.get(&Key::new(128, packet.tuple.dst)).is_none()
}

#[inline(always)]
fn masquerade(packet: &Packet) -> Option<Plan> {
    let source = node_source(packet.v4)?;
    Some(Plan {
        dst: packet.tuple.dst,
        dst_port_be: packet.tuple.dst_port_be,
        source,
        backend: 0,
        kind: kind::SOURCE,
    })
}

/// From outside into the node.
#[classifier]
pub fn skep_uplink_in(ctx: TcContext) -> i32 {
    ingress(Skb { raw: ctx.skb.skb }, Origin::Outside)
}

/// From a pod into the node.
#[classifier]
pub fn skep_pod_in(ctx: TcContext) -> i32 {
    ingress(Skb { raw: ctx.skb.skb }, Origin::Pod)
}

/// From the node's own sockets to outside or to a pod: the answers of backends in the host's namespace.
#[classifier]
pub fn skep_host_out(ctx: TcContext) -> i32 {
    let skb = Skb { raw: ctx.skb.skb };
    let Some(packet) = parse(skb) else { return TC_ACT_OK };
    match packet.content {
        Content::Flow => {}
        Content::IcmpError => return icmp::error_out(skb, packet),
        Content::Fragment | Content::Other => return TC_ACT_OK,
    }
    let mut to = Tuple::default();
    if find(packet, &mut to) == Found::Reply {
        if rewrite(skb, packet, &to).is_err() {
            return drop(Counter::DropRewrite);
        }
        count(Counter::PacketReply);
    }
    TC_ACT_OK
}
