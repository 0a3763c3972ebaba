//! The past of a watch out of the store: changes from before the window, read by a watch of the store
//! itself until it has come to where the window's watchers are.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt;
use skep_storage::{Batch, Change, Revision, WatchMessage, WatchStream};

use super::Prepare;
use super::feed::parse;
use super::filter::Filter;
use super::watchers::Seen;
use super::window::{Event, EventType};

/// A watch of the store on its way to the present.
pub(crate) struct Replay {
    stream: WatchStream,
    prepare: Prepare,
    filter: Filter,
    /// The live watcher was registered at this revision.
    until: Revision,
    /// Everything up to here has been given out.
    pub(crate) reached: Revision,
    ready: VecDeque<Seen>,
}

/// What a step of a replay brought.
pub(crate) enum Step {
    /// An event.
    Seen(Seen),
    /// It has reached the present.
    Done,
    /// It broke, or the store has forgotten where it stood: the client has to come again.
    Broken,
}

impl Replay {
    /// A replay of the changes after `after`.
    pub(crate) fn new(stream: WatchStream, prepare: Prepare, filter: Filter, after: Revision) -> Self {
        Self { stream, prepare, filter, until: Revision::MAX, reached: after, ready: VecDeque::new() }
    }

    /// The live watcher sees everything after `revision`.
    pub(crate) fn until(mut self, revision: Revision) -> Self {
        self.until = revision;
        self
    }

    /// The next event. Cancel safe: what was taken from the stream is kept.
    pub(crate) async fn next(&mut self) -> Step {
        loop {
            if let Some(seen) = self.ready.pop_front() {
                return Step::Seen(seen);
            }
            if self.reached >= self.until {
                return Step::Done;
            }
            match self.stream.next().await {
                Some(Ok(WatchMessage::Batch(batch))) => self.take(&batch),
                Some(Ok(WatchMessage::Progress(revision))) => self.reached = self.reached.max(revision),
                Some(Err(error)) => {
                    tracing::debug!(%error, "the past of a watch can't be read on");
                    return Step::Broken;
                }
                None => return Step::Broken,
            }
        }
    }

    fn take(&mut self, batch: &Batch) {
        self.reached = self.reached.max(batch.revision);
        for change in &batch.changes {
            let event = self.event(change, batch.revision);
            let seen = event.and_then(|event| Seen::through(&self.filter, &Arc::new(event)));
            self.ready.extend(seen);
        }
    }

    fn event(&self, change: &Change, revision: Revision) -> Option<Event> {
        let previous = match change {
            Change::Put { previous, .. } | Change::Delete { previous, .. } => previous.as_ref(),
        };
        let previous = previous.and_then(|kv| parse(kv, &self.prepare)).map(Arc::new);
        match change {
            Change::Put { kv, .. } => {
                let object = Arc::new(parse(kv, &self.prepare)?);
                let kind = if previous.is_some() { EventType::Modified } else { EventType::Added };
                Some(Event::new(kind, object, previous, revision))
            }
            Change::Delete { .. } => {
                let previous = previous?;
                Some(Event::new(
                    EventType::Deleted,
                    Arc::new(previous.at(revision)),
                    Some(previous),
                    revision,
                ))
            }
        }
    }
}
