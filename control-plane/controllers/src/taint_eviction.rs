//! Pods leave nodes with NoExecute taints they do not tolerate, or tolerate for a while only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use skep_client::events::{EventType, Recorder};
use skep_client::reconcile::Next;
use skep_client::{Client, DeleteParams, Error, Patch, PatchParams, Store, WorkQueue};
use tokio_util::sync::CancellationToken;

use crate::pods;
use crate::sources::Sources;
use crate::work::{Key, enqueue_self};

/// The controller.
pub(crate) struct TaintEviction {
    client: Client,
    events: Recorder,
    pods: Store<Pod>,
    nodes: Store<Node>,
    queue: WorkQueue<Key>,
    seen: Seen,
}

/// When taints were first seen that do not tell when they were added, by node.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<ByNode>>);

type ByNode = HashMap<String, Vec<(Taint, Timestamp)>>;

impl Seen {
    /// The taints, each with a time; what is not among them any more is forgotten.
    fn dated(&self, node: &str, mut taints: Vec<Taint>, now: Timestamp) -> Vec<Taint> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = all.remove(node).unwrap_or_default();
        known.retain(|(taint, _)| taints.contains(taint));
        for taint in taints.iter_mut().filter(|taint| taint.time_added.is_none()) {
            let since = match known.iter().find(|(other, _)| other == taint) {
                Some((_, since)) => *since,
                None => {
                    known.push((taint.clone(), now));
                    now
                }
            };
            taint.time_added = Some(Time(since));
        }
        if !known.is_empty() {
            all.insert(node.to_owned(), known);
        }
        taints
    }
}

impl TaintEviction {
    pub(crate) fn new(client: &Client, events: &Recorder, sources: &mut Sources) -> Self {
        let queue = WorkQueue::new();
        enqueue_self(&mut sources.pods, &queue);
        let (wake, pods) = (queue.clone(), sources.pods.store());
        let seen = Seen::default();
        let dates = seen.clone();
        sources.nodes.add_callback(move |old, new| {
            let meta = |node: &Node| node.metadata.name.clone().unwrap_or_default();
            let Some(new) = new else {
                old.into_iter().for_each(|old| _ = dates.dated(&meta(old), Vec::new(), Timestamp::now()));
                return;
            };
            if old.is_none_or(|old| no_execute(old) != no_execute(new)) {
                let name = &meta(new);
                dates.dated(name, no_execute(new), Timestamp::now());
                pods.indexed(&pods::by_node(name)).iter().for_each(|p| wake.add(Key::of(&p.metadata)));
            }
        });
        Self {
            client: client.clone(),
            events: events.clone(),
            pods: sources.pods.store(),
            nodes: sources.nodes.store(),
            queue,
            seen,
        }
    }

    pub(crate) async fn run(&self, cancel: &CancellationToken) {
        skep_client::reconcile::run("taint-eviction", &self.queue, 8, cancel, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: Key) -> Result<Next, Error> {
        let Some(pod) = self.pods.get(&key.namespace, &key.name) else { return Ok(Next::Wait) };
        let node = pods::node_name(&pod).and_then(|name| self.nodes.get("", name));
        let Some(node) = node.filter(|_| pods::is_active(&pod)) else { return Ok(Next::Wait) };
        let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
        let now = Timestamp::now();
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let taints = self.seen.dated(name, no_execute(&node), now);
        match leave_in(&taints, tolerations, now) {
            None => return Ok(Next::Wait),
            Some(left) if !left.is_zero() => return Ok(Next::After(left)),
            Some(_) => {}
        }
        let message = format!("Marking for deletion Pod {key}");
        self.events.about(&*pod, EventType::Normal, "TaintManagerEviction", &message);
        let api = self.client.namespaced::<Pod>(&key.namespace);
        let patch = Patch::Strategic(json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"conditions": [{
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "DeletionByTaintManager",
                "message": "Taint manager: deleting due to NoExecute taint",
                "lastTransitionTime": Time(Timestamp::now()),
            }]},
        }));
        let told = api.patch_status(&key.name, &patch, &PatchParams::default()).await;
        let gone = match told {
            Ok(_) => {
                let params = DeleteParams::uid(pod.metadata.uid.clone().unwrap_or_default());
                api.delete(&key.name, &params).await
            }
            Err(e) => Err(e),
        };
        match gone {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(Next::Wait),
        }
    }
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.filter(|t| t.effect == "NoExecute").cloned().collect()
}

/// When the pod has to leave: never, or after a while (zero: now). Pure.
fn leave_in(taints: &[Taint], tolerations: &[Toleration], now: Timestamp) -> Option<Duration> {
    let mut soonest: Option<i64> = None;
    for taint in taints {
        let covering: Vec<&Toleration> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        if covering.is_empty() {
            return Some(Duration::ZERO);
        }
        // Of several tolerations the shortest counts; without seconds it is for ever.
        if let Some(seconds) = covering.iter().filter_map(|t| t.toleration_seconds).min() {
            let since = taint.time_added.as_ref().map_or(now, |t| t.0);
            let left = seconds.max(0) - now.duration_since(since).as_secs();
            soonest = Some(soonest.map_or(left, |s| s.min(left)));
        }
    }
    soonest.map(|left| Duration::from_secs(u64::try_from(left).unwrap_or(0)))
}

/// Whether a toleration covers a taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match text(&toleration.operator).as_str() {
        "Exists" => true,
        "" | "Equal" => !key.is_empty() && text(&toleration.value) == text(&taint.value),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taint_without_a_time_counts_from_when_it_was_seen() {
        let at = |s: i64| Timestamp::from_second(s).expect("time");
        let taint = |key: &str| Taint { key: key.into(), effect: "NoExecute".into(), ..Taint::default() };
        let seen = Seen::default();
        let time = |taints: Vec<Taint>, now: i64| {
            let dated = seen.dated("n", taints, at(now));
            dated.iter().map(|t| t.time_added.as_ref().expect("a time").0.as_second()).collect::<Vec<_>>()
        };
        assert_eq!(time(vec![taint("a")], 10), [10]);
        assert_eq!(time(vec![taint("a"), taint("b")], 20), [10, 20]);
        assert!(time(Vec::new(), 30).is_empty());
        assert_eq!(time(vec![taint("a")], 40), [40], "it went and came again");
    }

    #[test]
    fn seconds_count_from_the_taint() {
        let at = |s: i64| Timestamp::from_second(s).expect("time");
        let taint = Taint {
            key: "k".into(),
            effect: "NoExecute".into(),
            time_added: Some(Time(at(100))),
            ..Taint::default()
        };
        let exists = |seconds: Option<i64>| Toleration {
            key: Some("k".into()),
            operator: Some("Exists".into()),
            toleration_seconds: seconds,
            ..Toleration::default()
        };
        let taints = [taint];
        assert_eq!(leave_in(&taints, &[], at(100)), Some(Duration::ZERO));
        assert_eq!(leave_in(&taints, &[exists(None)], at(100)), None);
        assert_eq!(leave_in(&taints, &[exists(Some(300))], at(150)), Some(Duration::from_secs(250)));
        assert_eq!(leave_in(&taints, &[exists(Some(300))], at(500)), Some(Duration::ZERO));
        assert_eq!(leave_in(&[], &[], at(0)), None);
    }
}
