//! How long to wait before trying again.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// First and longest pause between restarts of a crashing container and between image pulls.
const BASE: i64 = 10;
const MAX: i64 = 300;
/// A container that ran so long has recovered: its next crash counts as the first.
const RESET: i64 = 600;

/// Counts failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// As if it had failed that often: what an agent that was restarted assumes.
    #[must_use]
    pub fn resumed(failures: u32) -> Self {
        Self { failures }
    }

    /// The pause before the next try: none before the first retry, then 10 s doubling to 5 min.
    #[must_use]
    pub fn pause(self) -> SignedDuration {
        match self.failures {
            0 | 1 => SignedDuration::ZERO,
            n => SignedDuration::from_secs((BASE << (n - 2).min(10)).min(MAX)),
        }
    }

    /// The pause when even the first retry waits, as for image pulls.
    #[must_use]
    pub fn patient_pause(self) -> SignedDuration {
        Self { failures: self.failures + 1 }.pause()
    }

    /// Counts a failure of something that ran from `started` to `now`.
    pub fn failed(&mut self, started: Option<Timestamp>, now: Timestamp) {
        let long = started.is_some_and(|s| now.duration_since(s) >= SignedDuration::from_secs(RESET));
        self.failures = if long { 1 } else { self.failures.saturating_add(1) };
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes_and_reset() {
        let (mut backoff, now) = (Backoff::default(), Timestamp::UNIX_EPOCH);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            backoff.failed(None, now);
            pauses.push(backoff.pause().as_secs());
        }
        assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 300, 300]);
        backoff.failed(Some(now), now + SignedDuration::from_secs(601));
        assert_eq!(backoff.pause().as_secs(), 0);
        assert_eq!(Backoff::resumed(u32::MAX).pause().as_secs(), 300);
        assert_eq!(Backoff::resumed(1).patient_pause().as_secs(), 10);
    }
}
