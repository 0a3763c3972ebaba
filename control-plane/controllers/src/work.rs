//! Keys of the work queues, and small helpers to enqueue them.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use skep_client::{Informer, Stored, WorkQueue};

/// Namespace (empty for cluster-scoped kinds) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(crate) fn of(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Enqueues each object that changes.
pub(crate) fn enqueue_self<K: Stored>(informer: &mut Informer<K>, queue: &WorkQueue<Key>) {
    let queue = queue.clone();
    informer.add_callback(move |old, new| {
        if let Some(object) = new.or(old) {
            queue.add(Key::of(object.meta()));
        }
    });
}

/// Enqueues the keys `keys` gives for the old and the new state of each object that changes.
pub(crate) fn enqueue_for<K: Stored>(
    informer: &mut Informer<K>,
    queue: &WorkQueue<Key>,
    keys: impl Fn(&Arc<K>) -> Vec<Key> + Send + Sync + 'static,
) {
    let queue = queue.clone();
    informer.add_callback(move |old, new| {
        for object in old.into_iter().chain(new) {
            for key in keys(object) {
                queue.add(key);
            }
        }
    });
}

/// A resource version as a number; they grow with every change of the cluster.
pub(crate) fn revision(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|r| r.parse().ok()).unwrap_or(0)
}
