//! What waits for one watcher. The box is bounded in events and bytes; when it overflows it is emptied at
//! once and closed, so that a watcher that does not read costs no memory, and begins again later.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::watchers::Seen;

/// How many events a watcher may lag behind.
const EVENTS: usize = 4096;

/// And how many bytes of objects.
const BYTES: usize = 32 << 20;

/// The box of one watcher, shared by the one that puts in and the one that takes out.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    content: Mutex<Content>,
    /// Something came, or the box was closed.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Content {
    seen: VecDeque<Seen>,
    bytes: usize,
    closed: bool,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an event in; false when the box is closed, by this or before.
    pub(crate) fn put(&self, seen: Seen) -> bool {
        let mut content = self.lock();
        if content.closed {
            return false;
        }
        content.bytes += seen.object.size;
        content.seen.push_back(seen);
        if content.seen.len() > EVENTS || content.bytes > BYTES {
            // What it would still read it reads again from where it is.
            *content = Content { closed: true, ..Content::default() };
        }
        let open = !content.closed;
        drop(content);
        self.changed.notify_one();
        open
    }

    /// Nothing more will come; what is here can still be taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// What is here.
    pub(crate) fn try_take(&self) -> Option<Seen> {
        let mut content = self.lock();
        let seen = content.seen.pop_front()?;
        content.bytes -= seen.object.size;
        Some(seen)
    }

    /// The next event; `None` when the box is closed and empty. Cancel safe; for one taker.
    pub(crate) async fn take(&self) -> Option<Seen> {
        loop {
            if let Some(seen) = self.try_take() {
                return Some(seen);
            }
            if self.lock().closed {
                return self.try_take();
            }
            self.changed.notified().await;
        }
    }
}

/// The end that puts in: closes the box when it goes.
#[derive(Debug)]
pub(crate) struct Slot(pub(crate) Arc<Mailbox>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::object::Object;
    use super::*;

    fn seen(size: usize) -> Seen {
        Seen::initial(Arc::new(Object::new(json!({"metadata": {"name": "a"}}), 1, Vec::new()).of_size(size)))
    }

    #[tokio::test]
    async fn who_does_not_read_loses_the_box_and_its_content() {
        let mailbox = Mailbox::default();
        assert!((0..EVENTS).all(|_| mailbox.put(seen(1))));
        assert!(!mailbox.put(seen(1)));
        assert!(mailbox.take().await.is_none());
        assert!(!mailbox.put(seen(1)));
        let mailbox = Mailbox::default();
        assert!(mailbox.put(seen(BYTES)));
        assert!(!mailbox.put(seen(1)), "bytes count too");
    }

    #[tokio::test]
    async fn a_closed_box_is_read_to_its_end() {
        let mailbox = Arc::new(Mailbox::default());
        let slot = Slot(mailbox.clone());
        assert!(mailbox.put(seen(1)));
        drop(slot);
        assert!(mailbox.take().await.is_some());
        assert!(mailbox.take().await.is_none());
    }

    #[tokio::test]
    async fn a_taker_is_woken() {
        let mailbox = Arc::new(Mailbox::default());
        let taker = tokio::spawn({
            let mailbox = mailbox.clone();
            async move { mailbox.take().await }
        });
        tokio::task::yield_now().await;
        assert!(mailbox.put(seen(1)));
        assert!(taker.await.expect("no panic").is_some());
    }
}
