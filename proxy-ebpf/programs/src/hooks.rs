//! The tc programs.

#![allow(missing_docs)] // The macro generates an undocumented item beside each documented one.

use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT};
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use aya_ebpf::macros::classifier;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::TcContext;
use skep_ebpf_abi::counter::Counter;
use skep_ebpf_abi::flow::kind;
use skep_ebpf_abi::node::{endpoint, flags};
use skep_ebpf_abi::service::{AffinityKey, Frontend, FrontendKey, set};
use skep_ebpf_abi::{Addr, TCP, tcp};

use crate::count::count;
use crate::flows::{Found, Plan, find, node, node_source, note, open, same_addr};
use crate::fragment::{self, Later};
use crate::icmp;
use crate::maps::{FRONTENDS, KEEP_SOURCE};
use crate::packet::{Content, ETH_V4, ETH_V6, Packet, parse};
use crate::policy;
use crate::refuse::refuse;
use crate::rewrite::rewrite;
use crate::route::{deliver, enter_as_it_is, local};
use crate::select::{Choice, Lot, choose, may_come};
use crate::skb::Skb;
use crate::tunnel::source_towards;
use crate::work::{Work, settled};

/// Where a packet enters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The world beyond the node.
    Outside,
    /// A pod of this node.
    Pod,
    /// A pod of this node that network policies select.
    PolicedPod,
    /// Another node, through the tunnel.
    Tunnel,
}

#[inline(always)]
fn drop(reason: Counter) -> i32 {
    count(reason);
    TC_ACT_SHOT
}

/// What becomes of what is no packet with addresses. What is no IP (neighbours asking for each other) is never policed.
#[inline(always)]
fn unparsed(skb: Skb, policed: bool) -> i32 {
    if policed && matches!(skb.protocol(), ETH_V4 | ETH_V6) { TC_ACT_SHOT } else { TC_ACT_OK }
}

/// What comes into the node.
#[inline(always)]
pub fn ingress(skb: Skb, origin: Origin) -> i32 {
    // Constant for each program, so that those of other pods have no trace of it.
    let policed = origin == Origin::PolicedPod;
    let Some(work) = parse(skb) else { return unparsed(skb, policed) };
    work.from_pod = u32::from(matches!(origin, Origin::Pod | Origin::PolicedPod));
    match work.packet.content {
        Content::Flow => {}
        Content::IcmpError => {
            if policed && !policy::is_related(skb, work) {
                return TC_ACT_SHOT;
            }
            return match icmp::error(skb, work) {
                icmp::TRANSLATED => deliver(skb, work),
                verdict => verdict,
            };
        }
        Content::Fragment => match fragment::later(skb, &mut work.packet) {
            Later::Known => {}
            Later::Held => return TC_ACT_SHOT,
            Later::Unknown if policed && !policy::is_pair(&work.packet) => return TC_ACT_SHOT,
            Later::Unknown => return TC_ACT_OK,
        },
        Content::Other => {
            return if policed && !policy::leaves_without_ports(skb, work) { TC_ACT_SHOT } else { TC_ACT_OK };
        }
    }
    let work = settled(work);
    let verdict = flow(skb, work, origin);
    if work.packet.first_fragment {
        fragment::first(skb, work);
    }
    verdict
}

/// A packet with ports.
#[inline(always)]
fn flow(skb: Skb, work: &mut Work, origin: Origin) -> i32 {
    let policed = origin == Origin::PolicedPod;
    match find(work) {
        Found::Forward | Found::Reply if policed && !policy::leaves(skb, work) => return TC_ACT_SHOT,
        Found::Forward => return send(skb, work, Counter::PacketTranslated),
        Found::Reply => return send(skb, work, Counter::PacketReply),
        Found::AsIs => return untouched(skb, work, origin),
        Found::Unknown => {}
    }
    let packet = &work.packet;
    let key = FrontendKey::new(packet.tuple.dst, packet.tuple.dst_port_be, packet.protocol);
    // SAFETY: the value is only read.
    let frontend = unsafe { FRONTENDS.get(key) };
    if packet.content == Content::Fragment {
        // Its first fragment opened no flow.
        return if frontend.is_some() { drop(Counter::DropFragment) } else { untouched(skb, work, origin) };
    }
    let mut plan = Plan::default();
    if let Some(frontend) = frontend {
        return match balance(packet, frontend, origin, &mut plan) {
            PLANNED if policed && !leaves_as(skb, work, &plan) => TC_ACT_SHOT,
            PLANNED => send_new(skb, work, &plan, Counter::PacketTranslated),
            NOBODY => refuse(skb, work),
            verdict => verdict,
        };
    }
    if origin == Origin::Outside && dials_pod(packet) {
        return if note(work) == 0 { TC_ACT_SHOT } else { TC_ACT_OK };
    }
    if matches!(origin, Origin::Pod | Origin::PolicedPod)
        && leaves_cluster(packet)
        && masquerade(packet, &mut plan)
    {
        if policed && !leaves_as(skb, work, &plan) {
            return TC_ACT_SHOT;
        }
        return send_new(skb, work, &plan, Counter::Masqueraded);
    }
    untouched(skb, work, origin)
}

/// Makes the packet what it is to become, and sends it there.
#[inline(never)]
fn send(skb: Skb, work: &Work, counter: Counter) -> i32 {
    if rewrite(skb, work) != 0 {
        return drop(Counter::DropRewrite);
    }
    count(counter);
    deliver(skb, work)
}

/// Whether a pod may send a packet for which there is a plan.
#[inline(always)]
fn leaves_as(skb: Skb, work: &mut Work, plan: &Plan) -> bool {
    work.to.dst = plan.dst;
    work.to.dst_port_be = plan.dst_port_be;
    policy::leaves(skb, settled(work))
}

/// A packet that is not ours to change: between pods it still takes the short way.
#[inline(always)]
fn untouched(skb: Skb, work: &mut Work, origin: Origin) -> i32 {
    if origin == Origin::PolicedPod && !policy::leaves(skb, policy::as_it_is(work)) {
        return TC_ACT_SHOT;
    }
    if origin != Origin::Outside
        && let Some(place) = local(&work.packet.tuple.dst)
        && place.flags & endpoint::HOST == 0
        && !through_stack()
    {
        return enter_as_it_is(skb, work, place);
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

/// The packet has no verdict yet: a flow is to be opened.
pub const PLANNED: i32 = -2;
/// The packet has no verdict yet: its sender is to be told that nobody serves.
pub const NOBODY: i32 = -3;

/// What becomes of the first packet of a flow to a service, or the verdict on it.
#[inline(never)]
pub fn balance(packet: &Packet, frontend: &Frontend, origin: Origin, plan: &mut Plan) -> i32 {
    let outside = origin == Origin::Outside;
    let set_id = if outside { frontend.external_set } else { frontend.internal_set };
    if !may_come(frontend, &packet.tuple.src) {
        return drop(Counter::DropSourceRange);
    }
    // SAFETY: the helper has no preconditions.
    let entropy = unsafe { bpf_get_prandom_u32() };
    let lot = if outside { Lot::Hash(entropy, packet) } else { Lot::Chance(entropy) };
    let (backend, target) = match choose(set_id, &AffinityKey::address(packet.tuple.src, set_id), lot) {
        Choice::Backend(id, backend) => (id, backend),
        Choice::Empty(set_flags) if set_flags & set::DROP_WHEN_EMPTY == 0 => return NOBODY,
        Choice::Empty(_) | Choice::Broken => return drop(Counter::DropNoBackend),
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
fn send_new(skb: Skb, work: &mut Work, plan: &Plan, counter: Counter) -> i32 {
    if open(work, plan) { send(skb, work, counter) } else { TC_ACT_SHOT }
}

/// Whether a stranger opens a flow to a pod of this node: where pods are masqueraded, its answers would be too.
#[inline(always)]
fn dials_pod(packet: &Packet) -> bool {
    let opens = packet.protocol != TCP || packet.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
    opens
        && is_masquerading()
        && local(&packet.tuple.dst).is_some_and(|place| place.flags & endpoint::HOST == 0)
        && KEEP_SOURCE.get(&Key::new(128, packet.tuple.src)).is_none()
}

#[inline(always)]
fn is_masquerading() -> bool {
    match node() {
        Some(node) => node.flags & flags::MASQUERADE != 0,
        None => false,
    }
}

/// Whether a pod's packet goes where pod addresses mean nothing.
#[inline(always)]
fn leaves_cluster(packet: &Packet) -> bool {
    is_masquerading()
        && local(&packet.tuple.dst).is_none()
        && KEEP_SOURCE.get(&Key::new(128, packet.tuple.dst)).is_none()
}

/// Whether there is an address of the node to be given.
#[inline(always)]
fn masquerade(packet: &Packet, plan: &mut Plan) -> bool {
    let Some(source) = node_source(packet.v4) else { return false };
    *plan = Plan {
        dst: packet.tuple.dst,
        dst_port_be: packet.tuple.dst_port_be,
        source,
        backend: 0,
        kind: kind::SOURCE,
    };
    true
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

/// From a pod that network policies select.
#[classifier]
pub fn skep_pod_in_policed(ctx: TcContext) -> i32 {
    ingress(Skb { raw: ctx.skb.skb }, Origin::PolicedPod)
}

/// What the stack sends: the answers of backends in the host's namespace are translated.
#[inline(always)]
fn egress(skb: Skb, policed: bool) -> i32 {
    let Some(work) = parse(skb) else { return unparsed(skb, policed) };
    match work.packet.content {
        Content::Flow => {}
        Content::IcmpError => {
            if policed && !policy::is_wanted(skb, work) {
                return TC_ACT_SHOT;
            }
            return match icmp::error(skb, work) {
                icmp::TRANSLATED => TC_ACT_OK,
                verdict => verdict,
            };
        }
        // The node sends its fragments in order.
        Content::Fragment => {
            if !fragment::look_up(&mut work.packet) {
                return if policed && !policy::is_pair(&work.packet) { TC_ACT_SHOT } else { TC_ACT_OK };
            }
        }
        Content::Other => {
            return if policed && !policy::enters_without_ports(work) { TC_ACT_SHOT } else { TC_ACT_OK };
        }
    }
    let work = settled(work);
    if work.packet.first_fragment {
        fragment::note(&work.packet);
    }
    let is_reply = find(work) == Found::Reply;
    if policed {
        let becomes = if is_reply { settled(work) } else { policy::as_it_is(work) };
        if !policy::enters_by_stack(becomes) {
            return TC_ACT_SHOT;
        }
    }
    if is_reply {
        if rewrite(skb, work) != 0 {
            return drop(Counter::DropRewrite);
        }
        count(Counter::PacketReply);
    }
    TC_ACT_OK
}

/// From the node's own sockets to outside or to a pod.
#[classifier]
pub fn skep_host_out(ctx: TcContext) -> i32 {
    egress(Skb { raw: ctx.skb.skb }, false)
}

/// From the node's own sockets, and what the stack forwards, to a pod that network policies select.
#[classifier]
pub fn skep_pod_out_policed(ctx: TcContext) -> i32 {
    egress(Skb { raw: ctx.skb.skb }, true)
}
