//! SCTP's checksum (CRC32c, RFC 9260 appendix A) after a change, without reading the packet.
//!
//! A cyclic code is linear: the checksum of a changed packet is the old one with the checksum of the difference, begun
//! from nothing, taken to it. The difference is one word, and what follows it is nothing but zeros. Going over a zero is
//! a linear map of the checksum's 32 bits, going over two is that map twice: so there is a table for every power of two
//! of bytes, by half bytes, and any length takes at most sixteen of these.

/// The polynomial, its bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// Lengths have sixteen bits.
const POWERS: usize = 16;

type Map = [[u32; 16]; 8];

/// `ZEROS[k]` goes over `2^k` bytes of zeros.
static ZEROS: [Map; POWERS] = zeros();

const fn one_byte(mut value: u32) -> u32 {
    let mut bit = 0;
    while bit < 8 {
        value = (value >> 1) ^ (POLYNOMIAL * (value & 1));
        bit += 1;
    }
    value
}

const fn apply(map: &Map, value: u32) -> u32 {
    let mut result = 0;
    let mut place = 0;
    while place < 8 {
        result ^= map[place][((value >> (4 * place)) & 15) as usize];
        place += 1;
    }
    result
}

const fn zeros() -> [Map; POWERS] {
    let mut maps = [[[0; 16]; 8]; POWERS];
    let mut power = 0;
    while power < POWERS {
        let mut place = 0;
        while place < 8 {
            let mut digit = 0;
            while digit < 16 {
                let value = (digit as u32) << (4 * place);
                maps[power][place][digit] = if power == 0 {
                    one_byte(value)
                } else {
                    apply(&maps[power - 1], apply(&maps[power - 1], value))
                };
                digit += 1;
            }
            place += 1;
        }
        power += 1;
    }
    maps
}

/// The checksum of a packet of `length` bytes whose first word was `from` and becomes `to`, all as they lie in memory
/// of a little-endian machine.
#[inline(always)]
pub fn replace_first(checksum: u32, length: u16, from: u32, to: u32) -> u32 {
    let mut value = from ^ to;
    for (power, map) in ZEROS.iter().enumerate() {
        if length & (1 << power) != 0 {
            value = apply(map, value);
        }
    }
    checksum ^ value
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    extern crate std;
    use std::vec::Vec;

    /// The checksum as the standard defines it.
    fn crc32c(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| one_byte(crc ^ u32::from(*byte)))
    }

    #[test]
    fn the_reference_is_right() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn a_change_of_the_first_word_is_followed(
            mut packet in prop::collection::vec(any::<u8>(), 12..2000),
            to: [u8; 4],
        ) {
            let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let before = crc32c(&packet);
            let from = word(&packet);
            packet[..4].copy_from_slice(&to);
            let found = replace_first(before, packet.len() as u16, from, word(&to));
            prop_assert_eq!(found, crc32c(&packet));
        }
    }

    #[test]
    fn the_longest_packet_is_followed_too() {
        let mut packet: Vec<u8> = (0..u16::MAX).map(|n| n as u8).collect();
        let before = crc32c(&packet);
        packet[..4].copy_from_slice(&[9, 8, 7, 6]);
        let (from, to) = (u32::from_le_bytes([0, 1, 2, 3]), u32::from_le_bytes([9, 8, 7, 6]));
        assert_eq!(replace_first(before, u16::MAX, from, to), crc32c(&packet));
    }
}
