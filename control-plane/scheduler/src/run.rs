//! The scheduler's task: informers mark what changed, the task decides, binding runs beside it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Binding, Namespace, Node, ObjectReference, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status};
use rand::SeedableRng;
use rand::rngs::StdRng;
use skep_client::events::{EventType, Recorder};
use skep_client::{Client, Informer, ListParams, Store};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::{Cluster, Nomination};
use crate::cycle::{Unfit, schedule};
use crate::pod_info::{PodInfo, PodKey};
use crate::preemption::{self, Outcome};
use crate::queue::{Attempt, Change, Queue};
use crate::report;

/// Pods that name another scheduler are not ours.
pub const SCHEDULER_NAME: &str = "default-scheduler";

/// So many bindings are under way at once at most.
const BINDINGS: usize = 64;

/// What can stop the scheduler: nothing but being told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An informer ended although nobody stopped it.
    #[error("the informers ended")]
    InformersEnded,
}

/// What informers say: only which objects changed.
#[derive(Debug, Default)]
struct Marks {
    changed: Mutex<Changed>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Changed {
    pods: BTreeSet<PodKey>,
    nodes: BTreeSet<String>,
    namespaces: BTreeSet<String>,
}

impl Marks {
    fn mark(&self, what: impl FnOnce(&mut Changed)) {
        what(&mut self.changed.lock().unwrap_or_else(PoisonError::into_inner));
        self.notify.notify_one();
    }

    fn take(&self) -> Changed {
        std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Runs until cancelled.
///
/// # Errors
/// When it cannot go on; see [`Error`].
pub async fn run(client: Client, cancel: CancellationToken) -> Result<(), Error> {
    let tracker = TaskTracker::new();
    let marks = Arc::new(Marks::default());
    let stores = Stores::spawn(&client, &marks, &tracker, &cancel);
    let events = Recorder::spawn(client.clone(), SCHEDULER_NAME, "", &tracker, cancel.clone());
    let synced = async {
        stores.nodes.synced().await;
        stores.namespaces.synced().await;
        stores.pods.synced().await;
        stores.budgets.synced().await;
    };
    // Deciding before all is known would place pods on nodes that are full already.
    if cancel.run_until_cancelled(synced).await.is_some() {
        Scheduler {
            client,
            events,
            stores,
            marks,
            cluster: Cluster::default(),
            queue: Queue::default(),
            binding: BTreeSet::new(),
            withdrawn: BTreeSet::new(),
            start: 0,
            rng: StdRng::from_os_rng(),
        }
        .run(&cancel)
        .await;
    }
    tracker.close();
    tracker.wait().await;
    Ok(())
}

struct Stores {
    pods: Store<Pod>,
    nodes: Store<Node>,
    namespaces: Store<Namespace>,
    budgets: Store<PodDisruptionBudget>,
}

impl Stores {
    fn spawn(client: &Client, marks: &Arc<Marks>, tracker: &TaskTracker, cancel: &CancellationToken) -> Self {
        let name = |meta: &ObjectMeta| meta.name.clone().unwrap_or_default();
        // Pods that have ended hold nothing on their node.
        let living = ListParams::fields("status.phase!=Succeeded,status.phase!=Failed");
        let own = Arc::clone(marks);
        let pods = Informer::new(client.all::<Pod>(), living).on_change(move |old, new| {
            if let Some(pod) = new.or(old) {
                let key = PodKey {
                    namespace: pod.metadata.namespace.clone().unwrap_or_default(),
                    name: name(&pod.metadata),
                };
                own.mark(|changed| changed.pods.extend([key]));
            }
        });
        let own = Arc::clone(marks);
        let nodes = Informer::new(client.all::<Node>(), ListParams::default()).on_change(move |old, new| {
            if let Some(node) = new.or(old)
                && old.zip(new).is_none_or(|(old, new)| matters(old, new))
            {
                own.mark(|changed| changed.nodes.extend([name(&node.metadata)]));
            }
        });
        let own = Arc::clone(marks);
        let namespaces =
            Informer::new(client.all::<Namespace>(), ListParams::default()).on_change(move |old, new| {
                if let Some(namespace) = new.or(old) {
                    own.mark(|changed| changed.namespaces.extend([name(&namespace.metadata)]));
                }
            });
        let budgets = Informer::new(client.all::<PodDisruptionBudget>(), ListParams::default());
        Self {
            pods: pods.spawn(tracker, cancel.clone()),
            nodes: nodes.spawn(tracker, cancel.clone()),
            namespaces: namespaces.spawn(tracker, cancel.clone()),
            budgets: budgets.spawn(tracker, cancel.clone()),
        }
    }
}

/// Heartbeats of a node change nothing that decisions look at.
fn matters(old: &Node, new: &Node) -> bool {
    let status =
        |node: &Node| node.status.as_ref().map(|status| (status.allocatable.clone(), status.images.clone()));
    old.metadata.labels != new.metadata.labels
        || old.spec != new.spec
        || old.metadata.uid != new.metadata.uid
        || status(old) != status(new)
}

/// What is written beside the decisions. Gives the pod whose victim could not be told to go.
type Reports = JoinSet<Option<PodKey>>;

/// A binding's end.
struct Bound {
    attempt: Attempt,
    outcome: Result<(), skep_client::Error>,
}

struct Scheduler {
    client: Client,
    events: Recorder,
    stores: Stores,
    marks: Arc<Marks>,
    cluster: Cluster,
    queue: Queue,
    /// Pods whose binding is under way.
    binding: BTreeSet<PodKey>,
    /// Pods whose nomination was withdrawn though the store may still show it.
    withdrawn: BTreeSet<PodKey>,
    start: usize,
    rng: StdRng,
}

impl Scheduler {
    async fn run(mut self, cancel: &CancellationToken) {
        let mut bindings: JoinSet<Bound> = JoinSet::new();
        let mut reports: Reports = JoinSet::new();
        loop {
            self.take_changes();
            while bindings.len() < BINDINGS {
                let Some(attempt) = self.queue.pop(Instant::now()) else { break };
                self.attempt(attempt, &mut bindings, &mut reports);
            }
            let wake = self.queue.next_wake();
            // Each arm only says that there is something to do; nothing is lost when another wins.
            tokio::select! {
                () = cancel.cancelled() => break,
                () = self.marks.notify.notified() => {}
                Some(bound) = bindings.join_next() => match bound {
                    Ok(bound) => self.bound(bound),
                    Err(error) => tracing::error!(%error, "a binding task failed"),
                },
                Some(report) = reports.join_next() => match report {
                    Ok(None) => {}
                    Ok(Some(preemptor)) => self.not_evicted(&preemptor),
                    Err(error) => tracing::error!(%error, "a report task failed"),
                },
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
        bindings.shutdown().await;
        reports.shutdown().await;
    }

    /// Brings the cluster and the queue to what the stores hold.
    fn take_changes(&mut self) {
        let (changed, now) = (self.marks.take(), Instant::now());
        for name in changed.namespaces {
            match self.stores.namespaces.get("", &name) {
                Some(namespace) => {
                    self.cluster
                        .namespaces
                        .insert(name, namespace.metadata.labels.clone().unwrap_or_default());
                }
                None => drop(self.cluster.namespaces.remove(&name)),
            }
        }
        for name in changed.nodes {
            match self.stores.nodes.get("", &name) {
                Some(node) => self.cluster.set_node(node),
                None => self.cluster.remove_node(&name),
            }
            self.queue.changed(Change::Node, now);
        }
        for key in changed.pods {
            let pod = self.stores.pods.get(&key.namespace, &key.name);
            self.take_pod(&key, pod, now);
        }
    }

    fn take_pod(&mut self, key: &PodKey, pod: Option<Arc<Pod>>, now: Instant) {
        let Some(pod) = pod else {
            self.queue.remove(key);
            self.withdrawn.remove(key);
            if self.cluster.withdraw(key) {
                self.queue.changed(Change::PodGone, now);
            }
            if self.cluster.displace(key) {
                self.queue.changed(Change::PodGone, now);
            }
            return;
        };
        let spec = pod.spec.as_ref();
        let node = spec.and_then(|spec| spec.node_name.clone()).filter(|name| !name.is_empty());
        if let Some(node) = node {
            let is_new = self.cluster.node_of(key).is_none();
            self.cluster.withdraw(key);
            self.cluster.place(Arc::new(PodInfo::new(pod)), &node);
            self.queue.remove(key);
            if is_new {
                self.queue.changed(Change::PodPlaced, now);
            }
            return;
        }
        let ours =
            spec.and_then(|spec| spec.scheduler_name.as_deref()).is_none_or(|name| name == SCHEDULER_NAME);
        let gated =
            spec.is_some_and(|spec| spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()));
        if !ours || gated || pod.metadata.deletion_timestamp.is_some() {
            self.queue.remove(key);
            self.cluster.withdraw(key);
        } else if !self.binding.contains(key) {
            let pod = Arc::new(PodInfo::new(pod));
            // Nominated by an earlier run of the scheduler.
            if let Some(node) = report::nominated_node(&pod.pod)
                && self.cluster.nomination(key).is_none()
                && !self.withdrawn.contains(key)
            {
                let (pod, node) = (Arc::clone(&pod), node.to_owned());
                self.cluster.nominate(Nomination { pod, node, victims: Vec::new() });
            }
            self.queue.add(pod);
        }
    }

    fn attempt(&mut self, attempt: Attempt, bindings: &mut JoinSet<Bound>, reports: &mut Reports) {
        match schedule(&attempt.pod, &self.cluster, &mut self.start, &mut self.rng) {
            Ok(node) => {
                self.cluster.withdraw(&attempt.pod.key);
                self.withdrawn.remove(&attempt.pod.key);
                self.cluster.place(Arc::clone(&attempt.pod), &node);
                self.binding.insert(attempt.pod.key.clone());
                let (client, events) = (self.client.clone(), self.events.clone());
                bindings.spawn(async move {
                    let outcome = bind(&client, &attempt.pod, &node).await;
                    if outcome.is_ok() {
                        let key = &attempt.pod.key;
                        let text = format!("Successfully assigned {}/{} to {node}", key.namespace, key.name);
                        events.about(&*attempt.pod.pod, EventType::Normal, "Scheduled", &text);
                    }
                    Bound { attempt, outcome }
                });
            }
            Err(mut unfit) => {
                self.make_room(&attempt.pod, &mut unfit, reports);
                // Without a node no plug-in refused; the first node helps.
                let plugins = if unfit.plugins.is_empty() { vec!["NodeName"] } else { unfit.plugins };
                self.queue.failed(attempt, plugins, Instant::now());
            }
        }
    }

    fn bound(&mut self, bound: Bound) {
        let Bound { attempt, outcome } = bound;
        let key = attempt.pod.key.clone();
        self.binding.remove(&key);
        let Err(error) = outcome else { return };
        self.cluster.displace(&key);
        let now = Instant::now();
        // The newest state decides: the pod may be gone, or placed by someone else.
        match self.stores.pods.get(&key.namespace, &key.name) {
            Some(pod) if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none()) => {
                tracing::warn!(pod = %key.name, namespace = %key.namespace, %error, "binding failed");
                self.queue.failed(attempt, Vec::new(), now);
            }
            newest => self.take_pod(&key, newest, now),
        }
    }

    /// Makes less important pods go, where that helps; tells users what it is.
    fn make_room(&mut self, pod: &Arc<PodInfo>, unfit: &mut Unfit, reports: &mut Reports) {
        let mut nominate = report::Nominate::Keep;
        if !self.cluster.nodes().is_empty() {
            let budgets = self.stores.budgets.list();
            match preemption::plan(pod, &self.cluster, &unfit.resolvable, &budgets) {
                Outcome::Preempt { node, victims } => {
                    self.preempt(pod, &node, victims, reports);
                    nominate = report::Nominate::To(node);
                }
                Outcome::Wait(why) => unfit.preemption = Some(why),
                Outcome::Nothing(why) => {
                    unfit.preemption = Some(why);
                    if self.cluster.withdraw(&pod.key) {
                        self.withdrawn.insert(pod.key.clone());
                        nominate = report::Nominate::Nowhere;
                    }
                }
            }
        }
        let message = unfit.to_string();
        self.events.about(&*pod.pod, EventType::Warning, "FailedScheduling", &message);
        let (client, pod) = (self.client.clone(), Arc::clone(pod));
        reports.spawn(async move {
            report::unschedulable(&client, &pod, &message, &nominate).await;
            None
        });
    }

    fn preempt(&mut self, pod: &Arc<PodInfo>, node: &str, victims: Vec<Arc<PodInfo>>, reports: &mut Reports) {
        // Less important pods that wait for this node may not fit any more: they look for another.
        for lesser in self.cluster.nominated_below(node, pod.priority) {
            self.cluster.withdraw(&lesser.key);
            self.withdrawn.insert(lesser.key.clone());
            let client = self.client.clone();
            reports.spawn(async move {
                report::nominated_nowhere(&client, &lesser).await;
                None
            });
        }
        self.withdrawn.remove(&pod.key);
        self.cluster.nominate(Nomination {
            pod: Arc::clone(pod),
            node: node.to_owned(),
            victims: victims.iter().map(|victim| victim.uid.clone()).collect(),
        });
        for victim in victims.into_iter().filter(|v| v.pod.metadata.deletion_timestamp.is_none()) {
            let text = format!("Preempted by pod {} on node {node}", pod.uid);
            self.events.about(&*victim.pod, EventType::Normal, "Preempted", &text);
            let (client, preemptor) = (self.client.clone(), pod.key.clone());
            reports.spawn(async move {
                let error = report::evict(&client, &victim).await.err()?;
                tracing::warn!(pod = %victim.key.name, namespace = %victim.key.namespace, %error, "preempting");
                Some(preemptor)
            });
        }
    }

    /// A victim stays: the pod that waits for its end looks again.
    fn not_evicted(&mut self, preemptor: &PodKey) {
        if self.cluster.withdraw(preemptor) {
            self.queue.changed(Change::PodGone, Instant::now());
        }
    }
}

async fn bind(client: &Client, pod: &PodInfo, node: &str) -> Result<(), skep_client::Error> {
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(pod.key.name.clone()),
            namespace: Some(pod.key.namespace.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let api = client.namespaced::<Pod>(&pod.key.namespace);
    let _status: Status = api.create_subresource(&pod.key.name, "binding", &binding).await?;
    Ok(())
}
