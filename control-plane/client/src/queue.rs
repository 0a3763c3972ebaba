//! The work queue of controllers: keys only, each at most once.
//!
//! Invariants (property-tested): a key is never with two workers at once; a key added while a worker
//! has it comes again after the worker is done; a key added many times while waiting comes once.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

const FIRST_DELAY: Duration = Duration::from_millis(5);
const LONGEST_DELAY: Duration = Duration::from_secs(300);

struct State<T> {
    /// Keys to hand out, in order. Every one of them is in `dirty`.
    ready: VecDeque<T>,
    /// Keys that need work and are not being worked on, or were added again while they are.
    dirty: HashSet<T>,
    /// Keys with a worker.
    processing: HashSet<T>,
    /// Keys that come later: the earliest time of each.
    delayed: HashMap<T, Instant>,
    /// The times, with what they are for; entries that `delayed` no longer confirms are stale.
    deadlines: BinaryHeap<Reverse<(Instant, u64)>>,
    deadline_keys: HashMap<u64, T>,
    sequence: u64,
    failures: HashMap<T, u32>,
}

/// A queue of keys. Clones share it.
pub struct WorkQueue<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    wake: Notify,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<T: Clone + Eq + Hash> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> std::fmt::Debug for WorkQueue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkQueue").field("ready", &self.shared.state().ready.len()).finish_non_exhaustive()
    }
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone + Eq + Hash> WorkQueue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashSet::new(),
            delayed: HashMap::new(),
            deadlines: BinaryHeap::new(),
            deadline_keys: HashMap::new(),
            sequence: 0,
            failures: HashMap::new(),
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), wake: Notify::new() }) }
    }

    /// The key needs work.
    pub fn add(&self, key: T) {
        let woken = self.shared.state().add(key);
        if woken {
            self.shared.wake.notify_one();
        }
    }

    /// The key needs work after a while. Of several delays the shortest counts.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        {
            let mut state = self.shared.state();
            let at = Instant::now() + delay;
            if state.delayed.get(&key).is_some_and(|known| *known <= at) {
                return;
            }
            state.sequence += 1;
            let sequence = state.sequence;
            state.delayed.insert(key.clone(), at);
            state.deadline_keys.insert(sequence, key);
            state.deadlines.push(Reverse((at, sequence)));
        }
        self.shared.wake.notify_one();
    }

    /// The key failed: again after a delay that grows with its failures (5 ms to 5 min).
    pub fn add_rate_limited(&self, key: T) {
        let failures = {
            let mut state = self.shared.state();
            let failures = state.failures.entry(key.clone()).or_default();
            *failures = failures.saturating_add(1);
            *failures
        };
        let delay = FIRST_DELAY.saturating_mul(1 << (failures - 1).min(20)).min(LONGEST_DELAY);
        self.add_after(key, delay);
    }

    /// The key did well: its next failure starts with the short delay again.
    pub fn forget(&self, key: &T) {
        self.shared.state().failures.remove(key);
    }

    /// How often the key failed in a row.
    pub fn failures(&self, key: &T) -> u32 {
        self.shared.state().failures.get(key).copied().unwrap_or_default()
    }

    /// How many keys wait for a worker.
    pub fn len(&self) -> usize {
        self.shared.state().ready.len()
    }

    /// Whether no key waits for a worker.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for a key. Dropping the guard says that the work is done. Cancel-safe.
    pub async fn next(&self) -> Guard<T> {
        loop {
            let deadline = {
                let mut state = self.shared.state();
                let deadline = state.release_due(Instant::now());
                if let Some(key) = state.take() {
                    let more = !state.ready.is_empty();
                    drop(state);
                    if more {
                        // One wake-up may stand for several adds: pass it on.
                        self.shared.wake.notify_one();
                    }
                    return Guard { key: Some(key), shared: self.shared.clone() };
                }
                deadline
            };
            match deadline {
                None => self.shared.wake.notified().await,
                Some(at) => {
                    tokio::select! {
                        () = self.shared.wake.notified() => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
            }
        }
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    /// Returns whether a worker can take it now.
    fn add(&mut self, key: T) -> bool {
        if !self.dirty.insert(key.clone()) || self.processing.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    /// Moves what is due to the ready keys; returns when the next is due.
    fn release_due(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse((at, sequence))) = self.deadlines.peek().copied() {
            let current = self.deadline_keys.get(&sequence).and_then(|k| self.delayed.get(k)) == Some(&at);
            if current && at > now {
                return Some(at);
            }
            self.deadlines.pop();
            if let Some(key) = self.deadline_keys.remove(&sequence)
                && current
            {
                self.delayed.remove(&key);
                self.add(key);
            }
        }
        None
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.processing.insert(key.clone());
        Some(key)
    }
}

/// A key with a worker. Dropped: done.
pub struct Guard<T: Clone + Eq + Hash> {
    key: Option<T>,
    shared: Arc<Shared<T>>,
}

impl<T: Clone + Eq + Hash> Deref for Guard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.key.as_ref().expect("the key stays until drop")
    }
}

impl<T: Clone + Eq + Hash> Drop for Guard<T> {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let mut state = self.shared.state();
        state.processing.remove(&key);
        if state.dirty.contains(&key) {
            state.ready.push_back(key);
            drop(state);
            self.shared.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
