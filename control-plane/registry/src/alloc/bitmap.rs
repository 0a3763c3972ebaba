//! A set of small numbers out of which free ones are drawn at random.
//!
//! The lower `reserved` part is given to who asks for a certain number; what is drawn comes from the
//! upper part while that has room, so that the two rarely meet.

use rand::Rng;

/// The set `0..size`.
#[derive(Clone, Debug)]
pub(crate) struct Bitmap {
    words: Vec<u64>,
    size: u32,
    reserved: u32,
}

impl Bitmap {
    /// An empty set.
    pub(crate) fn new(size: u32, reserved: u32) -> Self {
        let words = vec![0; (size as usize).div_ceil(64)];
        Self { words, size, reserved: reserved.min(size) }
    }

    /// Takes `number`; `false` when it is taken or out of range.
    pub(crate) fn take(&mut self, number: u32) -> bool {
        if number >= self.size || self.has(number) {
            return false;
        }
        self.words[number as usize / 64] |= 1 << (number % 64);
        true
    }

    /// Gives `number` back.
    pub(crate) fn release(&mut self, number: u32) {
        if self.has(number) {
            self.words[number as usize / 64] &= !(1 << (number % 64));
        }
    }

    /// Gives everything back.
    pub(crate) fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Is it taken?
    pub(crate) fn has(&self, number: u32) -> bool {
        number < self.size && self.words[number as usize / 64] & (1 << (number % 64)) != 0
    }

    /// Takes any free number.
    pub(crate) fn draw(&mut self) -> Option<u32> {
        let number = self.find(self.reserved, self.size).or_else(|| self.find(0, self.reserved))?;
        self.take(number).then_some(number)
    }

    /// A free number in `from..to`, searched from a random place on.
    fn find(&self, from: u32, to: u32) -> Option<u32> {
        if from >= to {
            return None;
        }
        let start = rand::rng().random_range(from..to);
        (start..to).chain(from..start).find(|number| !self.has(*number))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn draws_every_number_once_and_the_reserved_ones_last() {
        let mut set = Bitmap::new(100, 10);
        let upper: HashSet<u32> = (0..90).map(|_| set.draw().expect("free")).collect();
        assert_eq!(upper, (10..100).collect());
        let lower: HashSet<u32> = (0..10).map(|_| set.draw().expect("free")).collect();
        assert_eq!(lower, (0..10).collect());
        assert_eq!(set.draw(), None);
        set.release(42);
        assert_eq!(set.draw(), Some(42));
        assert_eq!(set.draw(), None);
    }

    #[test]
    fn refuses_what_is_taken_or_out_of_range() {
        let mut set = Bitmap::new(8, 0);
        assert!(set.take(7));
        assert!(!set.take(7));
        assert!(!set.take(8));
        set.release(200);
        assert!(!set.has(200));
    }
}
