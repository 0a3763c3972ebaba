//! Watches: a hub in the writer that fans committed batches out, and the stream a caller holds.
//!
//! A watch is registered with the writer, so its live part begins exactly after the revision of
//! registration; what lies between the asked revision and that one is replayed from the store first,
//! in bounded pieces, while live batches wait in the watcher's bounded buffer. A watcher whose buffer
//! fills is cut off: its stream ends with an error and the caller begins again from what it saw last.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use futures::stream::{self, StreamExt};
use redb::Database;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::read::Snapshot;
use super::record::Record;
use super::tables::{self, fault};
use crate::{Batch, Change, Error, Result, Revision, WatchMessage, WatchStream};

/// A replay step reads at most so many changes and gathers at most so many bytes of values.
const STEP_CHANGES: usize = 4096;
const STEP_BYTES: usize = 1 << 20;

struct Watcher {
    prefix: String,
    feed: mpsc::Sender<WatchMessage>,
    lagged: Arc<AtomicBool>,
}

/// All live watches; owned by the writer.
#[derive(Default)]
pub(super) struct Hub {
    watchers: Vec<Watcher>,
}

/// What a new watch gets from the writer.
pub(super) struct Registration {
    /// The store's revision at registration: live batches are newer.
    pub(super) revision: Revision,
    live: mpsc::Receiver<WatchMessage>,
    lagged: Arc<AtomicBool>,
}

impl Hub {
    pub(super) fn register(&mut self, prefix: String, revision: Revision, buffer: usize) -> Registration {
        let (feed, live) = mpsc::channel(buffer);
        let lagged = Arc::new(AtomicBool::new(false));
        self.watchers.push(Watcher { prefix, feed, lagged: Arc::clone(&lagged) });
        Registration { revision, live, lagged }
    }

    /// Hands a committed batch to every watch it concerns.
    pub(super) fn publish(&mut self, batch: &Batch) {
        self.watchers.retain(|watcher| {
            let mut changes =
                batch.changes.iter().filter(|c| key_of(c).starts_with(&watcher.prefix)).peekable();
            if changes.peek().is_none() {
                return true;
            }
            let changes = changes.cloned().collect();
            match watcher.feed.try_send(WatchMessage::Batch(Batch { revision: batch.revision, changes })) {
                Ok(()) => true,
                Err(TrySendError::Closed(_)) => false,
                Err(TrySendError::Full(_)) => {
                    watcher.lagged.store(true, Ordering::Release);
                    tracing::warn!(
                        prefix = watcher.prefix,
                        "a watcher of the store fell behind and was cut off"
                    );
                    false
                }
            }
        });
    }

    /// Tells every watch how far the store is. A full buffer skips it: batches behind it say as much.
    pub(super) fn progress(&mut self, revision: Revision) {
        self.watchers.retain(|watcher| {
            !matches!(watcher.feed.try_send(WatchMessage::Progress(revision)), Err(TrySendError::Closed(_)))
        });
    }

    /// Forgets watches whose stream was dropped.
    pub(super) fn prune(&mut self) {
        self.watchers.retain(|watcher| !watcher.feed.is_closed());
    }
}

fn key_of(change: &Change) -> &str {
    match change {
        Change::Put { kv, .. } => &kv.key,
        Change::Delete { key, .. } => key,
    }
}

struct Cursor {
    database: Weak<Database>,
    prefix: String,
    /// Everything up to here has been delivered or is in `ready`.
    seen: Revision,
    ready: VecDeque<Batch>,
    registration: Registration,
}

/// The stream of a registered watch, beginning after `after`.
pub(super) fn stream(
    database: Weak<Database>,
    prefix: String,
    after: Revision,
    registration: Registration,
) -> WatchStream {
    let cursor = Cursor { database, prefix, seen: after, ready: VecDeque::new(), registration };
    stream::unfold(Some(cursor), |cursor| async move {
        let mut cursor = cursor?;
        match cursor.next().await {
            Ok(message) => Some((Ok(message), Some(cursor))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

impl Cursor {
    async fn next(&mut self) -> Result<WatchMessage> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(WatchMessage::Batch(batch));
            }
            if self.seen < self.registration.revision {
                self.replay().await?;
                continue;
            }
            match self.registration.live.recv().await {
                // A watch may begin in the future; what comes before is not its business.
                Some(WatchMessage::Batch(batch)) if batch.revision <= self.seen => {}
                Some(WatchMessage::Progress(revision)) if revision < self.seen => {}
                Some(message) => return Ok(message),
                None if self.registration.lagged.load(Ordering::Acquire) => {
                    return Err(Error::Unavailable("the watch fell behind; begin again".into()));
                }
                None => return Err(Error::Unavailable("the store was closed".into())),
            }
        }
    }

    async fn replay(&mut self) -> Result<()> {
        let closed = || Error::Unavailable("the store was closed".into());
        let database = self.database.upgrade().ok_or_else(closed)?;
        let (prefix, after, until) = (self.prefix.clone(), self.seen, self.registration.revision);
        let step = move || replay_step(&database, &prefix, after, until);
        let (batches, seen) = tokio::task::spawn_blocking(step).await.map_err(|_| closed())??;
        self.ready.extend(batches);
        self.seen = seen;
        Ok(())
    }
}

/// Reads a piece of history in `(after, until]`: its batches, and the revision it is complete up to.
fn replay_step(
    database: &Database,
    prefix: &str,
    after: Revision,
    until: Revision,
) -> Result<(Vec<Batch>, Revision)> {
    let snapshot = Snapshot::begin(database)?;
    if after < snapshot.compacted {
        return Err(Error::Compacted { asked: after, oldest: snapshot.compacted });
    }
    let changes = snapshot.read.open_table(tables::CHANGES).map_err(fault)?;
    let mut batches: Vec<Batch> = Vec::new();
    let (mut scanned, mut bytes, mut complete) = (0, 0, after);
    let span = (after + 1, 0)..=(until, u32::MAX);
    for entry in changes.range::<(u64, u32)>(span).map_err(fault)? {
        let (id, key) = entry.map_err(fault)?;
        let (revision, _) = id.value();
        if revision > complete + 1 && (scanned >= STEP_CHANGES || bytes >= STEP_BYTES) {
            // The revision before this one is whole; this one waits for the next piece.
            return Ok((batches, revision - 1));
        }
        complete = revision - 1;
        scanned += 1;
        if !key.value().starts_with(prefix) {
            continue;
        }
        let change = change_at(&snapshot, key.value(), revision)?;
        bytes += size_of_change(&change);
        match batches.last_mut() {
            Some(batch) if batch.revision == revision => batch.changes.push(change),
            _ => batches.push(Batch { revision, changes: vec![change] }),
        }
    }
    Ok((batches, until))
}

/// Rebuilds what `revision` did to `key` out of the undo log.
fn change_at(snapshot: &Snapshot, key: &str, revision: Revision) -> Result<Change> {
    let history = &snapshot.history;
    let previous = match history.get((key, revision)).map_err(fault)? {
        Some(bytes) => Some(Record::decode(bytes.value())?.to_pair(key, false)),
        None => None,
    };
    let view = snapshot.view();
    let kv = match history.range::<(&str, u64)>((key, revision + 1)..=(key, u64::MAX)).map_err(fault)?.next()
    {
        Some(entry) => {
            let (_, bytes) = entry.map_err(fault)?;
            Some(Record::decode(bytes.value())?.to_pair(key, false))
        }
        None => match view.current.get(key).map_err(fault)? {
            Some(bytes) => Some(Record::decode(bytes.value())?.to_pair(key, false)),
            None => None,
        },
    };
    Ok(match kv.filter(|kv| kv.mod_revision == revision) {
        Some(kv) => Change::Put { kv, previous },
        None => Change::Delete { key: key.to_owned(), previous },
    })
}

fn size_of_change(change: &Change) -> usize {
    let (new, old) = match change {
        Change::Put { kv, previous } => (kv.value.len(), previous),
        Change::Delete { previous, .. } => (0, previous),
    };
    new + old.as_ref().map_or(0, |pair| pair.value.len())
}
