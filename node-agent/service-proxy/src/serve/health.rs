//! Whether the proxy keeps up, and whether balancers in front should still use this node (KEP-3836).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use skep_client::Store;
use tokio::time::Instant;

/// A change that waits longer than this means that nothing moves any more. kube-proxy: twice its period.
const STUCK: Duration = Duration::from_secs(60);
/// The taint by which the autoscaler says that a node goes.
const GOING: &str = "ToBeDeletedByClusterAutoscaler";

#[derive(Debug, Default)]
struct State {
    /// When the oldest change came that is not in the kernel yet.
    waiting_since: Option<Instant>,
    updated: Option<Timestamp>,
}

/// What is known of the proxy's health; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    state: Arc<Mutex<State>>,
    nodes: Store<Node>,
    node: Arc<str>,
}

impl Health {
    pub(crate) fn new(nodes: Store<Node>, node: &str) -> Self {
        Self { state: Arc::default(), nodes, node: node.into() }
    }

    /// A change is to be brought in.
    pub(crate) fn queued(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting_since.get_or_insert_with(Instant::now);
    }

    /// Everything is in.
    pub(crate) fn updated(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { waiting_since: None, updated: Some(Timestamp::now()) };
    }

    /// Whether changes reach the kernel.
    pub(crate) fn keeps_up(&self) -> bool {
        keeps_up(&self.state.lock().unwrap_or_else(PoisonError::into_inner), Instant::now())
    }

    /// The verdict and the body of `/livez`, or of `/healthz`, which also fails for a node that goes.
    pub(crate) fn report(&self, live: bool) -> (bool, String) {
        let eligible = self.nodes.get("", &self.node).is_none_or(|node| is_eligible(&node));
        let (keeps_up, updated) = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (keeps_up(&state, Instant::now()), state.updated)
        };
        let updated = updated.map_or_else(String::new, |time| time.to_string());
        let mut body =
            serde_json::json!({"lastUpdated": updated, "currentTime": Timestamp::now().to_string()});
        if !live && let Some(body) = body.as_object_mut() {
            body.insert("nodeEligible".to_owned(), eligible.into());
        }
        (keeps_up && (live || eligible), body.to_string())
    }
}

fn keeps_up(state: &State, now: Instant) -> bool {
    state.updated.is_some() && state.waiting_since.is_none_or(|since| now.duration_since(since) < STUCK)
}

/// Whether traffic from outside may still be sent to the node.
fn is_eligible(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    node.metadata.deletion_timestamp.is_none() && !taints.into_iter().any(|taint| taint.key == GOING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_goes_is_not_eligible() {
        for (node, expected) in [
            (serde_json::json!({"metadata": {}}), true),
            (serde_json::json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), false),
            (
                serde_json::json!({"metadata": {}, "spec": {"taints": [{"key": GOING, "effect": "NoSchedule"}]}}),
                false,
            ),
            (
                serde_json::json!({"metadata": {}, "spec": {"taints": [{"key": "x", "effect": "NoSchedule"}]}}),
                true,
            ),
        ] {
            let parsed: Node = serde_json::from_value(node.clone()).expect("a node");
            assert_eq!(is_eligible(&parsed), expected, "{node}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_waits_too_long_is_unhealthy() {
        let start = Instant::now();
        let mut state = State::default();
        assert!(!keeps_up(&state, start), "nothing was ever brought in");
        state.updated = Some(Timestamp::UNIX_EPOCH);
        assert!(keeps_up(&state, start + STUCK * 9), "nothing waits");
        state.waiting_since = Some(start);
        assert!(keeps_up(&state, start + STUCK / 2));
        assert!(!keeps_up(&state, start + STUCK));
    }
}
