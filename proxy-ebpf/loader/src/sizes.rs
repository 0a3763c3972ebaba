//! How large maps are: small to begin with, and growing with what they hold, up to a share of the machine's memory.
//!
//! A hash takes memory for every element it has, but also for a table of buckets that is made for its limit, and one
//! that forgets takes all of its memory at once. So limits are small until they are needed.

use std::collections::BTreeMap;

/// The maps that can grow, and their limits at first.
pub(crate) const START: [(&str, u32); 12] = [
    ("frontends", 16_384),
    ("sets", 16_384),
    ("slots", 65_536),
    ("maglev", 2_208),
    ("backends", 32_768),
    ("affinity_match", 16_384),
    ("source_ranges", 16_384),
    ("affinity", 16_384),
    ("connected", 65_536),
    ("reverse", 16_384),
    ("flows", 65_536),
    ("flow_index", 65_536),
];
/// Where programs cannot be exchanged while they work (no TCX before 6.6), maps must be large from the start.
const FIXED: [(&str, u32); 12] = [
    ("frontends", 262_144),
    ("sets", 131_072),
    ("slots", 1_048_576),
    ("maglev", 35_328),
    ("backends", 524_288),
    ("affinity_match", 524_288),
    ("source_ranges", 65_536),
    ("affinity", 65_536),
    ("connected", 1_048_576),
    ("reverse", 131_072),
    ("flows", 262_144),
    ("flow_index", 262_144),
];
/// No map needs more, and a mistake shall not ask for it.
const LONGEST: u32 = 1 << 24;
/// What the kernel adds to an element: its own head and the allocator's rounding.
const HEAD: u64 = 64;
const BUCKET: u64 = 16;

/// What is known of a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    pub(crate) key: u32,
    pub(crate) value: u32,
    pub(crate) limit: u32,
}

impl Shape {
    /// Its memory when it is full.
    pub(crate) fn bytes(&self) -> u64 {
        let round = |size: u32| u64::from(size).next_multiple_of(8);
        let element = round(self.key) + round(self.value) + HEAD;
        u64::from(self.limit) * element + u64::from(self.limit.next_power_of_two()) * BUCKET
    }
}

/// The limits to begin with, where `own` does not say it.
pub(crate) fn start(can_grow: bool, own: &BTreeMap<String, u32>) -> BTreeMap<String, u32> {
    let usual = if can_grow { START } else { FIXED };
    let mut sizes: BTreeMap<String, u32> =
        usual.into_iter().map(|(name, limit)| (name.to_owned(), limit)).collect();
    sizes.extend(own.clone());
    sizes
}

/// The limit for a map that must hold `wanted` elements, if the one it has is too small: with head-room, as exchanging
/// maps is work, and twice what it was at least.
pub(crate) fn grown(limit: u32, wanted: u32) -> Option<u32> {
    if wanted <= limit {
        return None;
    }
    let room = wanted.saturating_add(wanted / 2).max(limit.saturating_mul(2));
    let grown = room.checked_next_power_of_two().unwrap_or(LONGEST).min(LONGEST);
    (grown > limit).then_some(grown)
}

/// What all maps may take together: an eighth of the machine's memory, two gigabytes at most.
pub(crate) fn usual_cap() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(1 << 20);
    (kib * 1024 / 8).min(2 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_leaves_room_and_ends() {
        for (limit, wanted, expected) in [
            (16_384, 16_384, None),
            (16_384, 16_385, Some(32_768)),
            (16_384, 50_000, Some(131_072)),
            (1 << 24, u32::MAX, None),
            (1 << 23, u32::MAX, Some(1 << 24)),
        ] {
            assert_eq!(grown(limit, wanted), expected, "{limit} {wanted}");
        }
    }

    #[test]
    fn a_full_table_of_flows_has_its_price() {
        let flows = Shape { key: 40, value: 84, limit: 65_536 };
        assert_eq!(flows.bytes(), 65_536 * (40 + 88 + 64) + 65_536 * 16);
    }
}
