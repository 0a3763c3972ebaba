//! What a controller has done and its stores do not show yet. Acting on such a store would do the same
//! again: pods created twice, or two deleted in place of one.
//!
//! A creation is seen when the store has reached the revision of the new object; a deletion when the
//! object is gone or leaving. Both come by themselves, so nothing here can get stuck; the time limit
//! guards against a store whose revisions are no numbers.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use skep_client::{Store, Stored};
use tokio::time::Instant;

use crate::work::{Key, revision};

const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Expected {
    created: u64,
    /// Key and uid.
    deleted: Vec<(Key, String)>,
    since: Instant,
}

/// Expectations by the uid of the owner.
#[derive(Debug, Default)]
pub(crate) struct Expectations {
    by_owner: Mutex<HashMap<String, Expected>>,
}

impl Expectations {
    fn with<R>(&self, owner: &str, change: impl FnOnce(&mut Expected) -> R) -> R {
        let mut map = self.by_owner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let expected =
            map.entry(owner.to_owned()).or_insert(Expected { created: 0, deleted: Vec::new(), since: now });
        expected.since = now;
        change(expected)
    }

    /// The owner has created this object.
    pub(crate) fn created<K: Stored>(&self, owner: &str, object: &K) {
        self.with(owner, |e| e.created = e.created.max(revision(object.meta())));
    }

    /// The owner has asked to delete this object.
    pub(crate) fn deleted<K: Stored>(&self, owner: &str, object: &K) {
        let uid = object.meta().uid.clone().unwrap_or_default();
        self.with(owner, |e| e.deleted.push((Key::of(object.meta()), uid)));
    }

    /// Whether the store shows all that the owner has done.
    pub(crate) fn met<K: Stored>(&self, owner: &str, store: &Store<K>) -> bool {
        let mut map = self.by_owner.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(expected) = map.get_mut(owner) else { return true };
        expected.deleted.retain(|(key, uid)| {
            store.get(&key.namespace, &key.name).is_some_and(|object| {
                let meta = object.meta();
                meta.uid.as_deref() == Some(uid) && meta.deletion_timestamp.is_none()
            })
        });
        let met = expected.deleted.is_empty() && store.revision() >= expected.created;
        if met || expected.since.elapsed() > LIMIT {
            map.remove(owner);
            return true;
        }
        false
    }

    /// The owner is gone.
    pub(crate) fn forget(&self, owner: &str) {
        self.by_owner.lock().unwrap_or_else(PoisonError::into_inner).remove(owner);
    }
}
