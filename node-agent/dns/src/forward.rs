//! Names that are not the cluster's: asked of other name servers, answers kept.
//!
//! The parts: `routes` says who knows a name, `servers` asks them, `exchange` speaks with one, `cache` keeps what was
//! said. All of it lives on the answerer's thread, so nothing is locked.
//!
//! Invariants: a question is under way once, however many ask it (which also ends a loop of forwarders: what comes
//! back waits for itself, and fails); an answer that is over is better than none; nothing piles up.

mod cache;
mod exchange;
mod routes;
mod servers;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::Duration,
};

use hickory_proto::{
    op::{Message, Query as Question, ResponseCode},
    rr::{Name, RecordType},
};
use tokio::{
    sync::watch,
    task::spawn_local,
    time::{self, Instant},
};

pub use self::routes::Upstreams;
pub(crate) use self::routes::{is_below, wire};
use self::{
    cache::{Cache, Found},
    routes::Routes,
    servers::Server,
};
use crate::{
    metrics::Metrics,
    packet::{Packet, Ttl},
    query::Query,
};

/// Different questions under way to name servers; further ones fail rather than pile up.
const MAX_UNDER_WAY: usize = 1000;
/// Those who wait for their answers.
const MAX_WAITING: usize = 10_000;
/// How long a new answer is waited for when there is an old one.
const STALE_PATIENCE: Duration = Duration::from_millis(500);
/// How long a question that tests for a loop may take to come back.
const PROBE: Duration = Duration::from_secs(2);

/// An answer, and what to say of its time.
pub(crate) type Given = (Rc<Packet>, Ttl);

/// A question under way; whoever asks the same waits for it too.
type Flight = watch::Receiver<Option<Result<Rc<Packet>, ResponseCode>>>;

/// Asks name servers; whom, may change while it runs.
pub(crate) struct Forwarder {
    routes: RefCell<Rc<Routes>>,
    cache: RefCell<Cache>,
    flights: RefCell<HashMap<Rc<[u8]>, Flight>>,
    waiting: Cell<usize>,
    /// Questions that we sent to see whether they come back.
    probes: RefCell<HashMap<Box<[u8]>, Rc<Server>>>,
    metrics: Metrics,
}

impl Forwarder {
    pub(crate) fn new(metrics: Metrics) -> Rc<Self> {
        Rc::new(Self {
            routes: RefCell::default(),
            cache: RefCell::new(Cache::new()),
            flights: RefCell::default(),
            waiting: Cell::new(0),
            probes: RefCell::default(),
            metrics,
        })
    }

    /// Uses these servers from now on. What is under way ends with the old ones; what is kept is kept.
    pub(crate) fn follow(self: &Rc<Self>, upstreams: &Upstreams) {
        let routes = Rc::new(Routes::new(upstreams));
        self.routes.replace(Rc::clone(&routes));
        for server in routes.servers() {
            let (forwarder, server) = (Rc::clone(self), Rc::clone(server));
            spawn_local(async move { forwarder.probe(server).await });
        }
    }

    /// An answer that is here and in time.
    pub(crate) fn look(self: &Rc<Self>, query: &Query, key: &[u8]) -> Option<Given> {
        let found = self.cache.borrow().look(key, Instant::now());
        match found {
            Found::Fresh { packet, ttl, refresh } => {
                if refresh {
                    self.metrics.prefetches.inc();
                    drop(self.fly(query, key));
                }
                self.metrics.hit(&packet);
                Some((packet, ttl))
            }
            Found::Stale { packet, ttl, retry: false } => {
                self.metrics.stale.inc();
                Some((packet, ttl))
            }
            Found::Stale { .. } | Found::Absent => {
                self.metrics.misses.inc();
                None
            }
        }
    }

    /// Asks. `Err` is what to tell the client.
    pub(crate) async fn ask(self: &Rc<Self>, query: &Query) -> Result<Given, ResponseCode> {
        let key = query.key();
        let old = match self.cache.borrow().look(key.as_bytes(), Instant::now()) {
            Found::Fresh { packet, ttl, .. } | Found::Stale { packet, ttl, retry: false } => {
                return Ok((packet, ttl));
            }
            Found::Stale { packet, ttl, retry: true } => Some((packet, ttl)),
            Found::Absent => None,
        };
        let landed = match self.fly(query, key.as_bytes()) {
            Some(flight) => self.wait(flight, old.as_ref().map(|_| STALE_PATIENCE)).await,
            None => Err(ResponseCode::ServFail),
        };
        match (landed, old) {
            (Ok(packet), None) => Ok((packet, Ttl::Aged(0))),
            (Ok(packet), Some(_)) if packet.code() != ResponseCode::ServFail => Ok((packet, Ttl::Aged(0))),
            (_, Some(old)) => {
                self.metrics.stale.inc();
                Ok(old)
            }
            (Err(code), None) => Err(code),
        }
    }

    async fn wait(&self, mut flight: Flight, patience: Option<Duration>) -> Result<Rc<Packet>, ResponseCode> {
        let waiting = self.waiting.get();
        if waiting >= MAX_WAITING {
            self.metrics.rejected.inc();
            return Err(ResponseCode::ServFail);
        }
        self.waiting.set(waiting + 1);
        let landing = flight.wait_for(Option::is_some);
        let landed = match patience {
            Some(patience) => time::timeout(patience, landing).await.ok().and_then(Result::ok),
            None => landing.await.ok(),
        };
        let outcome = landed.and_then(|landed| landed.clone()).unwrap_or(Err(ResponseCode::ServFail));
        self.waiting.set(self.waiting.get() - 1);
        outcome
    }

    /// Sends the question on its way, if it is not already; `None` when too many are.
    fn fly(self: &Rc<Self>, query: &Query, key: &[u8]) -> Option<Flight> {
        if let Some(flight) = self.flights.borrow().get(key) {
            return Some(flight.clone());
        }
        if self.flights.borrow().len() >= MAX_UNDER_WAY {
            self.metrics.rejected.inc();
            tracing::debug!("too many questions under way to the name servers");
            return None;
        }
        let key: Rc<[u8]> = key.into();
        let (landing, flight) = watch::channel(None);
        self.flights.borrow_mut().insert(Rc::clone(&key), flight.clone());
        let (forwarder, query) = (Rc::clone(self), query.clone());
        // A task of its own: it lands though nobody waits any more.
        spawn_local(async move {
            let group = forwarder.routes.borrow().of(query.key().name_bytes());
            let outcome = group.ask(&query, &forwarder.metrics).await.map(Rc::new);
            forwarder.landed(&key, &query, &outcome);
            landing.send_replace(Some(outcome));
        });
        Some(flight)
    }

    /// Keeps what was said.
    fn landed(&self, key: &Rc<[u8]>, query: &Query, outcome: &Result<Rc<Packet>, ResponseCode>) {
        self.flights.borrow_mut().remove(key);
        let mut cache = self.cache.borrow_mut();
        let now = Instant::now();
        match outcome {
            Ok(packet) if packet.code() != ResponseCode::ServFail => cache.keep(key, packet, now),
            Ok(_) | Err(ResponseCode::ServFail) => {
                if !cache.failed(key, now)
                    && let Some(failure) = failure(query)
                {
                    cache.keep(key, &Rc::new(failure), now);
                }
            }
            // Nobody to ask.
            Err(_) => {}
        }
        self.metrics.entries.set(i64::try_from(cache.len()).unwrap_or(i64::MAX));
    }

    /// Waits until nothing is under way, but not for ever.
    pub(crate) async fn drained(&self, patience: Duration) {
        let empty = async {
            while self.waiting.get() > 0 {
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        if time::timeout(patience, empty).await.is_err() {
            tracing::debug!("questions under way were cut off");
        }
    }

    /// Sends a server a question that nobody else would ask. If we get it, the server asks us.
    async fn probe(&self, server: Rc<Server>) {
        let Some(query) = probe() else { return };
        let name: Box<[u8]> = query.key().name_bytes().into();
        let address = server.address;
        self.probes.borrow_mut().insert(name.clone(), server);
        // The answer does not matter, only whether the question comes back.
        let _ = time::timeout(PROBE, exchange::exchange(address, &query)).await;
        self.probes.borrow_mut().remove(&name);
    }

    /// Told of each question of the type that probes have. Whether it is one.
    pub(crate) fn is_probe(&self, name: &[u8]) -> bool {
        let probes = self.probes.borrow();
        let Some(server) = probes.get(name) else { return false };
        tracing::error!(
            server = %server.address,
            "this name server asks us what we ask it; it is left out: correct the node's resolv.conf or --dns-upstream"
        );
        server.loops();
        true
    }
}

/// The type that probes have: an old one that hardly anybody asks for.
pub(crate) const PROBE_KIND: RecordType = RecordType::HINFO;

fn probe() -> Option<Query> {
    let [one, two]: [u64; 2] = rand::random();
    let mut message = Message::query();
    message.add_query(Question::query(Name::from_ascii(format!("{one:016x}.{two:016x}.")).ok()?, PROBE_KIND));
    Query::parse(&message.to_vec().ok()?).ok()
}

fn failure(query: &Query) -> Option<Packet> {
    let sections = crate::packet::Sections { code: ResponseCode::ServFail, ..Default::default() };
    Packet::encode(query, sections)
}

#[cfg(test)]
mod tests;
