//! The eBPF back end: the tables become writes to the programs' maps.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skep_ebpf_abi::UDP;
use skep_ebpf_abi::conntrack::Timeouts;
use skep_ebpf_loader::DataPlane;
use skep_ebpf_loader::sockets::Gone;
use skep_ebpf_loader::tables::Change;
use tokio::time::Instant;

use super::{Synced, uplinks};
use crate::desired::ServiceTables;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::names::ServiceName;
use crate::options::TimeoutOptions;
use crate::reconcile::{Reconciler, TABLES};
use crate::run::ProxyConfig;
use crate::timeouts;

/// Writes before other tasks get their turn: about a millisecond.
const WRITES_A_TURN: usize = 4096;

/// The owner of the maps of services.
pub(crate) struct Ebpf {
    pub(super) plane: Arc<DataPlane>,
    pub(super) reconciler: Reconciler,
    /// How much the maps can hold that can grow.
    pub(super) limits: BTreeMap<&'static str, u32>,
    attach_uplinks: bool,
    netns_dir: PathBuf,
    timeouts: TimeoutOptions,
    /// What the programs were told last.
    told: Option<Timeouts>,
    /// Whether what nobody claims has been removed once since the start.
    pruned: bool,
    pub(super) metrics: Metrics,
}

impl Ebpf {
    /// Reads the maps, so that ids in use stay.
    pub(crate) fn new(plane: Arc<DataPlane>, config: &ProxyConfig) -> Result<Self> {
        let reconciler = Reconciler::restore(plane.services().read()?, TABLES, Instant::now());
        if !config.keep_source.is_empty() {
            let networks = config.keep_source.iter().map(|net| (net.network(), net.prefix_len()));
            plane.set_masquerade(&networks.collect::<Vec<_>>())?;
        }
        let limits = plane.limits()?;
        let mut made = Self {
            plane,
            reconciler,
            limits,
            attach_uplinks: config.attach_uplinks,
            netns_dir: config.netns_dir.clone(),
            timeouts: config.options.timeouts,
            told: None,
            pruned: false,
            metrics: config.metrics.clone(),
        };
        made.tell_timeouts()?;
        Ok(made)
    }

    /// Follows the sysctls.
    fn tell_timeouts(&mut self) -> Result<()> {
        let timeouts = timeouts::current(&self.timeouts);
        if self.told != Some(timeouts) {
            self.plane.set_timeouts(timeouts)?;
            self.told = Some(timeouts);
        }
        Ok(())
    }

    pub(crate) fn services(&self) -> impl ExactSizeIterator<Item = &ServiceName> {
        self.reconciler.services()
    }

    pub(crate) fn backends(&self) -> usize {
        self.reconciler.model().backends.len()
    }

    pub(crate) fn set_addresses(&self, addresses: &[IpAddr]) -> Result<()> {
        self.plane.set_node_addresses(addresses)?;
        if self.attach_uplinks {
            for ifindex in uplinks::find()? {
                self.plane.attach_uplink(ifindex)?;
            }
        }
        Ok(())
    }

    /// What does not run as it was chosen.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.plane.xdp_complaints()
    }

    /// Brings services into the maps. When they do not all fit, each is tried by itself, so that one without room
    /// does not keep the others from losing a dead endpoint.
    pub(crate) async fn sync(
        &mut self,
        wanted: &BTreeMap<ServiceName, Option<ServiceTables>>,
    ) -> Result<Synced> {
        let mut synced = Synced::default();
        match self.bring_in(wanted, &mut synced).await {
            Err(error) if error.is_full() => {}
            done => return done.map(|()| synced),
        }
        // Those that go make room for those that come.
        let (going, coming): (Vec<_>, Vec<_>) = wanted.iter().partition(|(_, tables)| tables.is_none());
        for (name, tables) in going.into_iter().chain(coming) {
            let one = BTreeMap::from([(name.clone(), tables.clone())]);
            match self.bring_in(&one, &mut synced).await {
                Err(error) if error.is_full() => synced.refused.push((name.clone(), error)),
                done => done?,
            }
        }
        Ok(synced)
    }

    async fn bring_in(
        &mut self,
        wanted: &BTreeMap<ServiceName, Option<ServiceTables>>,
        synced: &mut Synced,
    ) -> Result<()> {
        let plan = loop {
            let plan = self.reconciler.plan(wanted, Instant::now());
            match self.apply(&plan.changes).await {
                Ok(()) => break plan,
                Err(error) if self.make_more(&error).await? => {}
                Err(error) => return Err(error),
            }
        };
        synced.contested.extend(plan.contested.iter().cloned());
        synced.without_table.extend(plan.without_table.iter().cloned());
        let done = self.reconciler.done(&plan);
        synced.again.extend(done.again);
        self.destroy(done.gone).await;
        Ok(())
    }

    /// Removes what no service claims, once, when every service has been brought in.
    pub(crate) async fn prune(&mut self) -> Result<()> {
        if self.pruned {
            return Ok(());
        }
        let leftovers = self.reconciler.prune(Instant::now());
        self.apply(&leftovers).await?;
        // Nobody has looked after the sockets since the last agent went.
        let reached = self.plane.translated()?.into_iter();
        let stale = reached.filter(|to| !self.reconciler.serves(to)).collect();
        self.destroy(stale).await;
        self.pruned = true;
        Ok(())
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<()> {
        for chunk in changes.chunks(WRITES_A_TURN) {
            let (done, result) = self.plane.services().apply_all(chunk);
            let now = Instant::now();
            for change in chunk.iter().take(done) {
                self.reconciler.applied(change, now);
            }
            self.metrics.writes.inc_by(done as u64);
            if let (Err(_), Some(change)) = (&result, chunk.get(done)) {
                self.reconciler.refused(change);
            }
            result?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn destroy(&self, gone: Vec<Gone>) {
        if gone.is_empty() {
            return;
        }
        let (plane, folder) = (Arc::clone(&self.plane), self.netns_dir.clone());
        let visit = tokio::task::spawn_blocking(move || {
            (plane.forget_flows(&gone), plane.destroy_sockets(&gone, &namespaces(&folder)))
        });
        let (forgotten, destroyed) = match visit.await {
            Ok(found) => found,
            Err(error) => {
                return tracing::error!(%error, "the search for sockets of gone backends broke off");
            }
        };
        match forgotten {
            Ok(flows) => drop(self.metrics.conntrack_deleted.inc_by(flows as u64)),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "flows to gone backends"),
        }
        match destroyed {
            Ok(destroyed) => {
                self.metrics.destroyed_sockets.inc_by(destroyed.sockets as u64);
                for error in &destroyed.failures {
                    // The namespace went with its pod, most often; its sockets went with it.
                    tracing::debug!(
                        error = error as &dyn std::error::Error,
                        "looking for sockets of gone backends"
                    );
                }
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "sockets to gone backends");
            }
        }
    }

    pub(crate) async fn keep_house(&mut self) -> Result<()> {
        self.tell_timeouts()?;
        let expired = self.reconciler.expire(Instant::now());
        // A program that had read the backend's id when it left may have connected a socket after the search.
        let late = expired.iter().filter_map(|change| match change {
            Change::RemoveBackend(id) => self.reconciler.gone_from_any(*id),
            _ => None,
        });
        // TCP finds out by itself, and may still be served by an endpoint that is about to end.
        let late = late.filter(|gone| gone.protocol == UDP).collect();
        self.destroy(late).await;
        self.apply(&expired).await?;
        let plane = Arc::clone(&self.plane);
        // A walk through all flows.
        match tokio::task::spawn_blocking(move || plane.collect_flows()).await {
            Ok(counts) => self.watch_room(&counts?).await,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

/// The pods' namespaces there are now; the folder is made by the first pod.
fn namespaces(folder: &Path) -> Vec<PathBuf> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(std::result::Result::ok).map(|entry| entry.path()).collect(),
        Err(error) => {
            tracing::debug!(folder = %folder.display(), %error, "no network namespaces of pods");
            Vec::new()
        }
    }
}
