//! Choosing a backend.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::maps::lpm_trie::Key;
use skep_ebpf_abi::Addr;
use skep_ebpf_abi::conntrack::{ticks, ticks_of_seconds};
use skep_ebpf_abi::hash::scale;
use skep_ebpf_abi::service::{
    Affinity, AffinityKey, AffinityMatch, Backend, Frontend, Set, SlotKey, SourceRange, frontend,
};

use crate::maps::{AFFINITY, AFFINITY_MATCH, BACKENDS, SETS, SLOTS, SOURCE_RANGES};

/// The answer to "who serves this?".
pub enum Choice {
    /// This one, by id.
    Backend(u32, &'static Backend),
    /// Nobody; the set's flags say what to do.
    Empty(u32),
    /// The maps contradict each other; user space is about to repair that.
    Broken,
}

/// Whether a frontend's source ranges let this source in. They hold for pods and the node as for anybody.
#[inline(always)]
pub fn may_come(frontend: &Frontend, source: &Addr) -> bool {
    if frontend.flags & frontend::SOURCE_RANGES == 0 {
        return true;
    }
    let range = SourceRange { set: frontend.external_set, addr: *source };
    SOURCE_RANGES.get(&Key::new(SourceRange::LOOKUP_BITS, range)).is_some()
}

/// Takes a backend of `set`: the one `client` sticks to, else the one that `entropy` falls on.
#[inline(always)]
pub fn choose(set_id: u32, client: &AffinityKey, entropy: u32) -> Choice {
    // SAFETY: values are read only; an element replaced meanwhile stays readable until the program ends.
    let Some(set) = (unsafe { SETS.get(set_id) }) else { return Choice::Broken };
    if set.count == 0 {
        return Choice::Empty(set.flags);
    }
    if set.affinity_seconds != 0 {
        return sticky(set_id, set, client, entropy);
    }
    fresh(set_id, set.count, entropy)
}

#[inline(always)]
fn fresh(set: u32, count: u32, entropy: u32) -> Choice {
    let slot = scale(entropy, count) + 1;
    // SAFETY: as above.
    let id = unsafe { SLOTS.get(SlotKey { set, slot }) };
    // The set may have shrunk since its count was read; the first slot is the last to go.
    // SAFETY: as above.
    let id = match id.or_else(|| unsafe { SLOTS.get(SlotKey { set, slot: 1 }) }) {
        Some(id) => *id,
        None => return Choice::Broken,
    };
    // SAFETY: as above.
    match unsafe { BACKENDS.get(id) } {
        Some(backend) => Choice::Backend(id, backend),
        None => Choice::Broken,
    }
}

#[inline(always)]
fn sticky(set_id: u32, set: &Set, client: &AffinityKey, entropy: u32) -> Choice {
    let now = now();
    // SAFETY: as above.
    if let Some(known) = unsafe { AFFINITY.get(client) } {
        let id = known.backend;
        let fresh_enough = now.wrapping_sub(known.used_ticks) <= ticks_of_seconds(set.affinity_seconds);
        // SAFETY: as above.
        let belongs = unsafe { AFFINITY_MATCH.get(AffinityMatch { set: set_id, backend: id }) }.is_some();
        if fresh_enough && belongs {
            // SAFETY: as above.
            if let Some(backend) = unsafe { BACKENDS.get(id) } {
                remember(client, id, now);
                return Choice::Backend(id, backend);
            }
        }
    }
    let choice = fresh(set_id, set.count, entropy);
    if let Choice::Backend(id, _) = choice {
        remember(client, id, now);
    }
    choice
}

#[inline(always)]
fn remember(client: &AffinityKey, backend: u32, now: u32) {
    // A full table costs this client its affinity, not its connection.
    let _ = AFFINITY.insert(client, Affinity { backend, used_ticks: now }, 0);
}

/// The time in ticks. The boot clock counts suspended time too, as timeouts should.
#[inline(always)]
pub fn now() -> u32 {
    // SAFETY: the helper has no preconditions.
    ticks(unsafe { bpf_ktime_get_boot_ns() })
}
