//! A small mutation engine for plain test runs: repeatable, without coverage feedback.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// No input grows beyond this.
const MOST: usize = 1 << 14;

/// Pieces that mean something to one parser or another.
const WORDS: &[&[u8]] = &[
    b"{}",
    b"[]",
    b"null",
    b"\"\"",
    b"-1",
    b"1e999",
    b"9223372036854775808",
    b"\\u0000",
    b"\"$patch\":\"replace\"",
    b"- ",
    b": ",
    b"&a ",
    b"*a",
    b"!!binary ",
    b"\n---\n",
    b"metadata",
    b"\"spec\":",
    b"k8s\0",
    b"\xff\xff\xff\xff",
    b"!=",
    b" in (",
    b")",
    b",",
    b"~1",
    b"/-",
    b"Ki",
    b"E",
    b"\xf0\x9f\x90\x9d",
    b"\0",
];

/// Makes inputs out of seeds.
pub struct Mutator {
    random: StdRng,
    pool: &'static [&'static [u8]],
}

impl Mutator {
    /// The same seed gives the same inputs.
    pub fn new(seed: u64, pool: &'static [&'static [u8]]) -> Self {
        Self { random: StdRng::seed_from_u64(seed), pool }
    }

    /// One to four changes of `input`.
    pub fn mutated(&mut self, input: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..self.random.random_range(1..=4) {
            self.change(&mut bytes);
        }
        bytes.truncate(MOST);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.random.random_range(0..=bytes.len());
        let to = self.random.random_range(at..=bytes.len().min(at + 64));
        match self.random.random_range(0..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = self.random.random(),
            2 => drop(bytes.drain(at..to)),
            3 => {
                let piece = bytes[at..to].to_vec();
                let place = self.random.random_range(0..=bytes.len());
                bytes.splice(place..place, piece);
            }
            4 => bytes.truncate(at),
            5 => {
                let other = self.pool.choose(&mut self.random).copied().unwrap_or_default();
                let from = self.random.random_range(0..=other.len());
                bytes.splice(at..to, other[from..].iter().copied());
            }
            _ => {
                let word = WORDS.choose(&mut self.random).copied().unwrap_or_default();
                bytes.splice(at..at, word.iter().copied());
            }
        }
    }
}
