//! Maglev's consistent hashing (Eisenbud et al., NSDI 2016, section 3.4): every node fills the same table from the same
//! backends, and a changed backend moves few flows.
//!
//! In the map a table is cut into pages, each an element of its own, so that the kernel needs no large piece of memory
//! for it. While a table is replaced, the pages of the old and of the new one stand side by side: every entry is a
//! backend of one of the two.

use crate::hash::{mix, scale, words};
use crate::plain::plain;

/// The size of a table: a prime, good for about 160 backends a service.
pub const SIZE: usize = 16_381;
/// The entries of a page; with what the kernel adds to an element of a hash map just under 1 KiB.
pub const PAGE: usize = 240;
/// The pages of a table.
pub const PAGES: usize = SIZE.div_ceil(PAGE);
/// The seed of flows' hashes; the same on every node, or they would choose differently.
pub const SEED: u64 = 0x736b_6570_6d61_676c;

/// Which page of which set.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageKey {
    /// The set.
    pub set: u32,
    /// From 0.
    pub page: u32,
}
plain!(PageKey, 8);

/// A part of a table. The last one's end belongs to no entry and is zero.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page {
    /// The backends' ids.
    pub backends: [u32; PAGE],
}
plain!(Page, 4 * PAGE);

impl Page {
    /// What stands for the page's content where the content itself would take too much memory. Those of a table's
    /// pages are added up.
    pub fn digest(&self, page: u32) -> u64 {
        let pairs = self.backends.chunks_exact(2).map(|pair| (u64::from(pair[0]) << 32) | u64::from(pair[1]));
        mix(pairs.fold(u64::from(page) + 1, |digest, pair| mix(digest ^ pair)))
    }
}

/// The page and the entry on it that a hash falls on.
#[inline(always)]
pub const fn place(hash: u64) -> (u32, u32) {
    let entry = scale((hash >> 32) as u32, SIZE as u32);
    (entry / PAGE as u32, entry % PAGE as u32)
}

/// A backend's way over the table, each place once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Walk {
    place: usize,
    skip: usize,
}

impl Walk {
    fn new(name: u64, size: u64) -> Self {
        let place = words(0x5ca1_ab1e, name, 1, 0) % size;
        // A prime size makes every skip walk over the whole table.
        let skip = words(0x0ddb_a110, name, 2, 0) % (size - 1) + 1;
        Self { place: place as usize, skip: skip as usize }
    }

    fn next(&mut self, size: usize) -> usize {
        let place = self.place;
        self.place += self.skip;
        if self.place >= size {
            self.place -= size;
        }
        place
    }
}

/// Fills `table` (whose length must be a prime above the number of backends) with indices into `backends`, which
/// are stable 64-bit names of the backends in a fixed order. `walks` is scratch of the backends' length.
/// Without backends, or with too little scratch, the table is left as it was and `false` is returned.
pub fn fill(table: &mut [u32], backends: &[u64], walks: &mut [Walk]) -> bool {
    const FREE: u32 = u32::MAX;
    let size = table.len();
    if backends.is_empty() || walks.len() < backends.len() || size <= backends.len() {
        return false;
    }
    table.fill(FREE);
    for (walk, name) in walks.iter_mut().zip(backends) {
        *walk = Walk::new(*name, size as u64);
    }
    let mut filled = 0;
    loop {
        for (index, walk) in walks.iter_mut().take(backends.len()).enumerate() {
            let mut place = walk.next(size);
            // One is free: the table is not full yet.
            while table[place] != FREE {
                place = walk.next(size);
            }
            table[place] = index as u32;
            filled += 1;
            if filled == size {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    extern crate std;
    use std::collections::BTreeSet;
    use std::vec;
    use std::vec::Vec;

    fn table(backends: &[u64]) -> Vec<u32> {
        let mut table = vec![0; 1021];
        let mut walks = vec![Walk::default(); backends.len()];
        assert!(fill(&mut table, backends, &mut walks));
        table
    }

    /// The names that a table's entries stand for.
    fn named(backends: &[u64]) -> Vec<u64> {
        table(backends).into_iter().map(|index| backends[index as usize]).collect()
    }

    fn names(count: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<u64>> {
        proptest::collection::btree_set(any::<u64>(), count).prop_map(|names| names.into_iter().collect())
    }

    #[test]
    fn nothing_is_written_without_backends() {
        let mut table = [7; 11];
        assert!(!fill(&mut table, &[], &mut []));
        assert_eq!(table, [7; 11]);
    }

    #[test]
    fn more_backends_than_places_are_refused() {
        let backends: Vec<u64> = (0..11).collect();
        assert!(!fill(&mut [0; 11], &backends, &mut [Walk::default(); 11]));
        assert!(fill(&mut [0; 11], &backends[..10], &mut [Walk::default(); 10]));
    }

    #[test]
    fn the_whole_table_lies_in_its_pages() {
        assert_eq!(place(0), (0, 0));
        let last = SIZE as u32 - 1;
        assert_eq!(place(u64::MAX), (last / PAGE as u32, last % PAGE as u32));
        assert_eq!(last / PAGE as u32, PAGES as u32 - 1);
        // Every entry is hit, and none much more often than another.
        let mut hits = vec![0u32; SIZE];
        for flow in 0..SIZE as u64 * 64 {
            let (page, entry) = place(mix(flow));
            hits[page as usize * PAGE + entry as usize] += 1;
        }
        assert!(hits.iter().all(|hits| (16..160).contains(hits)), "{:?}", hits.iter().max());
    }

    #[test]
    fn pages_are_told_apart_by_content_and_place() {
        let (zero, mut one) = (Page { backends: [0; PAGE] }, Page { backends: [0; PAGE] });
        one.backends[PAGE - 1] = 1;
        let digests = [zero.digest(0), zero.digest(1), one.digest(0), one.digest(1)];
        assert_eq!(digests.iter().collect::<BTreeSet<_>>().len(), 4);
    }

    proptest! {
        #[test]
        fn shares_are_equal_but_for_one_entry(backends in names(1..200)) {
            let table = table(&backends);
            let mut shares = vec![0; backends.len()];
            table.iter().for_each(|index| shares[*index as usize] += 1);
            let (least, most) = (shares.iter().min(), shares.iter().max());
            prop_assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{:?}", shares);
        }

        #[test]
        fn one_backend_less_moves_little_but_its_own_flows(backends in names(2..60), which: prop::sample::Index) {
            let mut fewer = backends.clone();
            let gone = fewer.remove(which.index(backends.len()));
            let (before, after) = (named(&backends), named(&fewer));
            prop_assert!(!after.contains(&gone));
            let moved = before.iter().zip(&after).filter(|&(was, is)| *was != gone && was != is).count();
            // A table 17 times as long as the backends are many, at the least: the paper has 1 % at 100 times.
            prop_assert!(moved < 1021 / 4, "{moved} of 1021 entries of others moved, of {} backends", backends.len());
        }

        #[test]
        fn the_table_depends_on_names_only(backends in names(1..100)) {
            prop_assert_eq!(named(&backends), named(&backends));
            let mut table = [9; 1021];
            let mut dirty = vec![Walk { place: 9, skip: 9 }; backends.len() + 1];
            prop_assert!(fill(&mut table, &backends, &mut dirty));
            let again: Vec<u64> = table.iter().map(|index| backends[*index as usize]).collect();
            prop_assert_eq!(again, named(&backends), "what lay in the buffers does not matter");
        }
    }
}
