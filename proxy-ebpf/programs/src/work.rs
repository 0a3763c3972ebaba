//! The packet at hand, in this processor's own memory.
//!
//! Not on the stack, for two reasons: it would not fit into 512 bytes; and the verifier follows every value on the
//! stack, so that each way through the parser would be followed through all that comes after it. Of what lies in a map
//! it assumes nothing, and all ways become one.

#![allow(missing_docs)] // The macro generates an undocumented item beside each documented one.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use skep_ebpf_abi::flow::{Flow, FlowKey, Tuple};

use crate::packet::Packet;

/// What is known of a packet, and what is to become of it.
#[repr(C)]
pub struct Work {
    /// The packet.
    pub packet: Packet,
    /// Of an ICMP error: the packet that it quotes.
    pub quoted: Packet,
    /// What the packet becomes.
    pub to: Tuple,
    /// What the quoted packet becomes.
    pub quoted_to: Tuple,
    /// A flow that is being opened.
    pub flow: Flow,
    /// The key of its backend's side.
    pub key: FlowKey,
    /// 1: a pod of this node has sent it, over the interface that it came in by.
    pub from_pod: u32,
}

#[map(name = "work")]
static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

/// This processor's.
#[inline(always)]
pub fn work() -> Option<&'static mut Work> {
    // SAFETY: programs are not preempted by programs that use it: those of one packet run one after another.
    Some(unsafe { &mut *WORK.get_ptr_mut(0)? })
}

/// Makes the compiler forget what it has just stored, as it would otherwise keep it in registers, where the verifier
/// sees it.
#[inline(always)]
pub fn settled<T>(value: &mut T) -> &mut T {
    core::hint::black_box(value)
}
