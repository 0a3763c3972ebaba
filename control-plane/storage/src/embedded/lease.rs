//! When leases end. Which leases exist is on disk; deadlines are in memory only, so that keeping one
//! alive costs no write: a restart gives every lease its whole time again, as a new etcd leader does.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::LeaseId;

/// The clock of all leases; owned by the writer.
#[derive(Default)]
pub(super) struct Deadlines {
    leases: HashMap<LeaseId, (Duration, Instant)>,
    by_time: BTreeSet<(Instant, LeaseId)>,
}

impl Deadlines {
    pub(super) fn start(&mut self, lease: LeaseId, ttl: Duration) {
        self.stop(lease);
        let deadline = Instant::now() + ttl;
        self.leases.insert(lease, (ttl, deadline));
        self.by_time.insert((deadline, lease));
    }

    /// Gives a lease its whole time again; false when there is no such lease.
    pub(super) fn renew(&mut self, lease: LeaseId) -> bool {
        let Some(&(ttl, _)) = self.leases.get(&lease) else { return false };
        self.start(lease, ttl);
        true
    }

    pub(super) fn stop(&mut self, lease: LeaseId) {
        if let Some((_, deadline)) = self.leases.remove(&lease) {
            self.by_time.remove(&(deadline, lease));
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(deadline, _)| *deadline)
    }

    /// The leases whose time is up. They stay until [`Self::stop`]: ending one may fail.
    pub(super) fn expired(&self, now: Instant) -> Vec<LeaseId> {
        self.by_time.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, lease)| *lease).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_after_its_ttl_unless_renewed() {
        let mut deadlines = Deadlines::default();
        deadlines.start(1, Duration::from_secs(5));
        deadlines.start(2, Duration::from_secs(5));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(deadlines.renew(2));
        assert!(!deadlines.renew(3));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(deadlines.expired(Instant::now()), [1]);
        deadlines.stop(1);
        assert!(deadlines.expired(Instant::now()).is_empty());
        assert!(!deadlines.renew(1));
    }
}
