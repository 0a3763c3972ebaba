//! A limit on errors that we send: an answer to every packet would let anyone make this node shout at others.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;

use crate::select::now;

/// Errors a processor may send in a unit of time, see [`skep_ebpf_abi::conntrack::ticks`].
const LIMIT: u32 = 1000;

/// The present unit of time, and how many errors it has seen.
#[map(name = "errors")]
static ERRORS: PerCpuArray<[u32; 2]> = PerCpuArray::with_max_entries(1, 0);

/// Whether one more error may be sent; counts it.
#[inline(always)]
pub fn may_send_error() -> bool {
    let Some(entry) = ERRORS.get_ptr_mut(0) else { return false };
    // SAFETY: the pointer is this processor's value, and the programs are not preempted.
    let entry = unsafe { &mut *entry };
    let now = now();
    if entry[0] != now {
        *entry = [now, 0];
    }
    entry[1] += 1;
    entry[1] <= LIMIT
}
