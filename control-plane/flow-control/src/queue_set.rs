//! The queues and seats of one level.
//!
//! Fair queuing in virtual time: `virtual_now` advances with the seats one active queue gets, each queue
//! has the virtual time its next request may start at, and the request with the earliest virtual end goes
//! first. A request is booked with a guessed service time when it starts and corrected when it ends.
//!
//! Invariants: a request waits only while the seats it needs are not free; seats in use are within the
//! limit, but for one request that is wider than the limit and runs alone, and for a limit that was
//! lowered; requests of one queue start in their order. The time never goes back.

mod dispatch;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::config::Queuing;
use crate::shuffle;
use queue::Queue;

/// Names a request within its set.
pub type Ticket = u64;

/// How wide a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width {
    /// Seats while it runs.
    pub seats: u32,
    /// Seats afterwards.
    pub after: u32,
    /// For how long.
    pub linger: Duration,
}

impl Width {
    /// One seat, nothing afterwards.
    pub const ONE: Self = Self { seats: 1, after: 0, linger: Duration::ZERO };

    /// The seats that must be free.
    pub fn most(&self) -> u32 {
        self.seats.max(self.after)
    }
}

/// What a request is, in the words of a dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label {
    /// Its schema.
    pub schema: String,
    /// What tells its flow apart.
    pub distinguisher: String,
    /// Who asks.
    pub user: String,
    /// The verb.
    pub verb: String,
    /// The path.
    pub path: String,
}

/// A request at the door.
#[derive(Clone, Debug)]
pub struct Arriving {
    /// The hash of its flow.
    pub flow: u64,
    /// What it is, for the dump.
    pub label: Arc<Label>,
    /// How wide it is.
    pub width: Width,
}

/// What became of a request at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It may run.
    Started,
    /// It waits.
    Waiting,
    /// Its queue is full.
    QueueFull,
    /// No seat is free and nobody waits here.
    NoSeat,
}

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// In its queue.
    Waiting,
    /// Running since.
    Running(Duration),
    /// Done, but its seats are taken.
    Lingering,
}

/// A request in the set.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it was at the door.
    pub arriving: Arriving,
    /// Its queue; none where nothing queues.
    pub queue: Option<usize>,
    /// When it came.
    pub arrived: Duration,
    /// Where it is.
    pub phase: Phase,
    arrived_virtual: f64,
}

/// A queue as a dump shows it.
#[derive(Clone, Copy, Debug)]
pub struct QueueView {
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that run.
    pub running: usize,
    /// Seats taken.
    pub seats: u32,
    /// The virtual time the next may start at.
    pub next_start: f64,
    /// Seats the waiting ones run on.
    pub seats_waiting: u32,
    /// Seats that must be free for them.
    pub most_waiting: u32,
    /// Seat-seconds that wait.
    pub work_waiting: f64,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that started.
    pub dispatched: u64,
    /// Requests that were refused, timed-out ones included.
    pub refused: u64,
    /// Requests that waited too long.
    pub timed_out: u64,
    /// Requests whose client went away.
    pub cancelled: u64,
}

/// The queues and seats of a level.
#[derive(Debug)]
pub struct QueueSet {
    queuing: Queuing,
    limit: u32,
    queues: Vec<Queue>,
    requests: HashMap<Ticket, Request>,
    next: Ticket,
    /// When seats that linger become free.
    lingering: BTreeMap<(Duration, Ticket), ()>,
    started: Vec<Ticket>,
    virtual_now: f64,
    now: Duration,
    /// The queue that was served last.
    served: usize,
    enqueued: usize,
    waiting: usize,
    running: usize,
    seats_waiting: u32,
    seats_in_use: u32,
    /// Queues with requests that wait or run.
    active: u32,
    /// What happened so far.
    pub counters: Counters,
}

impl QueueSet {
    /// An empty set.
    pub fn new(queuing: Queuing, limit: u32, now: Duration) -> Self {
        let mut set = Self {
            queuing,
            limit,
            queues: Vec::new(),
            requests: HashMap::new(),
            next: 1,
            lingering: BTreeMap::new(),
            started: Vec::new(),
            virtual_now: 0.0,
            now,
            served: 0,
            enqueued: 0,
            waiting: 0,
            running: 0,
            seats_waiting: 0,
            seats_in_use: 0,
            active: 0,
            counters: Counters::default(),
        };
        set.reconfigure(queuing, now);
        set
    }

    /// Changes how the set queues. Queues that are too many drain.
    pub fn reconfigure(&mut self, queuing: Queuing, now: Duration) {
        self.advance(now);
        self.queuing = queuing;
        if let Queuing::Queue { queues, .. } = queuing {
            let wanted = usize::try_from(queues).unwrap_or(usize::MAX);
            if self.queues.len() < wanted {
                self.queues.resize_with(wanted, Queue::default);
            }
        }
        self.trim();
        self.dispatch();
    }

    /// Changes the limit.
    pub fn set_limit(&mut self, limit: u32, now: Duration) {
        self.advance(now);
        self.limit = limit;
        self.dispatch();
    }

    /// Lets time pass: seats that lingered become free.
    pub fn tick(&mut self, now: Duration) {
        self.advance(now);
        self.dispatch();
    }

    /// When seats become free without anybody doing anything.
    pub fn next_tick(&self) -> Option<Duration> {
        self.lingering.keys().next().map(|(at, _)| *at)
    }

    /// A request comes. Others may start by this: see [`QueueSet::take_started`].
    pub fn arrive(&mut self, arriving: Arriving, now: Duration) -> (Ticket, Arrival) {
        self.advance(now);
        let ticket = self.next;
        self.next += 1;
        let mut request = Request {
            arriving,
            queue: None,
            arrived: self.now,
            phase: Phase::Waiting,
            arrived_virtual: self.virtual_now,
        };
        let Queuing::Queue { queues, hand, length } = self.queuing else {
            if !self.fits(request.arriving.width.most()) {
                self.counters.refused += 1;
                return (ticket, Arrival::NoSeat);
            }
            request.phase = Phase::Running(self.now);
            self.running += 1;
            self.seats_in_use += request.arriving.width.most();
            self.counters.dispatched += 1;
            self.requests.insert(ticket, request);
            return (ticket, Arrival::Started);
        };
        let index = self.choose(request.arriving.flow, queues, hand);
        let full = self.queues[index].waiting.len() >= usize::try_from(length).unwrap_or(usize::MAX);
        if full && self.seats_in_use >= self.limit {
            self.counters.refused += 1;
            return (ticket, Arrival::QueueFull);
        }
        self.enqueue(ticket, index, request);
        self.dispatch();
        // Whoever asks is told by the return value, everybody else by the list.
        match self.started.iter().position(|started| *started == ticket) {
            Some(at) => {
                self.started.swap_remove(at);
                (ticket, Arrival::Started)
            }
            None => (ticket, Arrival::Waiting),
        }
    }

    /// The shortest queue of the flow's hand, by the work that waits in it.
    fn choose(&mut self, flow: u64, queues: u32, hand: u32) -> usize {
        let dealt = shuffle::deal(flow, queues, hand);
        // Begun at another card each time, or the low ones would be preferred.
        let offset = self.enqueued % dealt.len().max(1);
        self.enqueued = self.enqueued.wrapping_add(1);
        let order = dealt.iter().cycle().skip(offset).take(dealt.len());
        let work = |index: &&usize| self.queues[**index].work_waiting;
        order.min_by(|a, b| work(a).total_cmp(&work(b))).copied().unwrap_or_default()
    }

    /// The requests that may run since this was last asked.
    pub fn take_started(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.started)
    }

    /// A request gives up waiting; false when it runs already (or is not known).
    pub fn give_up(&mut self, ticket: Ticket, timed_out: bool, now: Duration) -> bool {
        self.advance(now);
        if !self.requests.get(&ticket).is_some_and(|request| request.phase == Phase::Waiting) {
            return false;
        }
        self.leave_queue(ticket);
        self.requests.remove(&ticket);
        if timed_out {
            self.counters.timed_out += 1;
            self.counters.refused += 1;
        } else {
            self.counters.cancelled += 1;
        }
        self.trim();
        self.dispatch();
        true
    }

    /// A request that ran has ended. Returns how long it ran.
    pub fn finish(&mut self, ticket: Ticket, now: Duration) -> Duration {
        self.advance(now);
        let ran = self.end(ticket);
        self.dispatch();
        ran
    }

    /// Nobody is here.
    pub fn is_idle(&self) -> bool {
        self.waiting == 0 && self.running == 0
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Requests that run.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Seats taken.
    pub fn seats_in_use(&self) -> u32 {
        self.seats_in_use
    }

    /// Seats that are waited for.
    pub fn seats_waiting(&self) -> u32 {
        self.seats_waiting
    }

    /// The limit.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// A request.
    pub fn request(&self, ticket: Ticket) -> Option<&Request> {
        self.requests.get(&ticket)
    }

    /// Every request, in the order of arrival.
    pub fn requests(&self) -> Vec<(Ticket, &Request)> {
        let mut all: Vec<_> = self.requests.iter().map(|(ticket, request)| (*ticket, request)).collect();
        all.sort_by_key(|(ticket, _)| *ticket);
        all
    }

    /// The queues as a dump shows them.
    pub fn queues(&self) -> impl Iterator<Item = QueueView> {
        self.queues.iter().map(|queue| {
            let widths = queue.waiting.iter().filter_map(|ticket| self.requests.get(ticket));
            let widths: Vec<Width> = widths.map(|request| request.arriving.width).collect();
            QueueView {
                waiting: queue.waiting.len(),
                running: queue.running,
                seats: queue.seats,
                next_start: queue.next_start,
                seats_waiting: widths.iter().map(|width| width.seats).sum(),
                most_waiting: widths.iter().map(Width::most).sum(),
                work_waiting: queue.work_waiting,
            }
        })
    }

    /// The place of a waiting request in its queue.
    pub fn place(&self, ticket: Ticket) -> Option<usize> {
        let queue = self.queues.get(self.requests.get(&ticket)?.queue?)?;
        queue.waiting.iter().position(|waiting| *waiting == ticket)
    }

    /// How many wait in the queue of a request.
    pub fn queue_length(&self, ticket: Ticket) -> usize {
        let queue = self.requests.get(&ticket).and_then(|request| self.queues.get(request.queue?));
        queue.map_or(0, |queue| queue.waiting.len())
    }
}
