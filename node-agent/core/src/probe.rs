//! Probes: when to run one and what its results mean.

use k8s_openapi::{
    api::core::v1::Probe,
    jiff::{SignedDuration, Timestamp},
};

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Until it passes, the others wait; when it fails, the container is restarted.
    Startup,
    /// When it fails, the container is restarted.
    Liveness,
    /// While it fails, the container gets no traffic.
    Readiness,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        })
    }
}

/// Times and thresholds, with the defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Before the first run.
    pub initial_delay: SignedDuration,
    /// Between runs.
    pub period: SignedDuration,
    /// A run that takes longer failed.
    pub timeout: SignedDuration,
    success_threshold: u32,
    failure_threshold: u32,
}

impl Timing {
    /// From the API's probe.
    #[must_use]
    pub fn new(probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, default: i64, least: i64| {
            SignedDuration::from_secs(value.map_or(default, i64::from).max(least))
        };
        let count = |value: Option<i32>, default: u32| {
            value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
        };
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0, 0),
            period: seconds(probe.period_seconds.filter(|p| *p > 0), 10, 1),
            timeout: seconds(probe.timeout_seconds.filter(|p| *p > 0), 1, 1),
            success_threshold: count(probe.success_threshold, 1),
            failure_threshold: count(probe.failure_threshold, 3),
        }
    }

    /// The first run of a container started then.
    #[must_use]
    pub fn first(&self, started: Timestamp) -> Timestamp {
        started + self.initial_delay
    }
}

/// What the results so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Success,
    /// It fails.
    Failure,
}

/// Results of one probe of one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Results {
    last: Option<bool>,
    in_row: u32,
    verdict: Option<Verdict>,
}

impl Results {
    /// Takes a result in; the verdict when it changed.
    pub fn record(&mut self, timing: &Timing, ok: bool) -> Option<Verdict> {
        self.in_row = if self.last == Some(ok) { self.in_row.saturating_add(1) } else { 1 };
        self.last = Some(ok);
        let threshold = if ok { timing.success_threshold } else { timing.failure_threshold };
        if self.in_row < threshold {
            return None;
        }
        let verdict = if ok { Verdict::Success } else { Verdict::Failure };
        if self.verdict == Some(verdict) {
            return None;
        }
        self.verdict = Some(verdict);
        Some(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_need_their_thresholds() {
        let probe = Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Probe::default() };
        let timing = Timing::new(&probe);
        let mut results = Results::default();
        let verdicts: Vec<_> = [true, true, true, false, false, true, false, false, false, false, true, true]
            .map(|ok| results.record(&timing, ok))
            .into_iter()
            .enumerate()
            .filter_map(|(i, v)| v.map(|v| (i, v)))
            .collect();
        assert_eq!(verdicts, [(1, Verdict::Success), (8, Verdict::Failure), (11, Verdict::Success)]);
    }

    #[test]
    fn defaults_are_filled_in() {
        let timing = Timing::new(&Probe { period_seconds: Some(0), ..Probe::default() });
        assert_eq!(
            (timing.period.as_secs(), timing.timeout.as_secs(), timing.initial_delay.as_secs()),
            (10, 1, 0)
        );
        assert_eq!(timing.failure_threshold, 3);
    }

    proptest::proptest! {
        #[test]
        fn a_verdict_only_comes_when_it_changes(results in proptest::collection::vec(proptest::bool::ANY, 0..200)) {
            let timing = Timing::new(&Probe { success_threshold: Some(1), failure_threshold: Some(2), ..Probe::default() });
            let (mut state, mut last) = (Results::default(), None);
            for ok in results {
                if let Some(verdict) = state.record(&timing, ok) {
                    proptest::prop_assert_ne!(Some(verdict), last);
                    last = Some(verdict);
                }
            }
        }
    }
}
