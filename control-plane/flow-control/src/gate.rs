//! The gate every request passes: it finds its flow, waits for its seats, and gives them back when it
//! ends, however it ends.

mod dump;

pub use dump::Details;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::config::{Level, Queuing, Schema};
use crate::levels::{Levels, classify};
use crate::matching::Digest;
use crate::metrics::{Metrics, OfSchema};
use crate::queue_set::{Arrival, Arriving, Label, Ticket, Width};
use crate::shuffle::flow_hash;

/// How often levels lend and borrow.
const BORROW: Duration = Duration::from_secs(10);

/// The gate.
pub struct Gate {
    begun: Instant,
    inner: Mutex<Inner>,
    /// Something lingers: the task has to look when it ends.
    lingers: Notify,
    metrics: Metrics,
}

struct Inner {
    levels: Levels,
    waiters: HashMap<(Arc<str>, Ticket), oneshot::Sender<()>>,
    flows: HashMap<(Arc<str>, String), Arc<OfSchema>>,
}

/// Which schema and level a request belongs to.
#[derive(Clone, Debug)]
pub struct Class {
    /// The schema.
    pub schema: Arc<Schema>,
    /// The level's name.
    pub level: Arc<str>,
    /// The level's uid.
    pub level_uid: Arc<str>,
}

/// The seats of a running request; given back when this is dropped.
pub struct Seat {
    gate: Arc<Gate>,
    ticket: Ticket,
    class: Class,
    metrics: Arc<OfSchema>,
    seats: u32,
    watch: bool,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seat({}, {})", self.class.level, self.ticket)
    }
}

/// A request that must come back later.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// What it was taken for.
    pub class: Class,
    /// After how many seconds to try again.
    pub retry_after: u32,
}

/// A request in its queue; leaves it when the client goes away.
struct Waiting<'a> {
    gate: &'a Arc<Gate>,
    ticket: Ticket,
    class: &'a Class,
    metrics: &'a Arc<OfSchema>,
    seats: u32,
    over: bool,
}

impl Gate {
    /// A gate for so many seats, with the mandatory configuration.
    pub fn new(seats: u32) -> Arc<Self> {
        let levels = Levels::new(seats, Duration::ZERO);
        let inner = Inner { levels, waiters: HashMap::new(), flows: HashMap::new() };
        Arc::new(Self {
            begun: Instant::now(),
            inner: Mutex::new(inner),
            lingers: Notify::new(),
            metrics: Metrics::new(),
        })
    }

    /// Adds the metrics to a collection.
    pub fn register(&self, collection: &mut prometheus_client::registry::Registry) {
        self.metrics.register(collection);
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new configuration in.
    pub fn configure(&self, levels: Vec<Level>, schemas: Vec<Arc<Schema>>) {
        let mut inner = self.lock();
        inner.levels.configure(levels, schemas, self.now());
        inner.flows.clear();
        inner.wake();
        self.metrics.note_levels(&inner.levels);
    }

    /// Lends and borrows, and frees seats that linger. Runs until dropped.
    pub async fn run(&self) {
        let mut borrow = Instant::now() + BORROW;
        loop {
            let next = self.lock().levels.next_tick().map(|at| self.begun + at);
            let until = next.map_or(borrow, |next| next.min(borrow));
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = self.lingers.notified() => continue,
            }
            let mut inner = self.lock();
            let now = self.now();
            inner.levels.tick(now);
            if Instant::now() >= borrow {
                borrow = Instant::now() + BORROW;
                inner.levels.borrow(now);
                self.metrics.note_levels(&inner.levels);
            }
            inner.wake();
        }
    }

    /// Waits for seats, at most for `patience`. `width` says how wide the request is, given the most seats
    /// its level lets one request have (0: no bound).
    pub async fn enter(
        self: &Arc<Self>,
        digest: &Digest<'_>,
        width: impl FnOnce(u64) -> Width,
        patience: Duration,
    ) -> Result<Seat, Refusal> {
        let arrived = Instant::now();
        let (class, metrics, ticket, receiver, seats) = {
            let mut inner = self.lock();
            let schemas = inner.levels.schemas().clone();
            // There always is the schema of last resort, and its level.
            let Some(schema) = classify(&schemas, digest) else { unreachable!("no schema of last resort") };
            let now = self.now();
            let inner = &mut *inner;
            let Some(state) = inner.levels.level(&schema.level) else {
                unreachable!("a schema without its level")
            };
            let class =
                Class { schema: schema.clone(), level: state.name.clone(), level_uid: state.uid.clone() };
            let metrics = inner.flows.entry((class.level.clone(), schema.name.clone()));
            let metrics = metrics
                .or_insert_with(|| Arc::new(self.metrics.of_schema(&class.level, &schema.name)))
                .clone();
            let width = width(state.widest());
            metrics.widths.observe(f64::from(width.most()));
            let distinguisher = match state.level.queuing {
                Queuing::Queue { queues, .. } if queues > 1 => digest.distinguisher(schema.distinguisher),
                _ => "",
            };
            let arriving = Arriving {
                flow: flow_hash(&schema.name, distinguisher),
                label: Arc::new(Label {
                    schema: schema.name.clone(),
                    distinguisher: distinguisher.to_owned(),
                    user: digest.user.name.clone(),
                    verb: digest.verb.to_owned(),
                    path: digest.path.to_owned(),
                }),
                width,
            };
            let (ticket, arrival) = state.set.arrive(arriving, now);
            state.note_demand(now);
            let refused = match arrival {
                Arrival::QueueFull => Some(&metrics.queue_full),
                Arrival::NoSeat => Some(&metrics.no_seat),
                Arrival::Started | Arrival::Waiting => None,
            };
            if let Some(counter) = refused {
                counter.inc();
                let retry_after = state.refusals.note(now);
                return Err(Refusal { class, retry_after });
            }
            if arrival == Arrival::Started {
                inner.wake();
                metrics.waited.observe(0.0);
                return Ok(self.seat(ticket, class, metrics, width.most()));
            }
            metrics.in_queue.inc();
            metrics.in_queue_seats.inc_by(i64::from(width.most()));
            let length = state.set.queue_length(ticket);
            metrics.queue_lengths.observe(length as f64);
            let (sender, receiver) = oneshot::channel();
            inner.waiters.insert((class.level.clone(), ticket), sender);
            inner.wake();
            (class, metrics, ticket, receiver, width.most())
        };
        let mut waiting =
            Waiting { gate: self, ticket, class: &class, metrics: &metrics, seats, over: false };
        let started = tokio::time::timeout(patience, receiver).await.is_ok_and(|woken| woken.is_ok());
        let refused = if started { None } else { waiting.give_up(true) };
        waiting.leave();
        let waited = arrived.elapsed().as_secs_f64();
        drop(waiting);
        if let Some(retry_after) = refused {
            metrics.waited_in_vain.observe(waited);
            metrics.timed_out.inc();
            return Err(Refusal { class, retry_after });
        }
        metrics.waited.observe(waited);
        Ok(self.seat(ticket, class, metrics, seats))
    }

    fn seat(self: &Arc<Self>, ticket: Ticket, class: Class, metrics: Arc<OfSchema>, seats: u32) -> Seat {
        metrics.dispatched.inc();
        metrics.executing.inc();
        metrics.executing_seats.inc_by(i64::from(seats));
        Seat { gate: self.clone(), ticket, class, metrics, seats, watch: false }
    }

    /// What the classes are of a request that is let through without a seat.
    pub fn classify(&self, digest: &Digest<'_>) -> Option<Class> {
        let mut inner = self.lock();
        let schemas = inner.levels.schemas().clone();
        let schema = classify(&schemas, digest)?;
        let state = inner.levels.level(&schema.level)?;
        Some(Class { schema: schema.clone(), level: state.name.clone(), level_uid: state.uid.clone() })
    }
}

impl Inner {
    /// Tells those who may run.
    fn wake(&mut self) {
        for key in self.levels.take_started() {
            if let Some(waiter) = self.waiters.remove(&key) {
                // One who has just gone away gives its seats back itself.
                let _ = waiter.send(());
            }
        }
    }
}

impl Waiting<'_> {
    /// Leaves the queue; `None` when the request may run after all.
    fn give_up(&self, timed_out: bool) -> Option<u32> {
        let mut inner = self.gate.lock();
        let inner = &mut *inner;
        inner.waiters.remove(&(self.class.level.clone(), self.ticket));
        let now = self.gate.now();
        let state = inner.levels.level(&self.class.level)?;
        if !state.set.give_up(self.ticket, timed_out, now) {
            return None;
        }
        state.note_demand(now);
        let retry_after = state.refusals.note(now);
        inner.wake();
        Some(retry_after)
    }

    /// It is in the queue no more.
    fn leave(&mut self) {
        if !self.over {
            self.over = true;
            self.metrics.in_queue.dec();
            self.metrics.in_queue_seats.dec_by(i64::from(self.seats));
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        // The client went away in the middle of waiting.
        if self.give_up(false).is_none() {
            self.gate.finish(&self.class.level, self.ticket);
        }
        self.leave();
    }
}

impl Gate {
    fn finish(&self, level: &str, ticket: Ticket) -> Duration {
        let mut inner = self.lock();
        let now = self.now();
        let Some(state) = inner.levels.level(level) else { return Duration::ZERO };
        let ran = state.set.finish(ticket, now);
        state.note_demand(now);
        let lingers = state.set.next_tick().is_some() || state.quiescing;
        inner.wake();
        drop(inner);
        if lingers {
            self.lingers.notify_one();
        }
        ran
    }
}

impl Seat {
    /// What the request was taken for.
    pub fn class(&self) -> &Class {
        &self.class
    }

    /// This is the beginning of a watch.
    #[must_use]
    pub fn of_watch(mut self) -> Self {
        self.watch = true;
        self
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let ran = self.gate.finish(&self.class.level, self.ticket).as_secs_f64();
        let histogram = if self.watch { &self.metrics.ran_watch } else { &self.metrics.ran };
        histogram.observe(ran);
        self.metrics.executing.dec();
        self.metrics.executing_seats.dec_by(i64::from(self.seats));
    }
}
