//! Answers of others, remembered for a while and within a bound.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// No more answers than this are remembered.
const REMEMBERED: usize = 8192;

/// Answers by the hash of what was asked.
pub(crate) struct Memory<T> {
    // Held for map operations only, never across an await.
    known: Mutex<HashMap<[u8; 32], (Instant, T)>>,
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self { known: Mutex::default() }
    }
}

impl<T: Clone> Memory<T> {
    /// The answer, if its time is not over.
    pub(crate) fn get(&self, key: &[u8; 32]) -> Option<T> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).filter(|(until, _)| Instant::now() < *until).map(|(_, answer)| answer.clone())
    }

    /// Remembers an answer for so long.
    pub(crate) fn put(&self, key: [u8; 32], answer: T, life: Duration) {
        if life.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.retain(|_, (until, _)| now < *until);
        }
        if known.len() < REMEMBERED {
            known.insert(key, (now + life, answer));
        }
    }
}
