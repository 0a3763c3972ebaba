//! Finding, opening and touching flows.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use skep_ebpf_abi::Addr;
use skep_ebpf_abi::conntrack::{Direction, advance, reopens};
use skep_ebpf_abi::counter::Counter;
use skep_ebpf_abi::flow::{Flow, FlowKey, Tuple, kind};
use skep_ebpf_abi::hash::scale;
use skep_ebpf_abi::node::NodeConfig;

use crate::count::count;
use crate::maps::{FLOW_INDEX, FLOWS, HOLD, NODE};
use crate::packet::Packet;
use crate::select::now;
use crate::work::{Work, settled};

/// A packet's relation to the flows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It goes to the backend and must become what `work.to` says.
    Forward,
    /// It goes to the client and must become what `work.to` says.
    Reply,
    /// It already has the form it should have here.
    AsIs,
    /// No flow knows it.
    Unknown,
}

const TRIES: u32 = 24;
/// The error of an insertion that found the key taken.
pub const EEXIST: i32 = -17;

/// Looks a packet up and notes that it was seen. What a function of its own returns must be a number or a pointer into
/// a map: the verifier does not accept a pointer to the stack, which is what is left in the register of a function that
/// returns something larger.
#[inline(never)]
pub fn find(work: &mut Work) -> Found {
    let packet = &work.packet;
    let key = FlowKey::new(&packet.tuple, packet.protocol);
    if let Some(flow) = FLOWS.get_ptr_mut(key) {
        // SAFETY: map values stay mapped while the program runs; racing writers store whole words.
        let flow = unsafe { &mut *flow };
        if same(&packet.tuple, &flow.inner.reversed()) {
            touch(flow, packet, Direction::Reply);
            work.to = flow.outer.reversed();
            return Found::Reply;
        }
        if flow.kind & kind::DIRECT != 0 {
            touch(flow, packet, Direction::Forward);
        }
        return Found::AsIs;
    }
    // SAFETY: the value is only read.
    let Some(inner) = (unsafe { FLOW_INDEX.get(key) }) else { return Found::Unknown };
    let Some(flow) = FLOWS.get_ptr_mut(inner) else { return Found::Unknown };
    // SAFETY: as above.
    let flow = unsafe { &mut *flow };
    if !same(&packet.tuple, &flow.outer) {
        return Found::AsIs;
    }
    if reopens(flow.state, packet.protocol, Direction::Forward, packet.tcp_flags) {
        // The old connection is over: its entries make room for the new one.
        let inner = *inner;
        let _ = FLOW_INDEX.remove(key);
        let _ = FLOWS.remove(inner);
        return Found::Unknown;
    }
    touch(flow, packet, Direction::Forward);
    work.to = flow.inner;
    Found::Forward
}

#[inline(always)]
fn touch(flow: &mut Flow, packet: &Packet, direction: Direction) {
    let now = now();
    // Written only on change: a write would take the cache line from every other processor.
    if flow.seen_ticks != now {
        flow.seen_ticks = now;
    }
    let state = advance(flow.state, packet.protocol, direction, packet.tcp_flags);
    if flow.state != state {
        flow.state = state;
    }
}

/// Whether two tuples are equal, without the comparison loop that `==` becomes.
#[inline(always)]
pub fn same(a: &Tuple, b: &Tuple) -> bool {
    same_addr(&a.src, &b.src)
        && same_addr(&a.dst, &b.dst)
        && a.src_port_be == b.src_port_be
        && a.dst_port_be == b.dst_port_be
}

/// Whether two addresses are equal.
#[inline(always)]
pub fn same_addr(a: &Addr, b: &Addr) -> bool {
    a.words_be[3] == b.words_be[3]
        && a.words_be[2] == b.words_be[2]
        && a.words_be[1] == b.words_be[1]
        && a.words_be[0] == b.words_be[0]
}

/// What a new flow is to become.
#[derive(Default)]
pub struct Plan {
    /// The destination after translation.
    pub dst: Addr,
    /// Its port.
    pub dst_port_be: u16,
    /// A source other than the packet's, or unspecified. Not an option: what it leaves undefined would be copied, and
    /// the verifier refuses that.
    pub source: Addr,
    /// The backend's id, or 0.
    pub backend: u32,
    /// [`kind`] bits.
    pub kind: u8,
}

/// Opens a flow; `work.to` is what the packet becomes. Counts why there is none.
#[inline(never)]
pub fn open(work: &mut Work, plan: &Plan) -> bool {
    let Work { packet, flow, to, key, .. } = work;
    flow.outer = packet.tuple;
    flow.inner = Tuple {
        src: if plan.source.is_unspecified() { packet.tuple.src } else { plan.source },
        dst: plan.dst,
        src_port_be: packet.tuple.src_port_be,
        dst_port_be: plan.dst_port_be,
    };
    flow.backend = plan.backend;
    flow.seen_ticks = now();
    if is_held(flow.seen_ticks) {
        count(Counter::DropHold);
        return false;
    }
    flow.state = advance(0, packet.protocol, Direction::Forward, packet.tcp_flags);
    flow.kind = plan.kind;
    flow.zero = [0; 2];
    let flow = settled(flow);
    if let Err(reason) = reserve(flow, key, packet, plan) {
        count(reason);
        return false;
    }

    let outer_key = FlowKey::new(&flow.outer, packet.protocol);
    if FLOW_INDEX.insert(outer_key, &*key, 0).is_err() {
        let _ = FLOWS.remove(&*key);
        count(Counter::DropFlowsFull);
        return false;
    }
    *to = flow.inner;
    true
}

/// Whether other maps are about to take the place of these: a flow that is opened now could be missed.
#[inline(always)]
pub fn is_held(now: u32) -> bool {
    match HOLD.get(0) {
        Some(until) => *until != 0 && until.wrapping_sub(now) as i32 > 0,
        None => false,
    }
}

/// Notes a flow that is not translated, so that its answers are not either. A full table leaves it unnoted; 0 if no flow
/// may be opened now.
#[inline(never)]
pub fn note(work: &mut Work) -> u32 {
    let Work { packet, flow, key, .. } = work;
    flow.outer = packet.tuple;
    flow.inner = packet.tuple;
    flow.backend = 0;
    flow.seen_ticks = now();
    if is_held(flow.seen_ticks) {
        count(Counter::DropHold);
        return 0;
    }
    flow.state = advance(0, packet.protocol, Direction::Forward, packet.tcp_flags);
    flow.kind = kind::DIRECT | kind::FROM_OUTSIDE;
    flow.zero = [0; 2];
    *key = FlowKey::new(&packet.tuple, packet.protocol);
    let _ = FLOWS.insert(&*settled(key), &*settled(flow), u64::from(BPF_NOEXIST));
    1
}

/// Inserts the flow under a key that nobody has, by changing the source port as often as it takes. The insertion is
/// the reservation: two processors cannot both win.
#[inline(always)]
fn reserve(flow: &mut Flow, key: &mut FlowKey, packet: &Packet, plan: &Plan) -> Result<(), Counter> {
    let (min, max) = match node() {
        Some(node) => (node.port_min, node.port_max),
        None => (0, 0),
    };
    for attempt in 0..TRIES {
        // Ports of a foreign source always move into the range that the node's own sockets keep out of.
        if attempt > 0 || !plan.source.is_unspecified() {
            if min == 0 || min >= max {
                return Err(Counter::DropNoPort);
            }
            // SAFETY: the helper has no preconditions.
            let port = min + scale(unsafe { bpf_get_prandom_u32() }, max - min + 1);
            flow.inner.src_port_be = (port as u16).to_be();
            flow.kind |= kind::SOURCE;
        }
        if packet.protocol == skep_ebpf_abi::ICMP || packet.protocol == skep_ebpf_abi::ICMP_V6 {
            flow.inner.dst_port_be = flow.inner.src_port_be;
        }
        *key = FlowKey::new(&flow.inner, packet.protocol);
        match FLOWS.insert(&*settled(key), &*flow, u64::from(BPF_NOEXIST)) {
            Ok(()) => return Ok(()),
            Err(error) if error == EEXIST => {}
            Err(_) => return Err(Counter::DropFlowsFull),
        }
    }
    Err(Counter::DropNoPort)
}

/// The node's entry.
#[inline(always)]
pub fn node() -> Option<&'static NodeConfig> {
    NODE.get(0)
}

/// The node's source address of the packet's family.
#[inline(always)]
pub fn node_source(v4: bool) -> Option<Addr> {
    let node = node()?;
    let source = if v4 { node.source_v4 } else { node.source_v6 };
    if source.is_unspecified() { None } else { Some(source) }
}
