//! What `Retry-After` says: a second at first, twice as long when many are refused all the same, less
//! again when few are.

use std::collections::VecDeque;
use std::time::Duration;

/// The longest that is ever said.
const LONGEST: u64 = 32;

/// The refusals of one level.
#[derive(Clone, Debug)]
pub(crate) struct Refusals {
    /// Second and count, the oldest first.
    history: VecDeque<(u64, u64)>,
    seconds: u64,
    raised: Option<u64>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { history: VecDeque::new(), seconds: 1, raised: None }
    }
}

impl Refusals {
    /// Counts one, and says after how many seconds to try again.
    pub(crate) fn note(&mut self, now: Duration) -> u32 {
        let now = now.as_secs();
        match self.history.back_mut() {
            Some((second, count)) if *second == now => *count += 1,
            _ => {
                self.adjust(now);
                self.history.push_back((now, 1));
            }
        }
        u32::try_from(self.seconds).unwrap_or(u32::MAX)
    }

    /// Looks at the seconds before `now`.
    fn adjust(&mut self, now: u64) {
        let keep = (2 * self.seconds).min(LONGEST);
        while self.history.front().is_some_and(|(second, _)| now - second > keep) {
            self.history.pop_front();
        }
        let recent = self.history.iter().filter(|(second, _)| now - second <= self.seconds);
        let refused: u64 = recent.map(|(_, count)| count).sum();
        let may_rise = self.raised.is_none_or(|at| now - at >= self.seconds);
        if may_rise && refused >= 3 * self.seconds {
            self.seconds = (2 * self.seconds).min(LONGEST);
            self.raised = Some(now);
        } else if refused < self.seconds && self.seconds > 1 {
            self.seconds -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_sent_away_longer_while_many_are_refused() {
        let mut refusals = Refusals::default();
        let mut told = Vec::new();
        for second in 0..12 {
            let mut last = 0;
            for _ in 0..200 {
                last = refusals.note(Duration::from_secs(second));
            }
            told.push(last);
        }
        assert_eq!(told, [1, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8, 8]);
        assert!(refusals.note(Duration::from_secs(100)) < 8);
    }
}
