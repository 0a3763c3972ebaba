//! How often and how long to wait before asking again.

use std::time::Duration;

/// Jittered exponential waits, a bounded number of them.
#[derive(Debug)]
pub(crate) struct Backoff {
    attempts: u32,
    limit: u32,
    next: Duration,
    max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { attempts: 0, limit: 5, next: Duration::from_millis(100), max: Duration::from_secs(5) }
    }
}

impl Backoff {
    /// Never gives up; waits up to `max`.
    pub(crate) fn endless(first: Duration, max: Duration) -> Self {
        Self { attempts: 0, limit: u32::MAX, next: first, max }
    }

    /// Waits; `false` when the attempts are used up.
    pub(crate) async fn pause(&mut self) -> bool {
        self.pause_at_least(Duration::ZERO).await
    }

    /// Waits no less than this; `false` when the attempts are used up.
    pub(crate) async fn pause_at_least(&mut self, least: Duration) -> bool {
        if self.attempts >= self.limit {
            return false;
        }
        self.attempts += 1;
        let wait = self.next.max(least);
        self.next = (self.next * 2).min(self.max);
        tokio::time::sleep(wait.mul_f64(rand::random_range(1.0..1.3))).await;
        true
    }
}
