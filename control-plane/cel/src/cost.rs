//! Costs: what an expression may cost, estimated when it is compiled, and what it does cost.
//!
//! The unit and the weights are those every API server uses, because limits on them decide which
//! expressions a cluster accepts.

pub(crate) mod actual;
pub(crate) mod calls;
pub(crate) mod estimate;

/// Of a character that is walked over.
pub(crate) const TRAVERSAL: f64 = 0.1;
/// Of a character of a regular expression.
pub(crate) const REGEX: f64 = 0.25;
/// Of a list that is made.
pub(crate) const LIST: u64 = 10;

/// A range, from the cheapest to the dearest case. Arithmetic saturates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The least.
    pub min: u64,
    /// The most.
    pub max: u64,
}

impl Range {
    pub(crate) const UNKNOWN: Self = Self { min: 0, max: u64::MAX };

    pub(crate) const fn fixed(value: u64) -> Self {
        Self { min: value, max: value }
    }

    pub(crate) const fn new(min: u64, max: u64) -> Self {
        Self { min, max }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(crate) fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    pub(crate) fn scaled(self, factor: f64) -> Self {
        Self { min: scale(self.min, factor), max: scale(self.max, factor) }
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// A size times a factor, rounded up.
pub(crate) fn scale(value: u64, factor: f64) -> u64 {
    let scaled = (value as f64 * factor).ceil();
    // The conversion saturates.
    scaled as u64
}
