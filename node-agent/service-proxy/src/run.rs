//! The task that keeps the maps as they should be.

mod dirty;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use skep_client::events::{EventType, Recorder};
use skep_client::{Client, Informer, ListParams, Store};
use skep_ebpf_loader::DataPlane;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::addresses::node_addresses;
use crate::backend::{self, Backend};
use crate::desired::{NodeView, ServiceTables, service_tables};
use crate::error::{Error, Result};
use crate::metrics::{Metrics, PolicyLabels};
use crate::mode::ProxyMode;
use crate::names::{Scope, ServiceName};
use crate::serve::{self, Health, HealthChecks, ServeOptions};
use dirty::Dirty;

/// The label that names a slice's service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Slices of headless services have nothing to balance.
const NOT_HEADLESS: &str = "!service.kubernetes.io/headless";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// How often flows are collected, backends expired and the node's addresses looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(10);
/// The first and the longest pause after a failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// What the proxy needs.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The own node's name.
    pub node_name: String,
    /// The node's addresses, the preferred one of each family first. Node ports are served there, on loopback, and
    /// on every other address of the node's interfaces; translated packets take the preferred one as their source.
    pub node_addresses: Vec<IpAddr>,
    /// Who translates.
    pub mode: ProxyMode,
    /// The data plane; without one the mode must be one of rules.
    pub data_plane: Option<Arc<DataPlane>>,
    /// Whether to attach the uplink programs to every interface with an address of the node.
    pub attach_uplinks: bool,
    /// Networks that pods reach under their own address; empty: no masquerading at all.
    pub keep_source: Vec<IpNet>,
    /// The cluster's pods: by rules, what comes from them keeps its source.
    pub cluster_cidrs: Vec<IpNet>,
    /// The cluster IPs: by rules, those that no service has are not sent on.
    pub service_cidrs: Vec<IpNet>,
    /// The folder with the pods' network namespaces, where sockets to gone backends are looked for.
    pub netns_dir: PathBuf,
    /// The file that says in which mode this node was left; none: every start looks for all.
    pub record: Option<PathBuf>,
    /// Where health and metrics are served.
    pub serve: ServeOptions,
    /// Told the mode once it serves everything and the others are gone.
    pub settled: watch::Sender<Option<ProxyMode>>,
    /// Counted into.
    pub metrics: Metrics,
}

/// Keeps the maps in step with the cluster until cancelled. Failures are tried again for ever.
///
/// # Errors
/// When the maps cannot even be read at the start.
pub async fn run(client: Client, config: ProxyConfig, cancel: CancellationToken) -> Result<()> {
    let tracker = TaskTracker::new();
    let child = cancel.child_token();
    // Whatever way this ends, the informers end too.
    let _stop = child.clone().drop_guard();
    let sources = Sources::start(&client, &config, &tracker, &child);
    let recorder = Recorder::spawn(client.clone(), "kube-proxy", &config.node_name, &tracker, child.clone());
    let health = Health::new(sources.nodes.clone(), &config.node_name);
    serve::spawn(&config, &health, &recorder, &tracker, &child);
    let checks = HealthChecks::new(health.clone(), recorder.clone(), tracker.clone(), child.clone());
    let proxy = Proxy::new(config, sources, health, recorder, checks).await;
    let result = match proxy {
        Ok(proxy) => proxy.run(&cancel).await,
        Err(error) => Err(error),
    };
    tracker.close();
    child.cancel();
    tracker.wait().await;
    result
}

struct Sources {
    services: Store<Service>,
    slices: Store<EndpointSlice>,
    nodes: Store<Node>,
    dirty: Arc<Dirty>,
}

impl Sources {
    fn start(
        client: &Client,
        config: &ProxyConfig,
        tracker: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Self {
        let dirty = Arc::new(Dirty::default());
        let (on_service, on_slice, on_node) = (Arc::clone(&dirty), Arc::clone(&dirty), Arc::clone(&dirty));
        let (service_metrics, slice_metrics) = (config.metrics.clone(), config.metrics.clone());
        let services = Informer::new(client.all::<Service>(), ListParams::default())
            .on_change(move |old, new| {
                if let Some(service) = new.or(old) {
                    service_metrics.service_changes.inc();
                    service_metrics.service_changes_pending.inc();
                    on_service.add(service_name(service), None);
                }
            })
            .spawn(tracker, cancel.clone());
        let slices = Informer::new(client.all::<EndpointSlice>(), ListParams::labels(NOT_HEADLESS))
            .index_by(|slice| slice_service(slice).map(|name| name.to_string()).into_iter().collect())
            .on_change(move |old, new| {
                // Both: a slice may be given to another service.
                for slice in old.into_iter().chain(new) {
                    if let Some(name) = slice_service(slice) {
                        slice_metrics.endpoint_changes.inc();
                        slice_metrics.endpoint_changes_pending.inc();
                        on_slice.add(name, new.and_then(|slice| trigger_time(slice)));
                    }
                }
            })
            .spawn(tracker, cancel.clone());
        let own = ListParams::fields(format!("metadata.name={}", config.node_name));
        let nodes = Informer::new(client.all::<Node>(), own)
            .on_change(move |old, new| {
                if zone(old.map(AsRef::as_ref)) != zone(new.map(AsRef::as_ref)) {
                    on_node.add_all();
                }
            })
            .spawn(tracker, cancel.clone());
        Self { services, slices, nodes, dirty }
    }

    async fn synced(&self) {
        self.services.synced().await;
        self.slices.synced().await;
        self.nodes.synced().await;
    }
}

fn service_name(service: &Service) -> ServiceName {
    ServiceName {
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        name: service.metadata.name.clone().unwrap_or_default(),
    }
}

fn slice_service(slice: &EndpointSlice) -> Option<ServiceName> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_LABEL)?.clone();
    Some(ServiceName { namespace: slice.metadata.namespace.clone()?, name })
}

fn trigger_time(slice: &EndpointSlice) -> Option<jiff::Timestamp> {
    let annotations = slice.metadata.annotations.as_ref()?;
    annotations.get("endpoints.kubernetes.io/last-change-trigger-time")?.parse().ok()
}

fn zone(node: Option<&Node>) -> Option<String> {
    node?.metadata.labels.as_ref()?.get(ZONE_LABEL).cloned()
}

struct Proxy {
    config: ProxyConfig,
    sources: Sources,
    backend: Backend,
    node: NodeView,
    /// Whether other modes have been removed since the start.
    settled: bool,
    pause: Duration,
    health: Health,
    recorder: Recorder,
    checks: HealthChecks,
}

impl Proxy {
    async fn new(
        config: ProxyConfig,
        sources: Sources,
        health: Health,
        recorder: Recorder,
        checks: HealthChecks,
    ) -> Result<Self> {
        let backend = Backend::new(&config).await?;
        let node = NodeView { name: config.node_name.clone(), ..NodeView::default() };
        Ok(Self { config, sources, backend, node, settled: false, pause: RETRY.0, health, recorder, checks })
    }

    async fn run(mut self, cancel: &CancellationToken) -> Result<()> {
        // Cancel-safe: nothing is done until all have synced.
        if cancel.run_until_cancelled(self.sources.synced()).await.is_none() {
            return Ok(());
        }
        self.sources.dirty.add_all();
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        loop {
            // Cancel-safe: the notice is kept when it is not awaited, a tick that is missed comes again, and work is
            // done outside the select.
            let ticked = tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(()),
                () = self.sources.dirty.wait() => false,
                _ = housekeeping.tick() => true,
            };
            let done = if ticked { self.keep_house().await } else { self.sync().await };
            match done {
                Ok(()) => self.pause = RETRY.0,
                Err(error) => {
                    self.tell(&error);
                    if cancel.run_until_cancelled(tokio::time::sleep(self.pause)).await.is_none() {
                        return Ok(());
                    }
                    self.pause = (self.pause * 2).min(RETRY.1);
                }
            }
        }
    }

    fn tell(&self, error: &Error) {
        self.config.metrics.failures.inc();
        tracing::warn!(
            error = error as &dyn std::error::Error,
            pause = ?self.pause,
            "services are not as they should be: trying again"
        );
        let message =
            format!("cannot bring services into the kernel ({}): {}", self.config.mode, error.chain());
        let node = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.config.node_name.clone()),
            uid: Some(self.config.node_name.clone()),
            ..ObjectReference::default()
        };
        self.recorder.event(&node, EventType::Warning, "FailedToSyncServices", &message);
    }

    /// Brings the changed services into the kernel; what fails is changed again.
    async fn sync(&mut self) -> Result<()> {
        let started = Instant::now();
        let work = self.sources.dirty.take();
        self.health.queued();
        let result = self.sync_services(&work).await;
        let metrics = &self.config.metrics;
        match &result {
            Ok(()) => {
                let now = jiff::Timestamp::now();
                for trigger in work.names.values().flatten() {
                    let seconds = now.duration_since(*trigger).as_secs_f64();
                    metrics.programming_seconds.observe(seconds.max(0.0));
                }
                let seconds = started.elapsed().as_secs_f64();
                metrics.sync_seconds.observe(seconds);
                if work.all {
                    metrics.full_sync_seconds.observe(seconds);
                }
                metrics.last_sync.set(now.as_second());
                metrics.endpoint_changes_pending.set(0);
                metrics.service_changes_pending.set(0);
                metrics.services.set(self.backend.services().len() as i64);
                metrics.backends.set(self.backend.backends() as i64);
                self.health.updated();
            }
            Err(_) => self.sources.dirty.give_back(work),
        }
        result
    }

    async fn sync_services(&mut self, work: &dirty::Work) -> Result<()> {
        if work.all {
            self.look_at_node()?;
        }
        let mut wanted: BTreeMap<ServiceName, Option<ServiceTables>> =
            work.names.keys().map(|name| (name.clone(), self.tables_of(name))).collect();
        if work.all {
            let listed = self.sources.services.list();
            for name in listed.iter().map(|service| service_name(service)).chain(self.backend.services()) {
                wanted.entry(name).or_insert_with_key(|name| self.tables_of(name));
            }
            self.count_without_local(&wanted);
        }
        for (name, tables) in &wanted {
            self.checks.set(name, tables.as_ref().and_then(|tables| tables.health));
        }
        while !wanted.is_empty() || work.all {
            let again = self.backend.sync(wanted).await?;
            wanted = again.into_iter().map(|name| (name.clone(), self.tables_of(&name))).collect();
            if wanted.is_empty() {
                break;
            }
        }
        if work.all {
            self.backend.all_synced().await?;
            if !self.settled {
                backend::settle(&self.config).await?;
                self.config.settled.send_replace(Some(self.config.mode));
                self.settled = true;
            }
        }
        Ok(())
    }

    fn tables_of(&self, name: &ServiceName) -> Option<ServiceTables> {
        let service = self.sources.services.get(&name.namespace, &name.name)?;
        Some(service_tables(&service, &self.sources.slices.indexed(&name.to_string()), &self.node))
    }

    async fn keep_house(&mut self) -> Result<()> {
        let intact = self.backend.keep_house().await?;
        if !intact || node_addresses(&self.config.node_addresses)? != self.node.node_port_addresses {
            self.sources.dirty.add_all();
        }
        Ok(())
    }

    fn look_at_node(&mut self) -> Result<()> {
        let addresses = node_addresses(&self.config.node_addresses)?;
        self.backend.set_addresses(&self.config, &addresses)?;
        self.node.node_port_addresses = addresses;
        self.node.zone = zone(self.sources.nodes.get("", &self.config.node_name).as_deref());
        Ok(())
    }

    fn count_without_local(&self, wanted: &BTreeMap<ServiceName, Option<ServiceTables>>) {
        let mut counts = [0; 2];
        for tables in wanted.values().flatten() {
            for frontend in tables.frontends.values() {
                let left_out = |name: &crate::SetName| {
                    name.scope == Scope::Local && tables.sets.get(name).is_some_and(|set| set.drop_when_empty)
                };
                let is_cluster_ip = frontend.flags & skep_ebpf_abi::service::frontend::KIND_MASK == 0;
                if is_cluster_ip && left_out(&frontend.internal) {
                    counts[0] += 1;
                } else if !is_cluster_ip && left_out(&frontend.external) {
                    counts[1] += 1;
                }
            }
        }
        for (traffic_policy, count) in ["internal", "external"].into_iter().zip(counts) {
            self.config.metrics.no_local_endpoints.get_or_create(&PolicyLabels { traffic_policy }).set(count);
        }
    }
}
