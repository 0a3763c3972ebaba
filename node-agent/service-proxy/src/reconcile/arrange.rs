//! Placing members in slots with few writes.

use std::collections::BTreeSet;

/// The members of `wanted` in an order in which as many as possible keep their slot: a leaving one's place is taken
/// by a new one or by one from the end.
pub(super) fn arrange(current: &[u32], wanted: &BTreeSet<u32>) -> Vec<u32> {
    let length = wanted.len();
    let mut placed: Vec<Option<u32>> = vec![None; length];
    let mut left = wanted.clone();
    for (place, id) in current.iter().take(length).enumerate() {
        if left.remove(id) {
            placed[place] = Some(*id);
        }
    }
    let mut rest = left.into_iter();
    placed.into_iter().map(|place| place.or_else(|| rest.next())).map_while(|id| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(current: &[u32], wanted: &[u32], expected: &[u32]) {
        assert_eq!(arrange(current, &wanted.iter().copied().collect()), expected);
    }

    #[test]
    fn members_keep_their_slots() {
        check(&[], &[3, 1, 2], &[1, 2, 3]);
        check(&[3, 1, 2], &[1, 2, 3], &[3, 1, 2]);
        check(&[3, 1, 2], &[1, 2, 3, 4], &[3, 1, 2, 4]);
        check(&[3, 1, 2], &[3, 2], &[3, 2]);
        check(&[3, 1, 2], &[3, 2, 9], &[3, 9, 2]);
        check(&[3, 1, 2], &[], &[]);
        check(&[5, 5], &[5, 6], &[5, 6]);
    }
}
