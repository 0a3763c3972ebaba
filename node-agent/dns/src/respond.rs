//! From a message to its answer.
//!
//! Lives on the answerer's thread. What the cluster says is computed once and kept as a packet for as long as the
//! index stands; the usual question costs a look into a table and a copy.
//!
//! Invariants: a query about the cluster never leaves the node; while the index is what an earlier life of ours
//! left, no name is said not to exist.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{DNSClass, Name, Record},
};
use rand::seq::SliceRandom;
use tokio::time::Instant;

use crate::{
    answer::{self, Answer, answer},
    feed::Published,
    forward::{Forwarder, PROBE_KIND, is_below, wire},
    index::{Index, Zone},
    metrics::Metrics,
    packet::{Packet, Sections, Transport, Ttl, is_refused, write_error, write_problem},
    query::{Problem, Query},
};

/// Answers about the cluster that are kept; when there are more, all are made anew.
const MAX_KEPT: usize = 8192;

/// What became of a message.
#[derive(Debug)]
pub(crate) enum Taken {
    /// The answer is written.
    Answered,
    /// Nothing is to be said.
    Silence,
    /// Others are to be asked: [`Responder::finish`].
    Later(Box<Later>),
}

/// A question that others are asked about.
#[derive(Debug)]
pub(crate) struct Later {
    query: Query,
    transport: Transport,
    began: Instant,
    /// What the cluster says: aliases, and the question about where they lead.
    through: Option<(Vec<Record>, Query)>,
}

/// Answers messages.
pub(crate) struct Responder {
    zone: Zone,
    /// The bytes of the names at the top of what we may know: the cluster's domain, `arpa`, `localhost`.
    tops: [Vec<u8>; 3],
    published: Arc<Published>,
    kept: RefCell<Kept>,
    forwarder: Rc<Forwarder>,
    metrics: Metrics,
}

/// Answers made from one index.
#[derive(Default)]
struct Kept {
    index: Option<Arc<Index>>,
    packets: HashMap<Box<[u8]>, Packet>,
    /// Counts answers: addresses take turns by it.
    spin: usize,
}

/// What the index says.
enum Said {
    Packet(Packet),
    Aliases(Vec<Record>, Name),
    Unknown,
    Elsewhere,
}

impl Responder {
    pub(crate) fn new(
        zone: Zone,
        published: Arc<Published>,
        forwarder: Rc<Forwarder>,
        metrics: Metrics,
    ) -> Self {
        let top = |name: &str| wire(&Name::from_ascii(name).expect("a name"));
        let tops = [wire(&zone.domain), top("arpa."), top("localhost.")];
        Self { zone, tops, published, kept: RefCell::default(), forwarder, metrics }
    }

    /// Answers a message, if that needs nobody else.
    pub(crate) fn take(&self, bytes: &[u8], transport: Transport, out: &mut Vec<u8>) -> Taken {
        let began = Instant::now();
        let query = match Query::parse(bytes) {
            Ok(query) => query,
            Err(Problem::Silence) => return Taken::Silence,
            Err(Problem::Error { id, flags, code }) => {
                write_problem(id, flags, code, out);
                self.metrics.answer(code, began.elapsed());
                return Taken::Answered;
            }
        };
        self.metrics.question(transport, query.kind());
        if query.edns.is_some_and(|edns| edns.version > 0) {
            return self.error(&query, ResponseCode::BADVERS, began, out);
        }
        if !matches!(query.class().into(), DNSClass::IN | DNSClass::ANY) || is_refused(query.kind()) {
            return self.error(&query, ResponseCode::Refused, began, out);
        }
        let key = query.key();
        if query.kind() == PROBE_KIND && self.forwarder.is_probe(key.name_bytes()) {
            return self.error(&query, ResponseCode::Refused, began, out);
        }
        if self.tops.iter().any(|top| is_below(key.name_bytes(), top)) {
            let kept = &mut *self.kept.borrow_mut();
            kept.follow(&self.published);
            kept.spin = kept.spin.wrapping_add(1);
            if let Some(packet) = kept.packets.get(key.as_bytes()) {
                packet.write(&query, transport, Ttl::Aged(0), kept.spin, out);
                self.metrics.answer(packet.code(), began.elapsed());
                return Taken::Answered;
            }
            match self.say(kept.index.as_deref(), &query) {
                Said::Packet(packet) => {
                    packet.write(&query, transport, Ttl::Aged(0), kept.spin, out);
                    self.metrics.answer(packet.code(), began.elapsed());
                    if kept.packets.len() >= MAX_KEPT {
                        kept.packets.clear();
                    }
                    kept.packets.insert(key.as_bytes().into(), packet);
                    return Taken::Answered;
                }
                Said::Aliases(aliases, target) => {
                    let Some(onward) = query.about(&wire(&target)) else {
                        return self.error(&query, ResponseCode::ServFail, began, out);
                    };
                    let through = Some((aliases, onward));
                    return Taken::Later(Box::new(Later { query, transport, began, through }));
                }
                Said::Unknown => return self.error(&query, ResponseCode::ServFail, began, out),
                Said::Elsewhere => {}
            }
        }
        match self.forwarder.look(&query, key.as_bytes()) {
            Some((packet, ttl)) => {
                packet.write(&query, transport, ttl, 0, out);
                self.metrics.answer(packet.code(), began.elapsed());
                Taken::Answered
            }
            None => Taken::Later(Box::new(Later { query, transport, began, through: None })),
        }
    }

    fn error(&self, query: &Query, code: ResponseCode, began: Instant, out: &mut Vec<u8>) -> Taken {
        write_error(query, code, out);
        self.metrics.answer(code, began.elapsed());
        Taken::Answered
    }

    /// Answers what others had to be asked about.
    pub(crate) async fn finish(&self, later: Box<Later>, out: &mut Vec<u8>) {
        let Later { query, transport, began, through } = *later;
        let code = match through {
            None => match self.forwarder.ask(&query).await {
                Ok((packet, ttl)) => {
                    packet.write(&query, transport, ttl, 0, out);
                    packet.code()
                }
                Err(code) => {
                    write_error(&query, code, out);
                    code
                }
            },
            Some((aliases, onward)) => {
                let packet = match self.forwarder.ask(&onward).await {
                    Ok((packet, ttl)) => {
                        packet.write(&onward, Transport::Tcp, ttl, 0, out);
                        Message::from_vec(out).ok().and_then(|message| joined(&query, aliases, message))
                    }
                    Err(_) => None,
                };
                match packet {
                    Some(packet) => {
                        packet.write(&query, transport, Ttl::Aged(0), 0, out);
                        packet.code()
                    }
                    None => {
                        write_error(&query, ResponseCode::ServFail, out);
                        ResponseCode::ServFail
                    }
                }
            }
        };
        self.metrics.answer(code, began.elapsed());
    }

    fn say(&self, index: Option<&Index>, query: &Query) -> Said {
        let Ok(name) = query.name() else { return Said::Unknown };
        let Some(index) = index else {
            // Reverse names may be ours too.
            return if self.zone.domain.zone_of(&name.to_lowercase()) || name.parse_arpa_name().is_ok() {
                Said::Unknown
            } else {
                Said::Elsewhere
            };
        };
        let negative = |code| Sections {
            code,
            authoritative: true,
            authority: answer::authority(index, &name).into_iter().collect(),
            ..Sections::default()
        };
        let sections = match answer(index, &name, query.kind()) {
            Answer::Records { mut answers, additionals } => {
                shuffle(&mut answers);
                Sections { authoritative: true, answers, additionals, ..Sections::default() }
            }
            Answer::NoData => negative(ResponseCode::NoError),
            Answer::NxDomain if index.is_provisional() => return Said::Unknown,
            Answer::NxDomain => negative(ResponseCode::NXDomain),
            Answer::Alias { answers, target } => return Said::Aliases(answers, target),
            Answer::Elsewhere => return Said::Elsewhere,
        };
        Packet::encode(query, sections).map_or(Said::Unknown, Said::Packet)
    }
}

impl Kept {
    /// Forgets what was made from an index that no longer stands.
    fn follow(&mut self, published: &Published) {
        let newest = published.load();
        let same = match (&*newest, &self.index) {
            (Some(newest), Some(index)) => Arc::ptr_eq(newest, index),
            (newest, index) => newest.is_none() && index.is_none(),
        };
        if !same {
            self.packets.clear();
            self.index = (*newest).clone();
        }
    }
}

/// The answer to a question through aliases of ours: those, and what was said of where they lead.
fn joined(query: &Query, mut aliases: Vec<Record>, said: Message) -> Option<Packet> {
    aliases.extend(said.answers);
    let code = said.metadata.response_code;
    let sections = Sections { code, answers: aliases, authority: said.authorities, ..Sections::default() };
    Packet::encode(query, sections)
}

/// Spreads the load of clients that take the first. Aliases stay in front, in their order.
fn shuffle(answers: &mut [Record]) {
    use hickory_proto::rr::RecordType;
    let aliases = answers.iter().take_while(|record| record.record_type() == RecordType::CNAME).count();
    answers[aliases..].shuffle(&mut rand::rng());
}

#[cfg(test)]
mod tests;
