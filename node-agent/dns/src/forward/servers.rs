//! A group of name servers: whom to ask first, whom next, and when.
//!
//! The first that does not fail is asked; the next one too when the answer takes long, or at once when it is an
//! error. The first good answer counts. Who failed is asked last for a while.

use std::{cell::Cell, cmp::Ordering, net::SocketAddr, rc::Rc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use hickory_proto::op::ResponseCode;
use tokio::time::{self, Instant};

use super::exchange::{ExchangeError, exchange};
use crate::{metrics::Metrics, packet::Packet, query::Query};

/// When the next server is asked too, without an answer.
const NEXT: Duration = Duration::from_millis(400);
/// When the only server is asked again: its answer, or the question, may be lost.
const AGAIN: Duration = Duration::from_millis(1000);
/// The whole search; the C library gives up after five seconds.
const PATIENCE: Duration = Duration::from_millis(4500);
/// Connections refused, and the like, that are borne from each server before the search ends.
const ROUNDS: usize = 2;
/// How long a server that failed is asked after the others.
const PENANCE: Duration = Duration::from_secs(5);

/// A name server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// It failed; until then others are asked before it.
    failing_until: Cell<Option<Instant>>,
    /// Its answers come from ourselves.
    looping: Cell<bool>,
}

/// Servers that know the same.
#[derive(Debug)]
pub(crate) struct Group {
    servers: Vec<Rc<Server>>,
}

impl Group {
    pub(crate) fn new(addresses: &[SocketAddr]) -> Self {
        let server = |address: &SocketAddr| {
            Rc::new(Server { address: *address, failing_until: Cell::new(None), looping: Cell::new(false) })
        };
        Self { servers: addresses.iter().map(server).collect() }
    }

    pub(crate) fn servers(&self) -> &[Rc<Server>] {
        &self.servers
    }

    /// Whom to ask, in order.
    fn order(&self, now: Instant) -> Vec<Rc<Server>> {
        let mut order: Vec<_> = self.servers.iter().filter(|server| !server.looping.get()).cloned().collect();
        order.sort_by_key(|server| server.failing_until.get().is_some_and(|until| now < until));
        order
    }

    /// Asks until there is a good answer, or none can be expected any more. `Err` is what to tell the client.
    pub(crate) async fn ask(&self, query: &Query, metrics: &Metrics) -> Result<Packet, ResponseCode> {
        let order = self.order(Instant::now());
        if order.is_empty() {
            return Err(ResponseCode::Refused);
        }
        let pause = if order.len() == 1 { AGAIN } else { NEXT };
        let end = time::sleep(PATIENCE);
        let next = time::sleep(Duration::ZERO);
        tokio::pin!(end, next);
        let mut turns = order.iter().cycle();
        let mut under_way = FuturesUnordered::new();
        let mut late: Option<&Rc<Server>> = None;
        let (mut errors, mut bad) = (0, None);
        loop {
            // Cancel-safe: what is under way stays in its set, times stay as they are.
            tokio::select! {
                () = &mut end => return bad.ok_or(ResponseCode::ServFail),
                () = &mut next => {
                    if let Some(server) = late {
                        server.failed();
                    }
                    late = turns.next();
                    under_way.extend(late.map(|server| attempt(server, query, metrics)));
                    next.as_mut().reset(Instant::now() + pause);
                }
                Some((server, outcome)) = under_way.next() => {
                    late = late.filter(|late| late.address != server.address);
                    match outcome {
                        Ok(packet) if is_good(&packet) => return Ok(packet),
                        Ok(packet) => bad = Some(packet),
                        Err(error) => {
                            tracing::debug!(server = %server.address, error = &error as &dyn std::error::Error, "no answer");
                        }
                    }
                    errors += 1;
                    match errors.cmp(&order.len()) {
                        Ordering::Less => next.as_mut().reset(Instant::now()),
                        // Everyone has said something, and nothing good.
                        _ if bad.is_some() || errors >= ROUNDS * order.len() => {
                            return bad.ok_or(ResponseCode::ServFail);
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

impl Server {
    fn failed(&self) {
        self.failing_until.set(Some(Instant::now() + PENANCE));
    }

    /// Leaves it out from now on: what is asked of it comes back to us.
    pub(crate) fn loops(&self) {
        self.looping.set(true);
    }
}

fn is_good(packet: &Packet) -> bool {
    matches!(packet.code(), ResponseCode::NoError | ResponseCode::NXDomain)
}

async fn attempt<'a>(
    server: &'a Server,
    query: &Query,
    metrics: &Metrics,
) -> (&'a Server, Result<Packet, ExchangeError>) {
    let began = Instant::now();
    let outcome = exchange(server.address, query).await;
    match &outcome {
        Ok(packet) => {
            // Who answers is there; whether the answer is of use is another matter.
            server.failing_until.set(None);
            metrics.upstream(server.address, packet.code(), began.elapsed());
        }
        Err(_) => {
            server.failed();
            metrics.upstream_failed(server.address);
        }
    }
    (server, outcome)
}
