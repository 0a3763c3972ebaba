//! Maglev's consistent hashing: every node fills the same table from the same backends, and a changed backend
//! moves few flows.

use crate::hash::words;

/// The usual table size: a prime, good for about 160 backends a service.
pub const SIZE: usize = 16_381;

/// Fills `table` (whose length must be a prime above the number of backends) with indices into `backends`, which
/// are stable 64-bit names of the backends in a fixed order. `next` is scratch of the backends' length.
/// Without backends, or with too little scratch, the table is left as it was and `false` is returned.
pub fn fill(table: &mut [u32], backends: &[u64], next: &mut [u32]) -> bool {
    const FREE: u32 = u32::MAX;
    let size = table.len() as u64;
    if backends.is_empty() || next.len() < backends.len() || size <= backends.len() as u64 {
        return false;
    }
    table.fill(FREE);
    next.fill(0);
    let mut filled = 0;
    loop {
        for (index, &name) in backends.iter().enumerate() {
            let offset = words(0x5ca1_ab1e, name, 1, 0) % size;
            let skip = words(0x0ddb_a110, name, 2, 0) % (size - 1) + 1;
            // A prime size makes every skip walk over the whole table, so a free place is found.
            loop {
                let place = ((offset + u64::from(next[index]) * skip) % size) as usize;
                next[index] += 1;
                if table[place] == FREE {
                    table[place] = index as u32;
                    filled += 1;
                    break;
                }
            }
            if filled == table.len() {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    fn table(backends: &[u64]) -> Vec<u32> {
        let mut table = vec![0; 1021];
        let mut next = vec![0; backends.len()];
        assert!(fill(&mut table, backends, &mut next));
        table
    }

    #[test]
    fn backends_get_equal_shares() {
        let backends: Vec<u64> = (0..10).collect();
        let table = table(&backends);
        for index in 0..10 {
            let share = table.iter().filter(|&&b| b == index).count();
            assert!((100..=104).contains(&share), "backend {index} has {share} of 1021");
        }
    }

    #[test]
    fn losing_one_of_ten_moves_little_else() {
        let all: Vec<u64> = (0..10).collect();
        let before = table(&all);
        let after = table(&all[..9]);
        let moved = before.iter().zip(&after).filter(|&(&b, &a)| b != 9 && b != a).count();
        assert!(moved < 1021 / 10, "{moved} entries of other backends moved");
    }

    #[test]
    fn nothing_is_written_without_backends() {
        let mut table = [7; 11];
        assert!(!fill(&mut table, &[], &mut []));
        assert_eq!(table, [7; 11]);
    }
}
