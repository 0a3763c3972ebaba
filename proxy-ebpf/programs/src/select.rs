//! Choosing a backend.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::maps::lpm_trie::Key;
use skep_ebpf_abi::Addr;
use skep_ebpf_abi::conntrack::{ticks, ticks_of_seconds};
use skep_ebpf_abi::hash::{client as hash_of_client, scale};
use skep_ebpf_abi::maglev::{self, PageKey};
use skep_ebpf_abi::service::{
    Affinity, AffinityKey, AffinityMatch, Backend, Frontend, Set, SlotKey, SourceRange, frontend, set,
};

use crate::maps::{AFFINITY, AFFINITY_MATCH, BACKENDS, MAGLEV, SETS, SLOTS, SOURCE_RANGES};
use crate::packet::Packet;

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

/// What a new client's backend depends on.
#[derive(Clone, Copy)]
pub enum Lot<'a> {
    /// Chance.
    Chance(u32),
    /// Where a set has a table, the packet's own hash, so that every node chooses alike; else chance.
    Hash(u32, &'a Packet),
}

/// Takes a backend of `set`: the one `client` sticks to, else the one that the lot falls on.
#[inline(always)]
pub fn choose(set_id: u32, client: &AffinityKey, lot: Lot<'_>) -> Choice {
    // SAFETY: values are read only; an element replaced meanwhile stays readable until the program ends.
    let Some(set) = (unsafe { SETS.get(set_id) }) else { return Choice::Broken };
    if set.count == 0 {
        return Choice::Empty(set.flags);
    }
    if set.affinity_seconds != 0 {
        return sticky(set_id, set, client, lot);
    }
    fresh(set_id, set, lot)
}

#[inline(always)]
fn fresh(set_id: u32, set: &Set, lot: Lot<'_>) -> Choice {
    let entropy = match lot {
        Lot::Chance(entropy) => entropy,
        Lot::Hash(entropy, packet) => {
            if set.flags & set::MAGLEV != 0
                && let Some(choice) = by_hash(set_id, set, packet)
            {
                return choice;
            }
            entropy
        }
    };
    by_slot(set_id, set.count, entropy)
}

/// The backend in the set's table, unless the table is just being replaced. A client that sticks to its backend gets
/// the same one whatever port it comes from.
#[inline(always)]
fn by_hash(set_id: u32, set: &Set, packet: &Packet) -> Option<Choice> {
    let tuple = &packet.tuple;
    let src_port_be = if set.affinity_seconds == 0 { tuple.src_port_be } else { 0 };
    let hash = hash_of_client(maglev::SEED, &tuple.src, src_port_be, tuple.dst_port_be, packet.protocol);
    let (page, entry) = maglev::place(hash);
    // SAFETY: as above.
    let page = unsafe { MAGLEV.get(PageKey { set: set_id, page }) }?;
    // The compiler knows that the entry is on the page and would leave the check out, which the verifier wants to see.
    let id = *page.backends.get(core::hint::black_box(entry as usize))?;
    // SAFETY: as above.
    Some(Choice::Backend(id, unsafe { BACKENDS.get(id) }?))
}

#[inline(always)]
fn by_slot(set: u32, count: u32, entropy: u32) -> Choice {
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
fn sticky(set_id: u32, set: &Set, client: &AffinityKey, lot: Lot<'_>) -> Choice {
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
    let choice = fresh(set_id, set, lot);
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
