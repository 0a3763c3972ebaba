//! How many seats a level could use: time-weighted mean and deviation over a period, smoothed over
//! periods so that a level keeps for some minutes what a burst has earned it.

use std::time::Duration;

/// How much of the old value stays with each period; with ten seconds a period it halves in five minutes.
const DECAY: f64 = 0.977;

/// A number followed through time.
#[derive(Clone, Debug, Default)]
pub struct Integrator {
    value: f64,
    since: Duration,
    seconds: f64,
    sum: f64,
    squares: f64,
    highest: f64,
}

/// What a period was like.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Period {
    /// Its length; mean and deviation of an empty one are 0.
    pub seconds: f64,
    /// The mean.
    pub mean: f64,
    /// The standard deviation.
    pub deviation: f64,
    /// The highest value.
    pub highest: f64,
}

impl Integrator {
    /// The value is this from now on.
    pub fn set(&mut self, value: f64, now: Duration) {
        self.advance(now);
        self.value = value;
        self.highest = self.highest.max(value);
    }

    fn advance(&mut self, now: Duration) {
        let seconds = now.saturating_sub(self.since).as_secs_f64();
        self.since = self.since.max(now);
        self.seconds += seconds;
        self.sum += self.value * seconds;
        self.squares += self.value * self.value * seconds;
    }

    /// Ends a period and begins the next.
    pub fn end_period(&mut self, now: Duration) -> Period {
        self.advance(now);
        let mut period = Period { seconds: self.seconds, highest: self.highest, ..Period::default() };
        if self.seconds > 0.0 {
            period.mean = self.sum / self.seconds;
            // Rounding may take the difference below zero.
            period.deviation = (self.squares / self.seconds - period.mean * period.mean).max(0.0).sqrt();
        }
        *self = Self { value: self.value, since: self.since, highest: self.value, ..Self::default() };
        period
    }
}

/// The demand of a level as borrowing sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// The last period.
    pub last: Period,
    /// Mean and deviation, smoothed: rises at once, falls slowly.
    pub smoothed: f64,
}

impl Demand {
    /// Takes a period in.
    pub fn update(&mut self, period: Period) {
        self.last.highest = period.highest.round();
        if period.seconds <= 0.0 {
            return;
        }
        self.last = Period { highest: period.highest.round(), ..period };
        let envelope = period.mean + period.deviation;
        self.smoothed = envelope.max(DECAY * self.smoothed + (1.0 - DECAY) * envelope);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_weighted_by_time() {
        let mut integrator = Integrator::default();
        let at = Duration::from_secs;
        integrator.set(4.0, at(1));
        integrator.set(0.0, at(2));
        let period = integrator.end_period(at(4));
        assert_eq!((period.mean, period.highest, period.seconds), (1.0, 4.0, 4.0));
        assert!((period.deviation - 3f64.sqrt()).abs() < 1e-9);
        assert_eq!(integrator.end_period(at(6)).highest, 0.0);
    }

    #[test]
    fn demand_rises_at_once_and_falls_slowly() {
        let mut demand = Demand::default();
        let period = |mean| Period { seconds: 10.0, mean, ..Period::default() };
        demand.update(period(100.0));
        assert_eq!(demand.smoothed, 100.0);
        demand.update(period(0.0));
        assert!((97.0..98.0).contains(&demand.smoothed));
    }
}
