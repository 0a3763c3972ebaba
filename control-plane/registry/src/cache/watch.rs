//! One client's watch: the past out of the window, then what happens, with bookmarks between.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use skep_api::error::ApiError;
use skep_storage::Revision;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};

use super::feed::Progress;
use super::filter::Filter;
use super::mailbox::Mailbox;
use super::replay::{Replay, Step};
use super::watchers::Seen;
use super::{Cache, expired};

/// How often a bookmark tells an idle watcher how far it is.
const BOOKMARKS: Duration = Duration::from_secs(50);

/// So long before its end a watch tells how far it is, for the next one to begin there.
const BEFORE_END: Duration = Duration::from_secs(2);

/// What a watch asks for.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// Which objects.
    pub filter: Filter,
    /// Begin after this; `None` and 0 begin with what is there.
    pub resource_version: Option<Revision>,
    /// Send bookmarks.
    pub bookmarks: bool,
    /// `sendInitialEvents`: begin with what is there and mark its end by a bookmark; `Some(false)`
    /// begins with the next change even without a resource version.
    pub initial_events: Option<bool>,
    /// When whoever asked is going to end the watch.
    pub deadline: Option<Instant>,
}

/// What a watch says.
#[derive(Clone, Debug)]
pub enum WatchItem {
    /// A change.
    Event(Seen),
    /// All changes up to here were sent.
    Bookmark {
        /// The revision reached.
        revision: Revision,
        /// This one ends the initial events.
        initial_end: bool,
    },
    /// The watch can't go on: the last item.
    Failed(ApiError),
}

/// An open watch. Ends (with `None`) when the watcher was too slow or the cache began anew.
pub struct Watch {
    cache: Weak<Cache>,
    id: u64,
    backlog: VecDeque<WatchItem>,
    mailbox: Arc<Mailbox>,
    /// The past that is still to come out of the store.
    replay: Option<Replay>,
    /// What a replay gave out is not given out again.
    replayed: Revision,
    progress: Receiver<Progress>,
    bookmarks: Option<Bookmarks>,
    sent: Revision,
}

impl Cache {
    /// Opens a watch. The cache must be as new as the options ask for.
    pub(crate) fn watch(self: &Arc<Self>, options: &WatchOptions) -> Result<Watch, ApiError> {
        let mut state = self.write();
        let now = state.now(*self.progress.borrow());
        let mut backlog = VecDeque::new();
        let begin = match (options.initial_events, options.resource_version) {
            (Some(true), _) | (None, None | Some(0)) => {
                let matching = state.objects.values().filter(|object| options.filter.matches(object));
                backlog.extend(matching.cloned().map(|object| WatchItem::Event(Seen::initial(object))));
                now
            }
            (Some(false), None | Some(0)) => now,
            (_, Some(revision)) => {
                let start = state.window.start();
                let events = state.window.after(revision).ok_or_else(|| expired(revision, start))?;
                let seen = events.filter_map(|event| Seen::through(&options.filter, event));
                backlog.extend(seen.map(WatchItem::Event));
                revision
            }
        };
        if options.initial_events == Some(true) && options.bookmarks {
            backlog.push_back(WatchItem::Bookmark { revision: now, initial_end: true });
        }
        let (id, mailbox) = state.watchers.add(options.filter.clone());
        drop(state);
        Ok(Watch {
            cache: Arc::downgrade(self),
            id,
            backlog,
            mailbox,
            replay: None,
            replayed: 0,
            progress: self.progress.clone(),
            bookmarks: Bookmarks::new(options),
            sent: begin,
        })
    }

    /// Opens a watch whose past comes out of the store.
    pub(crate) fn watch_after(self: &Arc<Self>, replay: Replay, options: &WatchOptions) -> Watch {
        let mut state = self.write();
        let now = state.now(*self.progress.borrow());
        let (id, mailbox) = state.watchers.add(options.filter.clone());
        drop(state);
        Watch {
            cache: Arc::downgrade(self),
            id,
            backlog: VecDeque::new(),
            mailbox,
            sent: replay.reached,
            replay: Some(replay.until(now)),
            replayed: 0,
            progress: self.progress.clone(),
            bookmarks: Bookmarks::new(options),
        }
    }
}

/// When the next bookmark is due.
struct Bookmarks {
    next: Instant,
    deadline: Option<Instant>,
}

impl Bookmarks {
    fn new(options: &WatchOptions) -> Option<Self> {
        let deadline = options.deadline;
        options.bookmarks.then(|| Self { next: due(Instant::now(), deadline), deadline })
    }

    async fn tick(&mut self) {
        sleep_until(self.next).await;
        self.next = due(Instant::now(), self.deadline);
    }
}

/// The next regular one, or the one before the end if that comes first.
fn due(now: Instant, deadline: Option<Instant>) -> Instant {
    let last = deadline.and_then(|deadline| deadline.checked_sub(BEFORE_END)).filter(|last| *last > now);
    last.map_or(now + BOOKMARKS, |last| last.min(now + BOOKMARKS))
}

impl Watch {
    /// The next item. Cancel safe: an item is taken and returned in one step.
    pub async fn next(&mut self) -> Option<WatchItem> {
        if let Some(item) = self.backlog.pop_front() {
            return Some(self.note(item));
        }
        if let Some(replay) = &mut self.replay {
            match replay.next().await {
                Step::Seen(seen) => return Some(self.note(WatchItem::Event(seen))),
                Step::Broken => return None,
                Step::Done => {
                    self.replayed = replay.reached;
                    self.replay = None;
                }
            }
        }
        loop {
            let seen = match &mut self.bookmarks {
                None => self.mailbox.take().await?,
                Some(bookmarks) => tokio::select! {
                    biased;
                    seen = self.mailbox.take() => seen?,
                    () = bookmarks.tick() => return Some(self.bookmark()),
                },
            };
            if seen.revision() > self.replayed {
                return Some(self.note(WatchItem::Event(seen)));
            }
        }
    }

    /// An event that is there, and was not replayed.
    fn take(&mut self) -> Option<Seen> {
        loop {
            let seen = self.mailbox.try_take()?;
            if seen.revision() > self.replayed {
                return Some(seen);
            }
        }
    }

    /// What can be had without waiting, for writing many events at once.
    pub fn try_next(&mut self) -> Option<WatchItem> {
        let item = match self.backlog.pop_front() {
            Some(item) => item,
            None if self.replay.is_some() => return None,
            None => WatchItem::Event(self.take()?),
        };
        Some(self.note(item))
    }

    /// The progress is read before the queue is emptied: whatever it covers is in the queue already.
    fn bookmark(&mut self) -> WatchItem {
        let revision = self.progress.borrow().revision;
        while let Some(seen) = self.take() {
            self.backlog.push_back(WatchItem::Event(seen));
        }
        if self.backlog.is_empty() {
            return self.note(WatchItem::Bookmark { revision: revision.max(self.sent), initial_end: false });
        }
        let last = self.backlog.iter().rev().find_map(|item| match item {
            WatchItem::Event(seen) => Some(seen.object.revision),
            WatchItem::Bookmark { .. } | WatchItem::Failed(_) => None,
        });
        let revision = revision.max(last.unwrap_or_default());
        self.backlog.push_back(WatchItem::Bookmark { revision, initial_end: false });
        match self.backlog.pop_front() {
            Some(item) => self.note(item),
            None => WatchItem::Bookmark { revision, initial_end: false },
        }
    }

    fn note(&mut self, item: WatchItem) -> WatchItem {
        let revision = match &item {
            // Initial objects carry their own, older revisions.
            WatchItem::Event(seen) => seen.object.revision,
            WatchItem::Bookmark { revision, .. } => *revision,
            WatchItem::Failed(_) => self.sent,
        };
        self.sent = self.sent.max(revision);
        item
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(cache) = self.cache.upgrade() {
            cache.write().watchers.remove(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bookmark_comes_now_and_then_and_before_the_end() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(due(now, None), after(50));
        assert_eq!(due(now, Some(after(1800))), after(50));
        assert_eq!(due(now, Some(after(40))), after(38));
        // It was sent, or there is no time for it.
        assert_eq!(due(now, Some(after(2))), after(50));
        assert_eq!(due(now, Some(after(1))), after(50));
    }
}
