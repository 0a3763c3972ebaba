//! Network policy on packets: a look-up of the flow, and of the rules when the flow is not decided.
//!
//! Only pods that policies select come here. Their own traffic does by programs of their own (`…_policed`), which
//! others do not have; what goes to them does by a flag that delivery looks at anyway.
//!
//! Flows are kept in the form in which a pod and the true other end see each other: the source as the sender has it,
//! the destination after translation.

#![allow(missing_docs)] // The macro generates an undocumented item beside each documented one.

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST, TC_ACT_SHOT};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{HashMap, LruHashMap, PerCpuArray};
use skep_ebpf_abi::conntrack::{Direction, advance};
use skep_ebpf_abi::counter::Counter;
use skep_ebpf_abi::flow::{FlowKey, Tuple};
use skep_ebpf_abi::node::endpoint;
use skep_ebpf_abi::policy::{
    BlockKey, Denied, DeniedKey, Policed, Role, RuleKey, Verdict, looked_up, peer, sender_is_low,
};
use skep_ebpf_abi::{Addr, ICMP_V6};

use crate::count::count;
use crate::flows::{EEXIST, is_held, same_addr};
use crate::packet::{Packet, parse_quoted};
use crate::route::local;
use crate::select::now;
use crate::skb::Skb;
use crate::work::{Work, settled};

/// Pods of this node that policies select, by address.
#[map(name = "policed")]
pub static POLICED: HashMap<Addr, Policed> = HashMap::with_max_entries(4_096, BPF_F_NO_PREALLOC);

/// Who has an address: pods of all nodes, and the nodes.
#[map(name = "identities")]
pub static IDENTITIES: HashMap<Addr, u32> = HashMap::with_max_entries(524_288, BPF_F_NO_PREALLOC);

/// What is allowed; the value is the rule's id.
#[map(name = "policy_rules")]
pub static RULES: LpmTrie<RuleKey, u32> = LpmTrie::with_max_entries(1_048_576, BPF_F_NO_PREALLOC);

/// Blocks of addresses; the value is the class.
#[map(name = "policy_blocks")]
pub static BLOCKS: LpmTrie<BlockKey, u32> = LpmTrie::with_max_entries(131_072, BPF_F_NO_PREALLOC);

/// What has been decided.
#[map(name = "verdicts")]
pub static VERDICTS: HashMap<FlowKey, Verdict> = HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);

/// Pairs of addresses between which datagrams are allowed: for later fragments whose ports are not known.
#[map(name = "policy_pairs")]
pub static PAIRS: LruHashMap<Pair, u32> = LruHashMap::with_max_entries(16_384, 0);

/// What was not let through.
#[map(name = "denied")]
pub static DENIED: LruHashMap<DeniedKey, Denied> = LruHashMap::with_max_entries(4_096, 0);

/// Two addresses, sender first.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Pair {
    src: Addr,
    dst: Addr,
}

/// The question under way: too large for the stack, and what is read back from a map is nothing that the verifier
/// would follow, see [`crate::work`].
#[map(name = "question")]
static QUESTION: PerCpuArray<Question> = PerCpuArray::with_max_entries(1, 0);

struct Question {
    /// The packet, then turned so that whoever opened the flow is the source.
    tuple: Tuple,
    key: FlowKey,
    verdict: Verdict,
    /// The pod's and the other side's address.
    own: Addr,
    other: Addr,
    /// Under whom rules may stand for the other side.
    peers: [u32; 4],
    /// Whether the sender is the key's lower end.
    is_low: bool,
    /// Whether the packet opens the flow.
    opens: bool,
    /// Whether the packet is an answer.
    is_reply: bool,
    /// Whether the pod opened the flow.
    is_opener: bool,
}

impl Question {
    #[inline(always)]
    fn role(&self) -> Role {
        if self.is_opener { Role::Opener } else { Role::Target }
    }
}

/// Whether a pod may receive a packet that has become `work.to`.
#[inline(always)]
pub fn enters(skb: Skb, work: &Work) -> bool {
    // SAFETY: the value is only read.
    let Some(policed) = (unsafe { POLICED.get(work.to.dst) }) else { return true };
    // A pod has its own address only; and what comes from elsewhere has none of this node's: the node's own packets
    // come by the stack.
    let is_own = match local(&work.packet.tuple.src) {
        Some(place) => {
            work.from_pod != 0 && place.flags & endpoint::HOST == 0 && place.ifindex == skb.ifindex()
        }
        None => work.from_pod == 0,
    };
    if !is_own {
        count(Counter::DropSpoofed);
        return false;
    }
    pass(work, policed, false) == PASS
}

/// The same for what the stack hands to a pod: the interface is the pod's own, and says nothing of the sender.
#[inline(always)]
pub fn enters_by_stack(work: &Work) -> bool {
    // SAFETY: the value is only read.
    let Some(policed) = (unsafe { POLICED.get(work.to.dst) }) else { return true };
    pass(work, policed, false) == PASS
}

/// Whether a pod may send a packet that is to become `work.to`.
#[inline(always)]
pub fn leaves(skb: Skb, work: &Work) -> bool {
    // SAFETY: the value is only read.
    match unsafe { POLICED.get(work.packet.tuple.src) } {
        Some(policed) if policed.ifindex == skb.ifindex() => pass(work, policed, true) == PASS,
        // Under another's address it would be judged by another's policies, or by none.
        _ => {
            count(Counter::DropSpoofed);
            false
        }
    }
}

/// Whether a pod may send what has no ports: what keeps a link going it may, the rest is asked about as port 0.
#[inline(always)]
pub fn leaves_without_ports(skb: Skb, work: &mut Work) -> bool {
    is_link_local(&work.packet) || leaves(skb, as_it_is(work))
}

/// The same of what it receives from the stack.
#[inline(always)]
pub fn enters_without_ports(work: &mut Work) -> bool {
    is_link_local(&work.packet) || enters_by_stack(as_it_is(work))
}

/// A packet that becomes nothing else.
#[inline(always)]
pub fn as_it_is(work: &mut Work) -> &mut Work {
    work.to = work.packet.tuple;
    settled(work)
}

/// Neighbour discovery and its like never leave the link.
#[inline(always)]
fn is_link_local(packet: &Packet) -> bool {
    let first = u32::from_be(packet.tuple.dst.words_be[0]);
    !packet.v4 && packet.protocol == ICMP_V6 && (first >> 16 == 0xff02 || first >> 22 == 0xfe80 >> 6)
}

/// Whether the error that a pod sends is about a flow that is known.
#[inline(always)]
pub fn is_related(skb: Skb, work: &mut Work) -> bool {
    let Some(Work { quoted, .. }) = parse_quoted(skb, work) else { return false };
    let key = FlowKey::new(&quoted.tuple, quoted.protocol);
    // SAFETY: the value is only read.
    unsafe { VERDICTS.get(key) }.is_some()
}

/// Whether the error that a pod is to receive is about what the pod itself has sent; its own stack looks whether that
/// is so.
#[inline(always)]
pub fn is_wanted(skb: Skb, work: &mut Work) -> bool {
    match parse_quoted(skb, work) {
        Some(Work { packet, quoted, .. }) => same_addr(&quoted.tuple.src, &packet.tuple.dst),
        None => false,
    }
}

/// Whether datagrams between the two addresses are allowed.
#[inline(always)]
pub fn is_pair(packet: &Packet) -> bool {
    let pair = Pair { src: packet.tuple.src, dst: packet.tuple.dst };
    // SAFETY: the value is only read.
    unsafe { PAIRS.get(pair) }.is_some()
}

const PASS: i32 = 0;

/// Decides about a packet of a pod that is the sender (`sends`) or the receiver.
#[inline(never)]
fn pass(work: &Work, policed: &Policed, sends: bool) -> i32 {
    let Some(question) = QUESTION.get_ptr_mut(0) else { return TC_ACT_SHOT };
    // SAFETY: this processor's own value, and the program is not preempted.
    let question = unsafe { &mut *question };
    let packet = &work.packet;
    question.tuple = Tuple {
        src: packet.tuple.src,
        dst: work.to.dst,
        src_port_be: packet.tuple.src_port_be,
        dst_port_be: work.to.dst_port_be,
    };
    question.key = FlowKey::new(&question.tuple, packet.protocol);
    question.is_low = sender_is_low(&question.key, &question.tuple);
    question.opens = true;
    question.is_opener = sends;
    let question = settled(question);
    let known = VERDICTS.get_ptr_mut(question.key);
    if let Some(verdict) = known {
        // SAFETY: map values stay mapped while the program runs; racing writers store whole words.
        let verdict = unsafe { &mut *verdict };
        let way = verdict.way(question.is_low);
        if !verdict.is_over(packet.protocol, way, packet.tcp_flags) {
            question.opens = false;
            question.is_reply = way == Direction::Reply;
            question.is_opener = question.is_reply != sends;
            let question = settled(question);
            if verdict.epoch_of(question.role()) == policed.epoch {
                touch(verdict, packet, question);
                return PASS;
            }
            if question.is_reply {
                question.tuple = question.tuple.reversed();
            }
        }
    }
    let question = settled(question);
    if !is_allowed(question, packet.protocol, policed) {
        return deny(question, packet.protocol, policed);
    }
    let question = settled(question);
    if !question.opens
        && let Some(verdict) = known
    {
        // SAFETY: as above.
        let verdict = unsafe { &mut *verdict };
        mark(verdict, question.role(), policed.epoch);
        touch(verdict, packet, question);
        return PASS;
    }
    let role = question.role();
    question.verdict = Verdict::opened(question.is_low, packet.protocol, packet.tcp_flags, now());
    mark(&mut question.verdict, role, policed.epoch);
    remember(packet, settled(question), known)
}

#[inline(always)]
fn mark(verdict: &mut Verdict, role: Role, epoch: u32) {
    match role {
        Role::Opener => verdict.opener_epoch = epoch,
        Role::Target => verdict.target_epoch = epoch,
    }
}

#[inline(always)]
fn touch(verdict: &mut Verdict, packet: &Packet, question: &Question) {
    let now = now();
    // Written only on change: a write would take the cache line from every other processor.
    if verdict.seen_ticks != now {
        verdict.seen_ticks = now;
    }
    let way = if question.is_reply { Direction::Reply } else { Direction::Forward };
    let state = advance(verdict.state, packet.protocol, way, packet.tcp_flags);
    if verdict.state != state {
        verdict.state = state;
    }
}

#[inline(always)]
fn remember(packet: &Packet, question: &mut Question, known: Option<*mut Verdict>) -> i32 {
    match known {
        // SAFETY: as above.
        Some(old) => unsafe { *old = question.verdict },
        None => {
            if is_held(question.verdict.seen_ticks) {
                count(Counter::DropHold);
                return TC_ACT_SHOT;
            }
            match VERDICTS.insert(question.key, question.verdict, u64::from(BPF_NOEXIST)) {
                // Another processor was faster: its packet is of the same flow.
                Ok(()) => {}
                Err(error) if error == EEXIST => {}
                Err(_) => {
                    count(Counter::DropVerdictsFull);
                    return TC_ACT_SHOT;
                }
            }
        }
    }
    if packet.protocol != skep_ebpf_abi::TCP {
        // Both ways, as answers may be large too. A full table forgets the pair that was used least.
        let there = Pair { src: question.tuple.src, dst: question.tuple.dst };
        let back = Pair { src: question.tuple.dst, dst: question.tuple.src };
        let _ = PAIRS.insert(there, 1, 0);
        let _ = PAIRS.insert(back, 1, 0);
    }
    PASS
}

/// Whether the pod's policies allow what `question.tuple` opens.
#[inline(always)]
fn is_allowed(question: &mut Question, protocol: u8, policed: &Policed) -> bool {
    let role = question.role();
    if question.is_opener {
        (question.own, question.other) = (question.tuple.src, question.tuple.dst);
    } else {
        (question.own, question.other) = (question.tuple.dst, question.tuple.src);
    }
    let question = settled(question);
    // A pod is never cut off from itself, nor from its own node: probes must reach it.
    if !policed.is_isolated(role.direction())
        || same_addr(&question.own, &question.other)
        || role == Role::Target && is_own_node(&question.other)
    {
        return true;
    }
    // SAFETY: the value is only read.
    let identity = unsafe { IDENTITIES.get(question.other) }.map_or(peer::WORLD, |identity| *identity);
    let direction = role.direction();
    let block = BlockKey { table: policed.table, direction: u32::from(direction), addr: question.other };
    let class = BLOCKS.get(&Key::new(BlockKey::WHOLE, block)).map_or(peer::WORLD, |class| *class);
    question.peers = looked_up(identity, class);
    let question = settled(question);
    let allows = |peer: u32| {
        let key =
            RuleKey { table: policed.table, peer, direction, protocol, port_be: question.tuple.dst_port_be };
        peer != peer::WORLD && RULES.get(&Key::new(RuleKey::WHOLE, key)).is_some()
    };
    let [anyone, identity, any_pod, class] = question.peers;
    allows(anyone) || allows(identity) || allows(any_pod) || allows(class)
}

#[inline(always)]
fn is_own_node(addr: &Addr) -> bool {
    match local(addr) {
        Some(place) => place.flags & endpoint::HOST != 0,
        None => false,
    }
}

#[inline(always)]
fn deny(question: &Question, protocol: u8, policed: &Policed) -> i32 {
    count(Counter::DropPolicy);
    let key = DeniedKey {
        pod: question.own,
        peer: question.other,
        table: policed.table,
        direction: question.role().direction(),
        protocol,
        port_be: question.tuple.dst_port_be,
    };
    let seen_ticks = now();
    match DENIED.get_ptr_mut(key) {
        // SAFETY: as above; a count lost to a race is one packet.
        Some(denied) => unsafe {
            (*denied).packets += 1;
            (*denied).seen_ticks = seen_ticks;
        },
        None => {
            // A full table forgets what was denied longest ago.
            let _ = DENIED.insert(key, Denied { packets: 1, seen_ticks, zero: 0 }, 0);
        }
    }
    TC_ACT_SHOT
}
