//! Windows: how much may be sent before the peer says that it has room (draft 3.1, section 2.6.8).
//!
//! The SPDY of Go's Kubernetes clients keeps no windows: it never sends an update and takes whatever
//! comes. A window that nobody opens would stop every transfer at 64 KiB, so windows count from the
//! beginning but bind only once the peer has sent an update or a first window's size.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// What a stream or a session may send before it hears more.
pub(super) const INITIAL: u32 = 64 << 10;
/// No window may grow beyond.
const MAX: i64 = 0x7fff_ffff;

/// A sender's window.
#[derive(Debug)]
pub(super) struct Window {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    left: i64,
    binding: bool,
    closed: bool,
}

impl Window {
    pub(super) fn new(size: u32, binding: bool) -> Self {
        let state = State { left: i64::from(size), binding, closed: false };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// Takes up to `wanted` bytes, waiting for the first. `None`: the stream is closed. Cancel safe.
    pub(super) async fn take(&self, wanted: u32) -> Option<u32> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.closed {
                    return None;
                }
                let granted =
                    if state.binding { i64::from(wanted).min(state.left) } else { i64::from(wanted) };
                if granted > 0 || wanted == 0 {
                    state.left -= granted;
                    return u32::try_from(granted).ok();
                }
            }
            changed.await;
        }
    }

    /// Gives back what was taken and not sent.
    pub(super) fn give_back(&self, bytes: u32) {
        self.change(|state| state.left += i64::from(bytes));
    }

    /// The peer has room for more; from now on the window binds. False when that is more than there can be.
    #[must_use]
    pub(super) fn grow(&self, more: u32) -> bool {
        let mut good = true;
        self.change(|state| {
            // What a peer that is silent so far was sent beyond the window it does not owe us.
            if !state.binding {
                state.left = state.left.max(0);
            }
            state.binding = true;
            state.left += i64::from(more);
            good = state.left <= MAX;
        });
        good
    }

    /// A new first window moves those that are open. It may make them negative.
    pub(super) fn shift(&self, by: i64) {
        self.change(|state| {
            state.binding = true;
            state.left += by;
        });
    }

    /// Waits until nothing more can be sent. Cancel safe.
    pub(super) async fn closed(&self) {
        loop {
            let changed = self.changed.notified();
            if self.state.lock().unwrap_or_else(PoisonError::into_inner).closed {
                return;
            }
            changed.await;
        }
    }

    /// Nothing more can be sent.
    pub(super) fn close(&self) {
        self.change(|state| state.closed = true);
    }

    fn change(&self, how: impl FnOnce(&mut State)) {
        how(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_window_binds_once_the_peer_keeps_it() {
        let silent = Window::new(10, false);
        assert_eq!(silent.take(100).await, Some(100));
        assert!(silent.grow(5));
        assert_eq!(silent.take(100).await, Some(5));
        let wait = tokio::time::timeout(std::time::Duration::from_secs(1), silent.take(1));
        assert!(wait.await.is_err());
        let (taken, ()) = tokio::join!(silent.take(7), async { assert!(silent.grow(3)) });
        assert_eq!(taken, Some(3));
        silent.close();
        assert_eq!(silent.take(1).await, None);
    }

    #[tokio::test]
    async fn a_window_has_an_end() {
        let window = Window::new(INITIAL, true);
        assert!(window.grow(1));
        assert!(!window.grow(0x7fff_ffff));
        let shrunk = Window::new(10, true);
        shrunk.shift(-20);
        assert!(shrunk.grow(11));
        assert_eq!(shrunk.take(5).await, Some(1));
    }
}
