//! Latencies in buckets whose width grows with the value: at most 1/64 off, in a fixed amount of memory.

use serde::Serialize;

/// Buckets per power of two.
const FINE: u64 = 64;
const FINE_BITS: u32 = FINE.trailing_zeros();
/// Values up to 2^40 ns (18 minutes) are told apart; larger ones count as that.
const TOP_BITS: u32 = 40;
const BUCKETS: usize = ((TOP_BITS - FINE_BITS + 1) as usize) * FINE as usize;

/// A histogram of nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

/// What a report shows, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Percentiles {
    /// Half are below.
    pub p50_us: f64,
    /// Nine in ten are below.
    pub p90_us: f64,
    /// 99 in 100 are below.
    pub p99_us: f64,
    /// 999 in 1000 are below.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts a value.
    pub fn record(&mut self, nanoseconds: u64) {
        self.counts[bucket(nanoseconds)] += 1;
        self.total += 1;
        self.max = self.max.max(nanoseconds);
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, more)| *own += more);
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The value below which this share (0 to 1) of the values lies; 0 if there are none.
    #[must_use]
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank.max(1) {
                return upper_bound(index).min(self.max);
            }
        }
        self.max
    }

    /// The usual percentiles.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn percentiles(&self) -> Percentiles {
        let us = |share| self.quantile(share) as f64 / 1000.0;
        Percentiles {
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: self.max as f64 / 1000.0,
        }
    }
}

fn bucket(value: u64) -> usize {
    let value = value.min((1 << TOP_BITS) - 1);
    if value < FINE {
        return usize::try_from(value).expect("small");
    }
    let exponent = value.ilog2() - FINE_BITS;
    let fine = (value >> exponent) - FINE;
    usize::try_from((u64::from(exponent) + 1) * FINE + fine).expect("bounded by TOP_BITS")
}

fn upper_bound(index: usize) -> u64 {
    let index = index as u64;
    if index < FINE {
        return index;
    }
    let (exponent, fine) = (index / FINE - 1, index % FINE);
    ((FINE + fine + 1) << exponent) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        for value in
            (0..5000).chain((12..40).flat_map(|bits| [(1_u64 << bits) - 1, 1 << bits, (1 << bits) + 7]))
        {
            let index = bucket(value);
            assert!(index < BUCKETS, "{value}");
            assert!(upper_bound(index) >= value, "{value}");
            assert!(index == 0 || upper_bound(index - 1) < value, "{value}");
            assert!(upper_bound(index) - value <= value / FINE + 1, "{value}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_of_a_known_series() {
        let (mut a, mut b) = (Histogram::default(), Histogram::default());
        (1..=500).for_each(|n| a.record(n * 1000));
        (501..=1000).for_each(|n| b.record(n * 1000));
        a.merge(&b);
        let got = a.percentiles();
        assert_eq!(a.count(), 1000);
        for (got, want) in
            [(got.p50_us, 500.0), (got.p90_us, 900.0), (got.p99_us, 990.0), (got.max_us, 1000.0)]
        {
            assert!((got - want).abs() / want < 0.02, "{got} is not near {want}");
        }
        assert_eq!(Histogram::default().quantile(0.5), 0);
    }
}
