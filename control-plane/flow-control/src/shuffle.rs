//! Shuffle sharding: a flow's hash deals it a small hand of queues, so that a heavy flow shares all of its
//! queues with few others.

use sha2::{Digest, Sha256};

/// Bits of a hash that dealing may use up; with more the last card would be uneven.
pub const MAX_BITS: u32 = 60;

/// The bits of hash needed to deal a hand out of a deck.
pub fn bits_needed(deck: u32, hand: u32) -> u32 {
    // Both are at least 1 and small: the product is far below what f64 and u32 hold.
    (f64::from(deck).log2() * f64::from(hand)).ceil() as u32
}

/// The hash of a flow.
pub fn flow_hash(schema: &str, distinguisher: &str) -> u64 {
    let mut hash = Sha256::new();
    hash.update(schema.as_bytes());
    hash.update([0]);
    hash.update(distinguisher.as_bytes());
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(first)
}

/// Deals `hand` different queues out of `deck`; the same hash gets the same hand.
pub fn deal(mut hash: u64, deck: u32, hand: u32) -> Vec<usize> {
    let mut dealt: Vec<u64> = Vec::with_capacity(hand as usize);
    for taken in 0..hand.min(deck) {
        let left = u64::from(deck - taken);
        let mut card = hash % left;
        hash /= left;
        // The card counts among those still in the deck: step over the ones dealt, lowest first.
        let mut at = 0;
        while dealt.get(at).is_some_and(|other| *other <= card) {
            card += 1;
            at += 1;
        }
        dealt.insert(at, card);
    }
    dealt.into_iter().filter_map(|card| usize::try_from(card).ok()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_hand_has_different_cards_of_the_deck(hash: u64, deck in 1u32..200, hand in 1u32..12) {
            let dealt = deal(hash, deck, hand);
            prop_assert_eq!(dealt.len(), hand.min(deck) as usize);
            prop_assert!(dealt.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", dealt);
            prop_assert!(dealt.iter().all(|card| *card < deck as usize));
            prop_assert_eq!(deal(hash, deck, hand), dealt);
        }
    }

    #[test]
    fn every_queue_is_dealt_about_as_often() {
        let mut counts = [0u32; 16];
        for flow in 0..4000 {
            for card in deal(flow_hash("schema", &flow.to_string()), 16, 4) {
                counts[card] += 1;
            }
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn entropy_is_counted_as_upstream_does() {
        assert_eq!(bits_needed(64, 6), 36);
        assert_eq!(bits_needed(128, 6), 42);
        assert_eq!(bits_needed(512, 8), 72);
    }
}
