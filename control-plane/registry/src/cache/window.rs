//! The recent events of one resource. They let a watch begin in the past, and let a list be read as it
//! was: the present state is rewound event by event.
//!
//! Invariant: every event after `start` is in the ring, in revision order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use skep_storage::Revision;

use super::object::Object;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// It appeared.
    Added,
    /// It changed.
    Modified,
    /// It went.
    Deleted,
}

impl EventType {
    /// As a watch frame spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change of one object.
#[derive(Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventType,
    /// The object afterwards; for a deletion its last state under the revision of the deletion.
    pub object: Arc<Object>,
    /// The object before.
    pub previous: Option<Arc<Object>>,
    /// The revision of the change.
    pub revision: Revision,
    json_frame: OnceLock<Bytes>,
    /// Frames in other forms, by the number of the form.
    frames: Mutex<Vec<(u16, Bytes)>>,
}

impl Event {
    /// An event without an encoded frame yet.
    pub fn new(
        kind: EventType,
        object: Arc<Object>,
        previous: Option<Arc<Object>>,
        revision: Revision,
    ) -> Self {
        Self { kind, object, previous, revision, json_frame: OnceLock::new(), frames: Mutex::default() }
    }

    /// The JSON watch frame, encoded once for all watchers.
    pub fn json_frame(&self) -> Bytes {
        self.json_frame.get_or_init(|| json_frame(self.kind, &self.object.json())).clone()
    }
}

impl Event {
    /// The frame in another form, encoded once for all watchers of that form.
    pub fn frame(&self, form: u16, encode: impl FnOnce() -> Bytes) -> Bytes {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, frame)) = frames.iter().find(|(known, _)| *known == form) {
            return frame.clone();
        }
        let frame = encode();
        frames.push((form, frame.clone()));
        frame
    }

    fn size(&self) -> usize {
        self.object.size
    }
}

/// `{"type":…,"object":…}` and a newline.
pub fn json_frame(kind: EventType, object: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(object.len() + 32);
    frame.extend_from_slice(b"{\"type\":\"");
    frame.extend_from_slice(kind.as_str().as_bytes());
    frame.extend_from_slice(b"\",\"object\":");
    frame.extend_from_slice(object);
    frame.extend_from_slice(b"}\n");
    frame.into()
}

/// The ring.
#[derive(Debug, Default)]
pub(crate) struct Window {
    events: VecDeque<Arc<Event>>,
    start: Revision,
    capacity: usize,
    most_bytes: usize,
    bytes: usize,
}

impl Window {
    /// An empty ring that is complete after `start`.
    pub(crate) fn new(start: Revision, capacity: usize, most_bytes: usize) -> Self {
        Self { events: VecDeque::new(), start, capacity, most_bytes, bytes: 0 }
    }

    /// The oldest revision a watch can begin after.
    pub(crate) fn start(&self) -> Revision {
        self.start
    }

    /// Appends an event; the oldest falls out when the ring is full.
    pub(crate) fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.size();
        self.events.push_back(event);
        // Events of one revision leave together, or the ring would claim to be complete from the
        // middle of a transaction.
        while self.events.len() > self.capacity || (self.bytes > self.most_bytes && self.events.len() > 1) {
            self.drop_oldest_revision();
        }
    }

    /// Drops the events up to `floor`, which the store has forgotten too.
    pub(crate) fn forget(&mut self, floor: Revision) {
        while self.events.front().is_some_and(|event| event.revision <= floor) {
            self.drop_oldest_revision();
        }
        self.start = self.start.max(floor);
    }

    fn drop_oldest_revision(&mut self) {
        if let Some(oldest) = self.events.front().map(|event| event.revision) {
            while self.events.front().is_some_and(|event| event.revision == oldest) {
                self.bytes -= self.events.pop_front().map_or(0, |event| event.size());
            }
            self.start = self.start.max(oldest);
        }
    }

    /// The events after `revision`; `None` when some of them have fallen out.
    pub(crate) fn after(&self, revision: Revision) -> Option<impl Iterator<Item = &Arc<Event>>> {
        if revision < self.start {
            return None;
        }
        let first = self.events.partition_point(|event| event.revision <= revision);
        Some(self.events.range(first..))
    }

    /// `objects` as they were at `revision`; `None` when that is too long ago.
    pub(crate) fn rewind(
        &self,
        objects: &BTreeMap<String, Arc<Object>>,
        revision: Revision,
    ) -> Option<BTreeMap<String, Arc<Object>>> {
        if revision < self.start {
            return None;
        }
        let first = self.events.partition_point(|event| event.revision <= revision);
        let mut past = objects.clone();
        for event in self.events.range(first..).rev() {
            let key = event.object.key();
            match &event.previous {
                Some(previous) => past.insert(key, previous.clone()),
                None => past.remove(&key),
            };
        }
        Some(past)
    }
}
