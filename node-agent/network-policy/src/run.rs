//! The task that keeps the maps as policies want them.
//!
//! Only NetworkPolicies are watched while there is none. With the first one, namespaces and all pods of the cluster are
//! watched too (in brief), and from then on.

mod dirty;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use skep_client::events::{EventType, Recorder};
use skep_client::{Client, Informer, ListParams, Store};
use skep_ebpf_abi::policy::DeniedKey;
use skep_ebpf_loader::DataPlane;
use skep_ebpf_loader::policy::{PolicyMaps, PolicyTables, direction_name};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::brief::{self, PodBrief};
use crate::engine::{Engine, LocalPod, Names};
use crate::error::Error;
use crate::metrics::{DeniedLabels, Metrics};
use crate::model::{ClusterDns, ObjectName};
use crate::read;
use dirty::Dirty;

/// How long a pod's start waits for its policies.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often ended flows are collected and denied ones counted.
const HOUSEKEEPING: Duration = Duration::from_secs(10);
/// The first and the longest pause after a failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));
/// Denied flows that are logged in one round, of those that are new.
const LOGGED: usize = 20;

/// What the task needs.
#[derive(Clone, Debug)]
pub struct PolicyConfig {
    /// The data plane; without one policies cannot be enforced, and pods that they select do not start.
    pub data_plane: Option<Arc<DataPlane>>,
    /// The file that says what the numbers in the maps stand for.
    pub names_file: PathBuf,
    /// The port at which nodes answer the cluster's DNS; 0: none do.
    pub dns_port: u16,
    /// All nodes.
    pub nodes: Store<Node>,
    /// Counted into.
    pub metrics: Metrics,
}

enum Command {
    Add(String, LocalPod, oneshot::Sender<Result<(), Error>>),
    Remove(String),
    KeepOnly(BTreeSet<IpAddr>),
}

/// The way to the task. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Policies {
    commands: mpsc::Sender<Command>,
}

impl Policies {
    /// Waits until the policies that select a pod of this node are in the kernel. Idempotent.
    ///
    /// # Errors
    /// When that takes too long, or cannot be.
    pub async fn add(&self, uid: &str, pod: LocalPod) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Add(uid.to_owned(), pod, reply)).await.map_err(|_| Error::Stopping)?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Error::Stopping),
            Err(_) => {
                let why = format!("not after {} s; the agent's log says why", PATIENCE.as_secs());
                Err(Error::NotReady(why))
            }
        }
    }

    /// A pod of this node is gone.
    pub async fn remove(&self, uid: &str) {
        // A task that has ended forgets everything anyway.
        let _ = self.commands.send(Command::Remove(uid.to_owned())).await;
    }

    /// Of the pods that an earlier agent policed only those with these addresses are there still.
    pub async fn keep_only(&self, addresses: BTreeSet<IpAddr>) {
        let _ = self.commands.send(Command::KeepOnly(addresses)).await;
    }
}

/// Starts the task.
pub fn spawn(
    client: Client,
    config: PolicyConfig,
    recorder: Recorder,
    tracker: &TaskTracker,
    cancel: &CancellationToken,
) -> Policies {
    let (sender, receiver) = mpsc::channel(256);
    let (own, token) = (tracker.clone(), cancel.clone());
    tracker.spawn(async move {
        let keeper = Keeper::new(client, config, recorder, own, token.clone());
        // Cancel-safe: what is written is whole batches, and the next agent compares everything anew.
        token.run_until_cancelled(keeper.run(receiver)).await;
    });
    Policies { commands: sender }
}

/// What is watched once there is a policy.
struct Peers {
    namespaces: Store<Namespace>,
    pods: Store<PodBrief>,
}

impl Peers {
    fn are_synced(&self) -> bool {
        self.namespaces.is_synced() && self.pods.is_synced()
    }
}

struct Keeper {
    client: Client,
    config: PolicyConfig,
    recorder: Recorder,
    tracker: TaskTracker,
    cancel: CancellationToken,
    dirty: Arc<Dirty>,
    policies: Store<NetworkPolicy>,
    peers: Option<Peers>,
    engine: Engine,
    waiting: Vec<(LocalPod, oneshot::Sender<Result<(), Error>>)>,
    pause: Duration,
    again: Option<Instant>,
    names: Names,
    denied: BTreeMap<DeniedKey, u64>,
}

impl Keeper {
    fn new(
        client: Client,
        config: PolicyConfig,
        recorder: Recorder,
        tracker: TaskTracker,
        cancel: CancellationToken,
    ) -> Self {
        let dirty = Arc::new(Dirty::default());
        let on_policy = Arc::clone(&dirty);
        let policies = Informer::new(client.all::<NetworkPolicy>(), ListParams::default())
            .on_change(move |old, new| {
                old.or(new).into_iter().for_each(|policy| on_policy.policy(name_of(&policy.metadata)));
            })
            .spawn(&tracker, cancel.clone());
        let engine = Engine::restore(&PolicyTables::default(), ClusterDns { port: config.dns_port });
        Self {
            client,
            config,
            recorder,
            tracker,
            cancel,
            dirty,
            policies,
            peers: None,
            engine,
            waiting: Vec::new(),
            pause: RETRY.0,
            again: None,
            names: Names::default(),
            denied: BTreeMap::new(),
        }
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        self.restore().await;
        self.policies.synced().await;
        let mut nodes = self.config.nodes.subscribe();
        self.take_nodes();
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let again = self.again;
            // Cancel-safe: a command is taken whole, notices are kept, ticks come again; work is done outside.
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                () = self.dirty.wait() => {}
                changed = nodes.changed() => if changed.is_ok() { self.take_nodes() } else { return },
                _ = housekeeping.tick() => self.keep_house(),
                () = sleep_until(again) => self.again = None,
            }
            while let Ok(command) = commands.try_recv() {
                self.command(command);
            }
            self.look();
            if self.is_ready() && self.again.is_none() {
                self.sync().await;
            }
        }
    }

    /// Begins with what the maps hold; without that nothing can be said, so it is tried until it works.
    async fn restore(&mut self) {
        let Some(plane) = self.config.data_plane.clone() else { return };
        loop {
            match plane.read() {
                Ok(tables) => {
                    self.engine = Engine::restore(&tables, ClusterDns { port: self.config.dns_port });
                    return;
                }
                Err(error) => {
                    self.config.metrics.failures.inc();
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "cannot read the maps of policies"
                    );
                    tokio::time::sleep(RETRY.1).await;
                }
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Add(uid, pod, reply) => {
                self.engine.set_local(&uid, Some(pod.clone()));
                self.waiting.push((pod, reply));
            }
            Command::Remove(uid) => self.engine.set_local(&uid, None),
            Command::KeepOnly(addresses) => self.engine.keep_only(&addresses),
        }
    }

    /// Takes in what the informers noted.
    fn look(&mut self) {
        let work = self.dirty.take();
        for name in work.policies {
            let policy = self.policies.get(&name.namespace, &name.name).map(|object| self.read(&object));
            self.engine.set_policy(&name, policy);
        }
        if self.peers.is_none() && self.engine.has_policies() {
            self.watch_peers();
        }
        let Some(peers) = &self.peers else { return };
        for name in work.namespaces {
            let labels = peers.namespaces.get("", &name).map(|object| read::namespace(&object).1);
            self.engine.set_namespace(&name, labels);
        }
        for name in work.pods {
            let pod = peers.pods.get(&name.namespace, &name.name).and_then(|object| read::pod(&object));
            self.engine.set_pod(&name, pod);
        }
    }

    fn read(&self, object: &NetworkPolicy) -> crate::model::Policy {
        read::policy(object).unwrap_or_else(|error| {
            let message = format!("the policy cannot be read, so it allows nothing: {error}");
            tracing::warn!(policy = %name_of(&object.metadata), message);
            self.recorder.about(object, EventType::Warning, "InvalidNetworkPolicy", &message);
            read::closed(object)
        })
    }

    fn watch_peers(&mut self) {
        let (on_namespace, on_pod) = (Arc::clone(&self.dirty), Arc::clone(&self.dirty));
        let namespaces = Informer::new(self.client.all::<Namespace>(), ListParams::default())
            .on_change(move |old, new| {
                let name = old.or(new).and_then(|namespace| namespace.metadata.name.clone());
                name.into_iter().for_each(|name| on_namespace.namespace(name));
            })
            .spawn(&self.tracker, self.cancel.clone());
        let pods = Informer::new(brief::pods(&self.client), ListParams::default())
            .on_change(move |old, new| {
                old.or(new).into_iter().for_each(|pod| on_pod.pod(name_of(&pod.metadata)));
            })
            .spawn(&self.tracker, self.cancel.clone());
        self.peers = Some(Peers { namespaces, pods });
        // An empty list is a change too: of what is known.
        let (dirty, peers) = (Arc::clone(&self.dirty), self.peers.as_ref());
        if let Some(peers) = peers {
            let (namespaces, pods, nodes) =
                (peers.namespaces.clone(), peers.pods.clone(), self.config.nodes.clone());
            self.tracker.spawn(self.cancel.clone().run_until_cancelled_owned(async move {
                tokio::join!(namespaces.synced(), pods.synced(), nodes.synced());
                dirty.notice();
            }));
        }
    }

    /// Whether what is known is all there is: before, nobody can be judged.
    fn is_ready(&self) -> bool {
        match &self.peers {
            None => true,
            Some(peers) => peers.are_synced() && self.config.nodes.is_synced(),
        }
    }

    /// The addresses of nodes: those that they say, and the ones inside the tunnel.
    fn take_nodes(&mut self) {
        let mut all = BTreeSet::new();
        for node in self.config.nodes.list() {
            let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
            all.extend(addresses.filter_map(|address| address.address.parse::<IpAddr>().ok()));
            let ranges =
                node.spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr));
            let ranges = ranges.filter_map(|text| text.parse::<ipnet::IpNet>().ok());
            all.extend(ranges.map(|range| first_address(&range)));
        }
        self.engine.set_nodes(all);
    }

    async fn sync(&mut self) {
        let Some(plane) = self.config.data_plane.clone() else { return self.refuse() };
        let written = if self.engine.is_idle() { Ok(()) } else { self.write(&plane).await };
        match written {
            Ok(()) => {
                self.pause = RETRY.0;
                for (_, reply) in self.waiting.drain(..) {
                    // Whoever asked may have given up.
                    let _ = reply.send(Ok(()));
                }
                self.write_names();
            }
            Err(error) => self.failed(&plane, &error),
        }
        let (policies, tables, identities) = self.engine.counts();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.config.metrics.policies.set(gauge(policies));
        self.config.metrics.tables.set(gauge(tables));
        self.config.metrics.identities.set(gauge(identities));
    }

    async fn write(&mut self, plane: &DataPlane) -> Result<(), skep_ebpf_loader::Error> {
        for change in self.engine.plan() {
            for (netns, ips) in self.engine.begun(&change) {
                // Flows that were open before are asked about in the direction in which they were opened.
                if let Err(error) = plane.note_flows(&netns, &ips) {
                    tracing::warn!(netns = %netns.display(), error = &error as &dyn std::error::Error,
                        "open flows of a pod are not known: they may break");
                }
            }
            plane.apply(&change)?;
            self.engine.applied(&change);
            self.config.metrics.writes.inc();
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn failed(&mut self, plane: &DataPlane, error: &skep_ebpf_loader::Error) {
        self.config.metrics.failures.inc();
        tracing::error!(
            error = error as &dyn std::error::Error,
            pause = ?self.pause,
            "network policies are not as they should be: trying again"
        );
        let message = format!("cannot bring the policy into the kernel: {}", chain(error));
        for policy in self.policies.list() {
            self.recorder.about(&*policy, EventType::Warning, "FailedToSyncNetworkPolicy", &message);
        }
        match plane.read() {
            Ok(tables) => self.engine.take_over(&tables),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot read the maps of policies");
            }
        }
        self.again = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(RETRY.1);
    }

    /// Without programs: pods that are selected must not start, and who wrote the policy is told.
    fn refuse(&mut self) {
        for (pod, reply) in self.waiting.drain(..) {
            let answer = match self.engine.selecting(&pod.identity) {
                None => Ok(()),
                Some(policy) => Err(Error::Unenforceable(policy.to_string())),
            };
            let _ = reply.send(answer);
        }
        for (policy, pod) in self.engine.selected_here() {
            if let Some(object) = self.policies.get(&policy.namespace, &policy.name) {
                let message =
                    format!("node cannot enforce it for pod {pod}: the eBPF programs are not loaded");
                self.recorder.about(&*object, EventType::Warning, "NetworkPolicyNotEnforced", &message);
            }
        }
    }

    fn write_names(&mut self) {
        let names = self.engine.names();
        if names == self.names {
            return;
        }
        match names.write(&self.config.names_file) {
            Ok(()) => self.names = names,
            Err(error) => {
                tracing::warn!(path = %self.config.names_file.display(), %error, "names of policies are not written");
            }
        }
    }

    fn keep_house(&mut self) {
        let Some(plane) = self.config.data_plane.clone() else { return };
        if let Err(error) = plane.collect_verdicts() {
            tracing::warn!(error = &error as &dyn std::error::Error, "flows that are over stay");
        }
        match plane.denied() {
            Ok(flows) => self.count_denied(flows),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot read what was denied");
            }
        }
    }

    fn count_denied(&mut self, flows: skep_ebpf_loader::policy::DeniedFlows) {
        let mut logged = 0;
        let mut seen = BTreeMap::new();
        for (key, value) in flows {
            let before = self.denied.get(&key).copied().unwrap_or_default();
            seen.insert(key, value.packets);
            let Some(more) = value.packets.checked_sub(before).filter(|more| *more > 0) else { continue };
            let policies =
                self.names.tables.get(&key.table).map(|table| table.policies.join(",")).unwrap_or_default();
            let pod =
                self.names.pods.get(&key.pod.to_string()).cloned().unwrap_or_else(|| key.pod.to_string());
            let direction = direction_name(key.direction);
            if before == 0 && logged < LOGGED {
                logged += 1;
                tracing::info!(pod, direction, peer = %key.peer, port = u16::from_be(key.port_be),
                    protocol = key.protocol, policies, "denied by network policy");
            }
            self.config.metrics.denied.get_or_create(&DeniedLabels { pod, direction, policies }).inc_by(more);
        }
        self.denied = seen;
    }
}

/// A node's address inside the tunnel: the first of its range.
fn first_address(range: &ipnet::IpNet) -> IpAddr {
    match range.network() {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() + 1).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() + 1).into()),
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn name_of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> ObjectName {
    ObjectName {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
