//! What has changed since it was last looked at: the informers add names, the task takes them.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::model::ObjectName;

/// Names of what changed.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) policies: BTreeSet<ObjectName>,
    pub(super) namespaces: BTreeSet<String>,
    pub(super) pods: BTreeSet<ObjectName>,
}

/// Sets that collapse repeated additions; the lock is held for one insertion only.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    work: Mutex<Work>,
    notify: Notify,
}

impl Dirty {
    fn work(&self) -> MutexGuard<'_, Work> {
        // An insertion that panicked leaves valid sets.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn policy(&self, name: ObjectName) {
        self.work().policies.insert(name);
        self.notice();
    }

    pub(super) fn namespace(&self, name: String) {
        self.work().namespaces.insert(name);
        self.notice();
    }

    pub(super) fn pod(&self, name: ObjectName) {
        self.work().pods.insert(name);
        self.notice();
    }

    /// Something other than what has a name changed.
    pub(super) fn notice(&self) {
        self.notify.notify_one();
    }

    /// Waits until there may be something. A notice that nobody awaited is kept.
    pub(super) async fn wait(&self) {
        self.notify.notified().await;
    }

    pub(super) fn take(&self) -> Work {
        std::mem::take(&mut self.work())
    }
}
