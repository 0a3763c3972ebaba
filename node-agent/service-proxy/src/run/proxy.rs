//! The task that owns the back end: takes what changed, brings it in, tries again what failed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use skep_client::events::{EventType, Recorder};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ProxyConfig;
use super::dirty::Work;
use super::need::need;
use super::no_local::NoLocal;
use super::sources::{Sources, zone};
use crate::addresses::node_addresses;
use crate::backend::{self, Backend, Synced};
use crate::desired::{NodeView, ServiceTables, service_tables};
use crate::error::{Error, Result};
use crate::host_ports::host_port_tables;
use crate::metrics::PolicyLabels;
use crate::names::ServiceName;
use crate::serve::{Health, HealthChecks};

/// The first and the longest pause after a failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

pub(super) struct Proxy {
    config: ProxyConfig,
    sources: Sources,
    backend: Backend,
    node: NodeView,
    /// All addresses of the node.
    addresses: Vec<IpAddr>,
    /// What does not run as it was chosen, as it was told.
    complaints: Vec<String>,
    /// Whether other modes have been removed since the start.
    settled: bool,
    /// What could not be brought in, and when it is tried again.
    failed: Work,
    retry_at: Instant,
    pause: Duration,
    no_local: NoLocal,
    health: Health,
    recorder: Recorder,
    checks: HealthChecks,
}

/// Why the task woke up.
enum Wake {
    Changes,
    Retry,
    Housekeeping,
}

impl Proxy {
    pub(super) async fn new(
        config: ProxyConfig,
        sources: Sources,
        health: Health,
        recorder: Recorder,
        checks: HealthChecks,
    ) -> Result<Self> {
        let backend = Backend::new(&config).await?;
        let node = NodeView { by_hash: config.options.maglev, ..NodeView::default() };
        Ok(Self {
            config,
            sources,
            backend,
            node,
            addresses: Vec::new(),
            complaints: Vec::new(),
            settled: false,
            failed: Work::default(),
            retry_at: Instant::now(),
            pause: RETRY.0,
            no_local: NoLocal::default(),
            health,
            recorder,
            checks,
        })
    }

    pub(super) async fn run(mut self, cancel: &CancellationToken) -> Result<()> {
        // Cancel-safe: nothing is done until all have synced.
        if cancel.run_until_cancelled(self.sources.synced()).await.is_none() {
            return Ok(());
        }
        self.sources.dirty.add_all();
        let mut housekeeping = tokio::time::interval(self.config.housekeeping);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Cancel-safe: the notice is kept when it is not awaited, a tick that is missed comes again, and work is
            // done outside the select.
            let wake = tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(()),
                () = self.sources.dirty.wait() => Wake::Changes,
                () = tokio::time::sleep_until(self.retry_at), if !self.failed.is_nothing() => Wake::Retry,
                _ = housekeeping.tick() => Wake::Housekeeping,
            };
            match wake {
                Wake::Changes => {
                    let work = self.sources.dirty.take();
                    // What concerns every service must come first: until it does, rules do not know the others.
                    if self.failed.all {
                        self.failed.merge(work);
                    } else {
                        self.sync(work).await;
                    }
                }
                Wake::Retry => {
                    let work = std::mem::take(&mut self.failed);
                    self.sync(work).await;
                }
                Wake::Housekeeping => {
                    if let Err(error) = self.keep_house().await {
                        self.tell(&error);
                    }
                }
            }
        }
    }

    /// Says on the node, once, what does not run as it was chosen.
    fn complain(&mut self, complaints: Vec<String>) {
        for complaint in complaints.iter().filter(|complaint| !self.complaints.contains(complaint)) {
            tracing::warn!("{complaint}");
            self.recorder.event(&self.own_node(), EventType::Warning, "XdpFallback", complaint);
        }
        self.complaints = complaints;
    }

    fn own_node(&self) -> ObjectReference {
        ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.config.node_name.clone()),
            uid: Some(self.config.node_name.clone()),
            ..ObjectReference::default()
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
        self.recorder.event(&self.own_node(), EventType::Warning, "FailedToSyncServices", &message);
    }

    /// Says on a service what is wrong with it on this node.
    fn tell_service(&self, name: &ServiceName, reason: &str, why: &str) {
        tracing::warn!(service = %name, why, "{reason}");
        if let Some(service) = self.sources.services.get(&name.namespace, &name.name) {
            let message = format!("on node {}: {why}", self.config.node_name);
            let object = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Service".to_owned()),
                namespace: Some(service.name.namespace.clone()),
                name: Some(service.name.name.clone()),
                uid: Some(service.uid.to_string()),
                ..ObjectReference::default()
            };
            self.recorder.event(&object, EventType::Warning, reason, &message);
        }
    }

    /// Brings the changed services into the kernel; what fails is put aside to be tried again.
    async fn sync(&mut self, mut work: Work) {
        let started = Instant::now();
        self.health.queued();
        let refused = match self.sync_services(&work).await {
            Ok(refused) => refused,
            Err(error) => {
                self.tell(&error);
                self.failed.merge(work);
                return self.retry_later();
            }
        };
        let now = jiff::Timestamp::now();
        let metrics = &self.config.metrics;
        for (name, trigger) in &work.names {
            if let Some(trigger) = trigger.filter(|_| !refused.contains_key(name)) {
                metrics.programming_seconds.observe(now.duration_since(trigger).as_secs_f64().max(0.0));
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        metrics.sync_seconds.observe(seconds);
        if work.all {
            metrics.full_sync_seconds.observe(seconds);
        }
        metrics.last_sync.set(now.as_second());
        metrics.endpoint_changes_pending.set(0);
        metrics.service_changes_pending.set(0);
        metrics.services.set(self.backend.service_count() as i64);
        for (name, error) in &refused {
            metrics.failures.inc();
            self.tell_service(name, "FailedToSyncService", &error.chain());
        }
        for name in refused.into_keys() {
            let trigger = work.names.remove(&name).flatten();
            self.failed.merge(Work { names: [(name, trigger)].into(), all: false });
        }
        self.config.metrics.refused_services.set(self.failed.names.len() as i64);
        if self.failed.is_nothing() {
            self.pause = RETRY.0;
            self.health.updated();
        } else {
            self.retry_later();
        }
    }

    fn retry_later(&mut self) {
        self.retry_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(RETRY.1);
    }

    /// Brings services in, a part at a time; says which ones there is no room for.
    async fn sync_services(&mut self, work: &Work) -> Result<BTreeMap<ServiceName, Error>> {
        let mut names: BTreeSet<ServiceName> = work.names.keys().cloned().collect();
        if work.all {
            self.look_at_node()?;
            names.extend(self.sources.bound().names().cloned());
            names.extend(self.sources.services.list().iter().map(|service| service.name.clone()));
            names.extend(self.backend.services());
            let Sources { services, slices, .. } = &self.sources;
            self.backend.expect(|| need(&services.list(), &slices.list(), &self.node)).await?;
        }
        let mut refused = BTreeMap::new();
        // Once even without any service: rules are more than services.
        while !names.is_empty() || work.all {
            let part = self.take_part(&mut names);
            let synced = self.backend.sync(part).await?;
            self.note(&synced);
            refused.extend(synced.refused);
            names.extend(synced.again);
            if names.is_empty() {
                break;
            }
        }
        for (traffic_policy, count) in self.no_local.totals() {
            self.config.metrics.no_local_endpoints.get_or_create(&PolicyLabels { traffic_policy }).set(count);
        }
        if work.all {
            self.backend.all_synced().await?;
            self.config.metrics.backends.set(self.backend.backends() as i64);
            if !self.settled {
                backend::settle(&self.config).await?;
                self.config.settled.send_replace(Some(self.config.mode));
                self.settled = true;
            }
        }
        Ok(refused)
    }

    fn note(&self, synced: &Synced) {
        for (name, why) in &synced.contested {
            self.tell_service(name, "AddressInUse", why);
        }
        for name in &synced.without_table {
            let why = "there is no room for another Maglev table: its backends are chosen by chance";
            self.tell_service(name, "MaglevTablesFull", why);
        }
    }

    /// Takes the next services, as many as are brought in at once, with their tables.
    fn take_part(
        &mut self,
        names: &mut BTreeSet<ServiceName>,
    ) -> BTreeMap<ServiceName, Option<ServiceTables>> {
        let (mut part, mut endpoints) = (BTreeMap::new(), 0_usize);
        let most = self.backend.endpoints_at_once();
        while endpoints < most
            && let Some(name) = names.pop_first()
        {
            let tables = self.tables_of(&name);
            self.checks.set(&name, tables.as_ref().and_then(|tables| tables.health));
            self.no_local.note(&name, tables.as_ref());
            let sets = tables.iter().flat_map(|tables| tables.sets.values());
            endpoints = endpoints.saturating_add(1 + sets.map(|set| set.backends.len()).sum::<usize>());
            part.insert(name, tables);
        }
        part
    }

    fn tables_of(&self, name: &ServiceName) -> Option<ServiceTables> {
        if let Some(pod) = self.sources.bound().get(name) {
            return Some(host_port_tables(name, pod, &self.node));
        }
        let service = self.sources.services.get(&name.namespace, &name.name)?;
        Some(service_tables(&service, &self.sources.slices.indexed(&name.to_string()), &self.node))
    }

    async fn keep_house(&mut self) -> Result<()> {
        self.complain(self.backend.complaints());
        let intact = self.backend.keep_house().await?;
        self.config.metrics.backends.set(self.backend.backends() as i64);
        if !intact || node_addresses(&self.config.node_addresses)? != self.addresses {
            self.sources.dirty.add_all();
        }
        Ok(())
    }

    fn look_at_node(&mut self) -> Result<()> {
        let addresses = node_addresses(&self.config.node_addresses)?;
        let config = &self.config;
        let node_ports = config.options.node_port_addresses(&addresses, &config.node_addresses);
        self.backend.set_addresses(config, &addresses, &node_ports)?;
        self.node.node_port_addresses = node_ports;
        self.addresses = addresses;
        self.node.zone = zone(self.sources.nodes.get("", &self.config.node_name).as_deref());
        Ok(())
    }
}
