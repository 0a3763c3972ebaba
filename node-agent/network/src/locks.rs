//! One lock per pod: two operations on one pod never overlap, those on different pods never wait.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::OwnedMutexGuard;

/// Locks by key, kept only while someone holds or awaits them.
#[derive(Debug, Default)]
pub(crate) struct KeyedLocks {
    locks: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl KeyedLocks {
    /// Waits until nobody else holds `key`. Cancel-safe.
    pub(crate) async fn lock(&self, key: &str) -> OwnedMutexGuard<()> {
        let lock = {
            // Nothing panics while this is held, and the map is valid after every statement.
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            let lock = locks.get(key).and_then(Weak::upgrade).unwrap_or_default();
            locks.insert(key.to_owned(), Arc::downgrade(&lock));
            lock
        };
        lock.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_exclusive_and_others_are_free() {
        let locks = KeyedLocks::default();
        let held = locks.lock("a").await;
        let other = locks.lock("b").await;
        assert!(futures::FutureExt::now_or_never(locks.lock("a")).is_none(), "a is held");
        drop((held, other));
        assert!(futures::FutureExt::now_or_never(locks.lock("a")).is_some(), "a is free");
        let _ = locks.lock("c").await;
        assert_eq!(locks.locks.lock().expect("not poisoned").len(), 1, "unused locks go");
    }
}
