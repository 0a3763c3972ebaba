//! What moves inside of a queue set: virtual time, who starts next, and the books of seats.

use std::time::Duration;

use super::{Phase, QueueSet, Request, Ticket, Width};
use crate::config::Queuing;

/// How long a request is guessed to take, in seconds.
const SERVICE: f64 = 0.003;

/// Seat-seconds a request is booked with when it starts.
pub(super) fn work(width: &Width) -> f64 {
    f64::from(width.seats) * SERVICE + f64::from(width.after) * width.linger.as_secs_f64()
}

impl QueueSet {
    /// Moves real and virtual time. What lingers until then is released at its own time, in order.
    pub(super) fn advance(&mut self, now: Duration) {
        while let Some((&(at, ticket), ())) = self.lingering.first_key_value() {
            if at > now {
                break;
            }
            self.lingering.pop_first();
            self.pass(at);
            if let Some(request) = self.requests.remove(&ticket) {
                self.release(&request);
            }
            self.dispatch();
        }
        self.pass(now);
    }

    fn pass(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.now).as_secs_f64();
        self.now = self.now.max(now);
        if self.active > 0 {
            let wanted = (self.seats_in_use + self.seats_waiting).min(self.limit);
            self.virtual_now += passed * f64::from(wanted) / f64::from(self.active);
        }
    }

    /// Would these seats be free?
    pub(super) fn fits(&self, seats: u32) -> bool {
        if self.queuing == Queuing::Exempt {
            return true;
        }
        // What is wider than the whole level runs alone.
        if seats > self.limit {
            self.running == 0 && self.limit > 0
        } else {
            self.seats_in_use + seats <= self.limit
        }
    }

    pub(super) fn enqueue(&mut self, ticket: Ticket, index: usize, mut request: Request) {
        let queue = &mut self.queues[index];
        if queue.is_empty() {
            queue.next_start = self.virtual_now;
            self.active += 1;
        }
        queue.waiting.push_back(ticket);
        queue.work_waiting += work(&request.arriving.width);
        self.waiting += 1;
        self.seats_waiting += request.arriving.width.most();
        request.queue = Some(index);
        self.requests.insert(ticket, request);
        self.bound(index);
    }

    /// Takes a waiting request out of its queue.
    pub(super) fn leave_queue(&mut self, ticket: Ticket) {
        let Some(request) = self.requests.get(&ticket) else { return };
        let Some(index) = request.queue else { return };
        let queue = &mut self.queues[index];
        queue.waiting.retain(|waiting| *waiting != ticket);
        queue.work_waiting -= work(&request.arriving.width);
        if queue.waiting.is_empty() {
            // No rounding error outlives its cause.
            queue.work_waiting = 0.0;
        }
        if queue.is_empty() {
            self.active -= 1;
        }
        self.waiting -= 1;
        self.seats_waiting -= request.arriving.width.most();
        self.bound(index);
    }

    /// Starts whoever can start.
    pub(super) fn dispatch(&mut self) {
        while self.waiting > 0 && self.start_one() {}
    }

    fn start_one(&mut self) -> bool {
        let Some((index, ticket)) = self.earliest() else { return false };
        let Some(width) = self.requests.get(&ticket).map(|request| request.arriving.width) else {
            return false;
        };
        if !self.fits(width.most()) {
            // The others wait with it: a wide request must not starve.
            return false;
        }
        let queue = &mut self.queues[index];
        // Counted as running before it leaves, so that the queue does not look empty in between.
        queue.running += 1;
        queue.seats += width.most();
        queue.next_start += work(&width);
        self.leave_queue(ticket);
        self.served = index;
        self.running += 1;
        self.seats_in_use += width.most();
        self.counters.dispatched += 1;
        if let Some(request) = self.requests.get_mut(&ticket) {
            request.phase = Phase::Running(self.now);
        }
        self.started.push(ticket);
        true
    }

    /// The head that would end earliest in virtual time; among equals the one after the queue served last.
    fn earliest(&self) -> Option<(usize, Ticket)> {
        let count = self.queues.len();
        let mut best: Option<(f64, usize, Ticket)> = None;
        for step in 1..=count {
            let index = (self.served + step) % count;
            let queue = &self.queues[index];
            let Some(head) = queue.waiting.front() else { continue };
            let Some(request) = self.requests.get(head) else { continue };
            let end = queue.next_start + work(&request.arriving.width);
            if best.is_none_or(|(earliest, ..)| end < earliest) {
                best = Some((end, index, *head));
            }
        }
        best.map(|(_, index, ticket)| (index, ticket))
    }

    /// A queue that could not use its share does not save it up: nothing starts before it came.
    fn bound(&mut self, index: usize) {
        let queue = &mut self.queues[index];
        let head = queue.waiting.front().and_then(|head| self.requests.get(head));
        if let Some(head) = head {
            queue.next_start = queue.next_start.max(head.arrived_virtual);
        }
    }

    /// Ends a running request: corrects the books, and releases its seats now or later.
    pub(super) fn end(&mut self, ticket: Ticket) -> Duration {
        let Some(Phase::Running(since)) = self.requests.get(&ticket).map(|request| request.phase) else {
            return Duration::ZERO;
        };
        let ran = self.now.saturating_sub(since);
        self.running -= 1;
        let Some(mut request) = self.requests.remove(&ticket) else { return ran };
        let width = request.arriving.width;
        if let Some(index) = request.queue {
            let queue = &mut self.queues[index];
            queue.running -= 1;
            queue.next_start += f64::from(width.seats) * (ran.as_secs_f64() - SERVICE);
            if queue.is_empty() {
                self.active -= 1;
            }
            self.bound(index);
        }
        if width.linger.is_zero() || width.after == 0 {
            self.release(&request);
        } else {
            request.phase = Phase::Lingering;
            self.lingering.insert((self.now + width.linger, ticket), ());
            self.requests.insert(ticket, request);
        }
        ran
    }

    fn release(&mut self, request: &Request) {
        let seats = request.arriving.width.most();
        self.seats_in_use -= seats;
        if let Some(index) = request.queue {
            self.queues[index].seats -= seats;
        }
        self.trim();
    }

    /// Drops empty queues that are too many.
    pub(super) fn trim(&mut self) {
        let wanted = match self.queuing {
            Queuing::Queue { queues, .. } => usize::try_from(queues).unwrap_or(usize::MAX),
            Queuing::Exempt | Queuing::Reject => 0,
        };
        while self.queues.len() > wanted
            && self.queues.last().is_some_and(|queue| queue.is_empty() && queue.seats == 0)
        {
            self.queues.pop();
        }
        self.served = self.served.min(self.queues.len().saturating_sub(1));
    }
}
