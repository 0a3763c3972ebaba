//! Counting.

use skep_ebpf_abi::counter::Counter;

use crate::maps::COUNTERS;

/// Adds one.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the pointer is this processor's value, and the programs are not preempted.
        unsafe { *value += 1 };
    }
}
