//! What has changed since it was last looked at: the informers add, the proxy's task takes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::names::ServiceName;

/// Changed services, each with the earliest time at which an endpoint's change was noticed in the cluster.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) names: BTreeMap<ServiceName, Option<Timestamp>>,
    /// All services, for example because the node changed.
    pub(super) all: bool,
}

/// A set that collapses repeated additions; the lock is held for one insertion only.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    work: Mutex<Work>,
    notify: Notify,
}

impl Dirty {
    fn work(&self) -> MutexGuard<'_, Work> {
        // An insertion that panicked leaves a valid map.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, name: ServiceName, trigger: Option<Timestamp>) {
        merge(&mut self.work().names, name, trigger);
        self.notify.notify_one();
    }

    pub(super) fn add_all(&self) {
        self.work().all = true;
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

impl Work {
    pub(super) fn is_nothing(&self) -> bool {
        !self.all && self.names.is_empty()
    }

    /// Adds other work.
    pub(super) fn merge(&mut self, other: Self) {
        self.all |= other.all;
        for (name, trigger) in other.names {
            merge(&mut self.names, name, trigger);
        }
    }
}

fn merge(
    names: &mut BTreeMap<ServiceName, Option<Timestamp>>,
    name: ServiceName,
    trigger: Option<Timestamp>,
) {
    let known = names.entry(name).or_default();
    *known = match (*known, trigger) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
}
