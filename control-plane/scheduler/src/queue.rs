//! Pods that want a node: ready to be tried, backing off after a failure, or set aside until something
//! changes that may help them.
//!
//! Invariant: a pod is in at most one of the three. Time is given, never read.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::pod_info::{PodInfo, PodKey};

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// Even without a change that seems to matter, a pod is tried again after this.
const LONGEST_ASIDE: Duration = Duration::from_secs(300);

/// What may help a pod that did not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A node appeared, or its labels, taints or resources changed.
    Node,
    /// A placed pod is gone: resources and ports are free, spreads moved.
    PodGone,
    /// A pod was placed: affinities may hold now.
    PodPlaced,
}

/// May this change make this plug-in accept?
fn helps(change: Change, plugin: &str) -> bool {
    match change {
        Change::Node => true,
        Change::PodGone => {
            !matches!(plugin, "NodeUnschedulable" | "NodeName" | "TaintToleration" | "NodeAffinity")
        }
        Change::PodPlaced => matches!(plugin, "InterPodAffinity" | "PodTopologySpread"),
    }
}

#[derive(Clone, Debug)]
enum Place {
    Active,
    Backoff { until: Instant },
    Aside { since: Instant, plugins: Vec<&'static str> },
}

#[derive(Clone, Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    place: Place,
    /// When the pod first came: equals go in order of their coming.
    order: u64,
    attempts: u32,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: HashMap<PodKey, Entry>,
    /// Highest priority first, then first come.
    active: BTreeSet<(i64, u64, PodKey)>,
    next_order: u64,
}

/// A pod taken from the queue to be tried. Give it back by [`Queue::failed`], or it is done.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) pod: Arc<PodInfo>,
    order: u64,
    attempts: u32,
}

fn rank(entry: &Entry) -> (i64, u64, PodKey) {
    (-i64::from(entry.pod.priority), entry.order, entry.pod.key.clone())
}

impl Queue {
    /// A pod came, or changed: it is tried soon, unless it is backing off.
    pub(crate) fn add(&mut self, pod: Arc<PodInfo>) {
        let key = pod.key.clone();
        let mut entry = match self.entries.remove(&key) {
            Some(old) => {
                self.active.remove(&rank(&old));
                Entry { pod, ..old }
            }
            None => {
                self.next_order += 1;
                Entry { pod, place: Place::Active, order: self.next_order, attempts: 0 }
            }
        };
        if matches!(entry.place, Place::Aside { .. }) {
            entry.place = Place::Active;
        }
        self.put(entry);
    }

    fn put(&mut self, entry: Entry) {
        if matches!(entry.place, Place::Active) {
            self.active.insert(rank(&entry));
        }
        self.entries.insert(entry.pod.key.clone(), entry);
    }

    /// A pod is gone or placed.
    pub(crate) fn remove(&mut self, key: &PodKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.active.remove(&rank(&entry));
        }
    }

    /// The next pod to try.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Attempt> {
        self.wake(now);
        let (_, _, key) = self.active.pop_first()?;
        let entry = self.entries.remove(&key)?;
        Some(Attempt { pod: entry.pod, order: entry.order, attempts: entry.attempts + 1 })
    }

    /// Moves what has waited long enough.
    fn wake(&mut self, now: Instant) {
        let due: Vec<PodKey> = self
            .entries
            .iter()
            .filter(|(_, entry)| due(entry).is_some_and(|at| at <= now))
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            self.activate(&key);
        }
    }

    fn activate(&mut self, key: &PodKey) {
        if let Some(mut entry) = self.entries.remove(key) {
            entry.place = Place::Active;
            self.put(entry);
        }
    }

    /// When [`Self::pop`] may have something that it has not now.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.entries.values().filter_map(due).min()
    }

    /// The attempt failed. Refused by plug-ins, the pod is set aside until a change may help; an error
    /// (no plug-ins) only backs off.
    pub(crate) fn failed(&mut self, attempt: Attempt, plugins: Vec<&'static str>, now: Instant) {
        let place = if plugins.is_empty() {
            Place::Backoff { until: now + backoff(attempt.attempts) }
        } else {
            Place::Aside { since: now, plugins }
        };
        self.put(Entry { pod: attempt.pod, place, order: attempt.order, attempts: attempt.attempts });
    }

    /// Something changed: pods that it may help are tried again, after their backoff.
    pub(crate) fn changed(&mut self, change: Change, now: Instant) {
        let mut ready = Vec::new();
        for (key, entry) in &mut self.entries {
            if let Place::Aside { since, plugins } = &entry.place
                && plugins.iter().any(|plugin| helps(change, plugin))
            {
                let until = *since + backoff(entry.attempts);
                entry.place = Place::Backoff { until };
                if until <= now {
                    ready.push(key.clone());
                }
            }
        }
        for key in ready {
            self.activate(&key);
        }
    }
}

fn due(entry: &Entry) -> Option<Instant> {
    match &entry.place {
        Place::Active => None,
        Place::Backoff { until } => Some(*until),
        Place::Aside { since, .. } => Some(*since + LONGEST_ASIDE),
    }
}

/// 1 s, 2 s, 4 s, 8 s, 10 s …
fn backoff(attempts: u32) -> Duration {
    FIRST_BACKOFF.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(LONGEST_BACKOFF)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "n", "name": name}, "spec": {"priority": priority, "containers": []},
        }))
        .expect("a pod");
        Arc::new(PodInfo::new(Arc::new(pod)))
    }

    fn names(queue: &mut Queue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| queue.pop(now)).map(|attempt| attempt.pod.key.name.clone()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn higher_priority_goes_first_then_first_come() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
            queue.add(pod(name, priority));
        }
        assert_eq!(names(&mut queue, now), ["b", "d", "a", "c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_does_not_fit_waits_for_a_change_that_helps() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(pod("a", 0));
        let attempt = queue.pop(now).expect("the pod");
        queue.failed(attempt, vec!["NodeAffinity"], now);
        let later = now + Duration::from_secs(20);
        queue.changed(Change::PodGone, later);
        assert!(queue.pop(later).is_none(), "a pod's end does not change labels");
        queue.changed(Change::Node, later);
        assert!(queue.pop(later).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_does_not_cut_the_backoff_short() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(pod("a", 0));
        let attempt = queue.pop(now).expect("the pod");
        queue.failed(attempt, vec!["NodeResourcesFit"], now);
        queue.changed(Change::PodGone, now);
        assert!(queue.pop(now).is_none());
        assert_eq!(queue.next_wake(), Some(now + FIRST_BACKOFF));
        assert!(queue.pop(now + FIRST_BACKOFF).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_backs_off_longer_each_time() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.add(pod("a", 0));
        for seconds in [1, 2, 4, 8, 10, 10] {
            let attempt = queue.pop(now).expect("the pod");
            queue.failed(attempt, Vec::new(), now);
            assert_eq!(queue.next_wake(), Some(now + Duration::from_secs(seconds)));
            now += Duration::from_secs(seconds);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_pod_is_not_tried() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(pod("a", 0));
        queue.remove(&pod("a", 0).key);
        assert!(queue.pop(now).is_none());
    }
}
