//! The eBPF back end: the tables become writes to the programs' maps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use skep_ebpf_loader::DataPlane;
use skep_ebpf_loader::tables::Change;
use tokio::time::Instant;

use super::uplinks;
use crate::desired::ServiceTables;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::names::ServiceName;
use crate::reconcile::Reconciler;

/// Writes before other tasks get their turn.
const WRITES_A_TURN: usize = 512;

/// The owner of the maps of services.
pub(crate) struct Ebpf {
    plane: Arc<DataPlane>,
    reconciler: Reconciler,
    attach_uplinks: bool,
    netns_dir: PathBuf,
    /// Whether what nobody claims has been removed once since the start.
    pruned: bool,
    metrics: Metrics,
}

impl Ebpf {
    /// Reads the maps, so that ids in use stay.
    pub(crate) fn new(
        plane: Arc<DataPlane>,
        keep_source: &[IpNet],
        attach_uplinks: bool,
        netns_dir: PathBuf,
        metrics: Metrics,
    ) -> Result<Self> {
        let reconciler = Reconciler::restore(plane.services().read()?, Instant::now());
        if !keep_source.is_empty() {
            let networks: Vec<(IpAddr, u8)> =
                keep_source.iter().map(|network| (network.network(), network.prefix_len())).collect();
            plane.set_masquerade(&networks)?;
        }
        Ok(Self { plane, reconciler, attach_uplinks, netns_dir, pruned: false, metrics })
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = &ServiceName> {
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

    /// Brings services into the maps. Returns those that can have an address now which another one let go.
    pub(crate) async fn sync(
        &mut self,
        wanted: BTreeMap<ServiceName, Option<ServiceTables>>,
    ) -> Result<BTreeSet<ServiceName>> {
        let plan = self.reconciler.plan(wanted);
        for (service, why) in &plan.contested {
            tracing::warn!(%service, why, "frontend refused");
        }
        self.apply(&plan.changes).await?;
        self.destroy(plan.gone).await;
        Ok(plan.again)
    }

    /// Removes what no service claims, once, when every service has been brought in.
    pub(crate) async fn prune(&mut self) -> Result<()> {
        if !self.pruned {
            let leftovers = self.reconciler.prune();
            self.apply(&leftovers).await?;
            self.pruned = true;
        }
        Ok(())
    }

    async fn apply(&mut self, changes: &[Change]) -> Result<()> {
        for chunk in changes.chunks(WRITES_A_TURN) {
            let now = Instant::now();
            for change in chunk {
                self.plane.services().apply(change)?;
                self.reconciler.applied(change, now);
                self.metrics.writes.inc();
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn destroy(&self, gone: Vec<skep_ebpf_loader::sockets::Gone>) {
        if gone.is_empty() {
            return;
        }
        let (plane, folder) = (Arc::clone(&self.plane), self.netns_dir.clone());
        let visit = tokio::task::spawn_blocking(move || {
            (plane.forget_flows(&gone), plane.destroy_sockets(&gone, &namespaces(&folder)))
        });
        match visit.await {
            Ok((forgotten, destroyed)) => {
                match forgotten {
                    Ok(flows) => drop(self.metrics.conntrack_deleted.inc_by(flows as u64)),
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "flows to gone backends");
                    }
                }
                self.metrics.destroyed_sockets.inc_by(destroyed.sockets as u64);
                for error in &destroyed.failures {
                    // The namespace went with its pod, most often; its sockets went with it.
                    tracing::debug!(
                        error = error as &dyn std::error::Error,
                        "looking for sockets of gone backends"
                    );
                }
            }
            Err(error) => tracing::error!(%error, "the search for sockets of gone backends broke off"),
        }
    }

    pub(crate) fn keep_house(&mut self) -> Result<()> {
        let now = Instant::now();
        for change in self.reconciler.expire(now) {
            self.plane.services().apply(&change)?;
            self.reconciler.applied(&change, now);
        }
        Ok(self.plane.collect_flows()?)
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
