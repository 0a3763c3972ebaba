//! One queue of a set.

use std::collections::VecDeque;

use super::Ticket;

/// Requests in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    /// Those that wait, the oldest first.
    pub(super) waiting: VecDeque<Ticket>,
    /// How many run.
    pub(super) running: usize,
    /// Seats taken by those that run or linger.
    pub(super) seats: u32,
    /// Seat-seconds that wait.
    pub(super) work_waiting: f64,
    /// The virtual time at which the next request may start.
    pub(super) next_start: f64,
}

impl Queue {
    /// Nobody waits or runs.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.running == 0
    }
}
