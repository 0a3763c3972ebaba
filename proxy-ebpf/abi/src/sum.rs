//! The Internet checksum (RFC 1071) in pieces, in memory's order of bytes: the sum does not depend on it.

/// Adds up the two halves of a word; a sum of up to 32,768 of these cannot overflow.
#[inline(always)]
pub const fn word(word: u32) -> u32 {
    (word & 0xffff) + (word >> 16)
}

/// Four bytes of a header as a word.
#[inline(always)]
pub const fn pair(first: [u8; 2], second: [u8; 2]) -> u32 {
    u32::from_ne_bytes([first[0], first[1], second[0], second[1]])
}

/// The checksum of a sum.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    !(twice as u16)
}

/// A value `p` for a checksum's field, given the sum of all `others`, for which `fold(others + p) == p`: computing the
/// checksum with the field in place gives the field again.
///
/// `p = -(others + p)` means `2p = -others`, and in the arithmetic modulo 0xffff the half of 1 is 0x8000.
#[inline(always)]
pub const fn fixed_point(others: u32) -> u16 {
    let negative = fold(others) as u32;
    // Times 0x8000 modulo 0xffff is a rotation by fifteen bits, which is one to the right.
    ((negative >> 1) | ((negative & 1) << 15)) as u16
}

/// The checksum after `from` has become `to`; for one that is complete (RFC 1624, equation 3).
#[inline(always)]
pub const fn replace(checksum: u16, from: u32, to: u32) -> u16 {
    fold(!checksum as u32 + word(!from) + word(to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn checksum(words: &[u32]) -> u16 {
        fold(words.iter().map(|w| word(*w)).sum())
    }

    proptest! {
        #[test]
        fn completing_a_fixed_point_leaves_it(ports: u32, length: u16) {
            let others = word(ports) + u32::from(length);
            let field = fixed_point(others);
            let again = fold(others + u32::from(field));
            // Both forms of zero are the same sum.
            prop_assert!(again == field || (again == 0 && field == 0xffff) || (again == 0xffff && field == 0));
        }

        #[test]
        fn replacing_gives_the_sum_over_the_new_words(a: u32, b: u32, c in 1u32.., to: u32) {
            let before = checksum(&[a, b, c]);
            let (after, wanted) = (replace(before, b, to), checksum(&[a, to, c]));
            prop_assert_eq!(after, wanted);
        }
    }
}
