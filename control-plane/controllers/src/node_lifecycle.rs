//! Watches over nodes: a node whose agent is silent becomes Unknown; conditions become taints; pods on
//! nodes that are not ready are marked not ready.
//!
//! Silence is measured by our own clock from when we saw a lease or status change, never by the times
//! written in them: clocks of nodes differ.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use skep_client::events::{EventType, Recorder};
use skep_client::{Client, Error, Patch, PatchParams, Store};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::pods;
use crate::sources::Sources;

/// Namespace of the nodes' leases.
pub(crate) const LEASES: &str = "kube-node-lease";
const PERIOD: Duration = Duration::from_secs(5);
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// The controller.
pub(crate) struct NodeLifecycle {
    client: Client,
    events: Recorder,
    nodes: Store<Node>,
    leases: Store<Lease>,
    pods: Store<Pod>,
    changed: Arc<Notify>,
    grace: Duration,
}

/// The last sign of life of a node.
struct Sign {
    renewed: Option<MicroTime>,
    heartbeat: Option<Time>,
    at: Instant,
}

impl NodeLifecycle {
    pub(crate) fn new(client: &Client, events: &Recorder, grace: Duration, sources: &mut Sources) -> Self {
        let changed = Arc::new(Notify::new());
        let wake = changed.clone();
        sources.nodes.add_callback(move |_, _| wake.notify_one());
        Self {
            client: client.clone(),
            events: events.clone(),
            nodes: sources.nodes.store(),
            leases: sources.leases.store(),
            pods: sources.pods.store(),
            changed,
            grace,
        }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        let mut signs: HashMap<String, Sign> = HashMap::new();
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Cancel-safe: each arm only says that it is time to look.
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = tick.tick() => {}
                () = self.changed.notified() => {}
            }
            let nodes = self.nodes.list();
            let now = Instant::now();
            signs.retain(|name, _| self.nodes.get("", name).is_some());
            for node in nodes {
                let name = node.metadata.name.clone().unwrap_or_default();
                let silent = self.silence(&mut signs, &node, &name, now) > self.grace;
                if let Err(error) = self.look_after(&node, &name, silent).await {
                    tracing::debug!(node = name, %error, "will try again");
                }
            }
        }
    }

    fn silence(&self, signs: &mut HashMap<String, Sign>, node: &Node, name: &str, now: Instant) -> Duration {
        let lease = self.leases.get(LEASES, name);
        let renewed = lease.and_then(|l| l.spec.as_ref()?.renew_time.clone());
        let heartbeat = condition(node, "Ready").and_then(|c| c.last_heartbeat_time.clone());
        let sign = signs.entry(name.to_owned()).or_insert(Sign {
            renewed: renewed.clone(),
            heartbeat: heartbeat.clone(),
            at: now,
        });
        if sign.renewed != renewed || sign.heartbeat != heartbeat {
            *sign = Sign { renewed, heartbeat, at: now };
        }
        now - sign.at
    }

    async fn look_after(&self, node: &Arc<Node>, name: &str, silent: bool) -> Result<(), Error> {
        let api = self.client.all::<Node>();
        let now = Timestamp::now();
        let mut node = node.clone();
        if silent && let Some(conditions) = unknown(&node, now) {
            self.events.about(
                &*node,
                EventType::Normal,
                "NodeNotReady",
                &format!("Node {name} status is now: NodeNotReady"),
            );
            let patch = Patch::Strategic(json!({
                "metadata": {"uid": node.metadata.uid},
                "status": {"conditions": conditions},
            }));
            node = Arc::new(api.patch_status(name, &patch, &PatchParams::default()).await?);
        }
        if let Some(taints) = taints(&node, now) {
            let patch = Patch::Merge(json!({
                "metadata": {"resourceVersion": node.metadata.resource_version},
                "spec": {"taints": taints},
            }));
            node = Arc::new(api.patch(name, &patch, &PatchParams::default()).await?);
        }
        let ready = condition(&node, "Ready").is_some_and(|c| c.status == "True");
        if !ready && condition(&node, "Ready").is_some() {
            self.mark_pods(name).await?;
        }
        Ok(())
    }

    /// Pods of a node that does not answer serve nobody.
    async fn mark_pods(&self, node: &str) -> Result<(), Error> {
        for pod in self.pods.indexed(&pods::by_node(node)) {
            if !pods::is_ready(&pod) || pods::is_finished(&pod) {
                continue;
            }
            let patch = Patch::Strategic(json!({
                "metadata": {"uid": pod.metadata.uid},
                "status": {"conditions": [{
                    "type": "Ready",
                    "status": "False",
                    "reason": "NodeNotReady",
                    "lastTransitionTime": Time(Timestamp::now()),
                }]},
            }));
            let api = self.client.namespaced::<Pod>(pod.metadata.namespace.as_deref().unwrap_or_default());
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            match api.patch_status(name, &patch, &PatchParams::default()).await {
                Err(e) if !e.is_not_found() && !e.is_conflict() => return Err(e),
                Ok(_) => {
                    self.events.about(&*pod, EventType::Warning, "NodeNotReady", "Node is not ready");
                }
                Err(_) => {}
            }
        }
        Ok(())
    }
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// The conditions of a silent node that are to become Unknown; `None` when they are. Pure.
fn unknown(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let mut changed = Vec::new();
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        let known = condition(node, kind);
        if known.is_some_and(|c| c.status == "Unknown") {
            continue;
        }
        let (reason, message) = match known {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        changed.push(NodeCondition {
            type_: kind.into(),
            status: "Unknown".into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_heartbeat_time: known
                .and_then(|c| c.last_heartbeat_time.clone())
                .or_else(|| node.metadata.creation_timestamp.clone()),
            last_transition_time: Some(Time(now)),
        });
    }
    (!changed.is_empty()).then_some(changed)
}

/// The taints a node should have by its conditions, those of others kept; `None` when it has them. Pure.
fn taints(node: &Node, now: Timestamp) -> Option<Vec<Taint>> {
    let spec = node.spec.clone().unwrap_or_default();
    let before = spec.taints.unwrap_or_default();
    let is = |kind: &str, status: &str| condition(node, kind).is_some_and(|c| c.status == status);
    // A node that has not said anything yet is not ready either.
    let not_ready = is("Ready", "False") || condition(node, "Ready").is_none();
    let unreachable = is("Ready", "Unknown");
    let rules = [
        (NOT_READY, "NoSchedule", not_ready),
        (NOT_READY, "NoExecute", is("Ready", "False")),
        (UNREACHABLE, "NoSchedule", unreachable),
        (UNREACHABLE, "NoExecute", unreachable),
        ("node.kubernetes.io/memory-pressure", "NoSchedule", is("MemoryPressure", "True")),
        ("node.kubernetes.io/disk-pressure", "NoSchedule", is("DiskPressure", "True")),
        ("node.kubernetes.io/pid-pressure", "NoSchedule", is("PIDPressure", "True")),
        ("node.kubernetes.io/network-unavailable", "NoSchedule", is("NetworkUnavailable", "True")),
        ("node.kubernetes.io/unschedulable", "NoSchedule", spec.unschedulable == Some(true)),
    ];
    let mut after = before.clone();
    for (key, effect, wanted) in rules {
        let same = |t: &Taint| t.key == key && t.effect == effect;
        match (after.iter().any(same), wanted) {
            (false, true) => after.push(Taint {
                key: key.into(),
                effect: effect.into(),
                time_added: Some(Time(now)),
                ..Taint::default()
            }),
            (true, false) => after.retain(|t| !same(t)),
            _ => {}
        }
    }
    (after != before).then_some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ready: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "spec": {"taints": [{"key": "mine", "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .expect("node")
    }

    #[test]
    fn taints_follow_the_ready_condition_and_keep_those_of_others() {
        let keys = |taints: &[Taint]| {
            taints.iter().map(|t| format!("{}:{}", t.key, t.effect)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(taints(&node("True"), Timestamp::UNIX_EPOCH), None);
        let after = taints(&node("Unknown"), Timestamp::UNIX_EPOCH).expect("tainted");
        assert_eq!(
            keys(&after),
            "mine:NoSchedule node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute"
        );
        let mut back = node("True");
        back.spec.as_mut().expect("spec").taints = Some(after);
        assert_eq!(keys(&taints(&back, Timestamp::UNIX_EPOCH).expect("cleared")), "mine:NoSchedule");
    }

    #[test]
    fn a_silent_node_becomes_unknown_once() {
        let changed = unknown(&node("True"), Timestamp::UNIX_EPOCH).expect("changed");
        assert_eq!(changed.len(), 4);
        assert_eq!(changed[0].reason.as_deref(), Some("NodeStatusUnknown"));
        let mut silent = node("True");
        silent.status.as_mut().expect("status").conditions = Some(changed);
        assert_eq!(unknown(&silent, Timestamp::UNIX_EPOCH), None);
    }
}
