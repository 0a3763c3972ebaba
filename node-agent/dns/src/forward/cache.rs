//! Answers of other servers, kept for as long as they say, and a while longer for when nobody answers (RFC 8767).
//!
//! Pure: the time is given. One thread owns it, so nothing is locked. It holds so many bytes at most; what is asked
//! for seldom goes first.

use std::{cell::Cell, rc::Rc, time::Duration};

use hickory_proto::op::ResponseCode;
use quick_cache::{Weighter, unsync};
use tokio::time::Instant;

use crate::packet::{Packet, Ttl};

/// Kept answers take this much memory at most.
const CAPACITY: u64 = 8 << 20;
/// How many answers of usual length that is; a start for the table.
const USUAL: usize = 1 << 14;
/// A longer answer is passed on and not kept.
const LONGEST: usize = 16 << 10;
/// What an entry takes beside its key and its packet.
const OVERHEAD: u64 = 96;
/// Nothing is kept longer than this, whatever its TTL.
const MOST: u32 = 3600;
/// That there is nothing is kept no longer than this: it is most often about to change.
const MOST_NEGATIVE: u32 = 30;
/// That a server failed is kept so long (RFC 9520 asks for a second at least).
const FAILURE: u32 = 1;
/// How long an answer that is over may still be given.
const STALE: Duration = Duration::from_secs(3600);
/// What clients are told of it, RFC 8767 section 5.
const STALE_TTL: u32 = 30;
/// After a failure, the old answer is given at once for so long (RFC 8767's failure recheck timer).
const RECHECK: Duration = Duration::from_secs(5);
/// An answer that was asked for so often is refreshed before it is over.
const POPULAR: u32 = 3;
/// From this share of its time on: one tenth is left.
const REFRESH_SHARE: u32 = 10;

/// What is known about a question.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// An answer, and whether it should be asked for again already.
    Fresh {
        /// The answer.
        packet: Rc<Packet>,
        /// What to say of its time.
        ttl: Ttl,
        /// It is popular and soon over.
        refresh: bool,
    },
    /// An answer that is over, and whether a new one is worth waiting for.
    Stale {
        /// The answer.
        packet: Rc<Packet>,
        /// What to say of its time.
        ttl: Ttl,
        /// The servers did not fail just now.
        retry: bool,
    },
    /// Nothing.
    Absent,
}

#[derive(Debug)]
struct Entry {
    packet: Rc<Packet>,
    stored: Instant,
    ttl: Duration,
    hits: Cell<u32>,
    /// The servers failed; not before this they are asked again.
    not_before: Cell<Option<Instant>>,
}

#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<Rc<[u8]>, Entry> for Bytes {
    fn weight(&self, key: &Rc<[u8]>, entry: &Entry) -> u64 {
        OVERHEAD + key.len() as u64 + entry.packet.size() as u64
    }
}

/// The answers, by the key of their questions.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: unsync::Cache<Rc<[u8]>, Entry, Bytes>,
}

impl Cache {
    pub(crate) fn new() -> Self {
        Self { entries: unsync::Cache::with_weighter(USUAL, CAPACITY, Bytes) }
    }

    /// Looks a question up.
    pub(crate) fn look(&self, key: &[u8], now: Instant) -> Found {
        let Some(entry) = self.entries.get(key) else { return Found::Absent };
        let packet = Rc::clone(&entry.packet);
        let age = now.saturating_duration_since(entry.stored);
        if age < entry.ttl {
            let hits = entry.hits.get().saturating_add(1);
            entry.hits.set(hits);
            let refresh = hits >= POPULAR && (entry.ttl - age) * REFRESH_SHARE < entry.ttl;
            if refresh {
                // Once is enough.
                entry.hits.set(0);
            }
            let ttl = Ttl::Aged(u32::try_from(age.as_secs()).unwrap_or(u32::MAX));
            return Found::Fresh { packet, ttl, refresh };
        }
        if age - entry.ttl >= STALE || packet.code() == ResponseCode::ServFail {
            return Found::Absent;
        }
        let retry = entry.not_before.get().is_none_or(|moment| now >= moment);
        Found::Stale { packet, ttl: Ttl::Stale(STALE_TTL), retry }
    }

    /// Keeps an answer, if it may be kept.
    pub(crate) fn keep(&mut self, key: &Rc<[u8]>, packet: &Rc<Packet>, now: Instant) {
        if packet.size() > LONGEST || packet.is_truncated() {
            return;
        }
        let positive = packet.code() == ResponseCode::NoError && packet.has_answers();
        let seconds = match packet.code() {
            ResponseCode::NoError | ResponseCode::NXDomain => match packet.ttl() {
                Some(ttl) if positive => ttl.min(MOST),
                Some(ttl) => ttl.min(MOST_NEGATIVE),
                None => return,
            },
            ResponseCode::ServFail => FAILURE,
            _ => return,
        };
        let entry = Entry {
            packet: Rc::clone(packet),
            stored: now,
            ttl: Duration::from_secs(seconds.into()),
            hits: Cell::new(0),
            not_before: Cell::new(None),
        };
        self.entries.insert(Rc::clone(key), entry);
    }

    /// Notes that the servers failed: what there is stands in for an answer. Whether there is something.
    pub(crate) fn failed(&self, key: &[u8], now: Instant) -> bool {
        match self.entries.peek(key) {
            Some(entry) if entry.packet.code() != ResponseCode::ServFail => {
                entry.not_before.set(Some(now + RECHECK));
                true
            }
            _ => false,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    fn weight(&self) -> u64 {
        self.entries.weight()
    }
}

#[cfg(test)]
mod tests;
