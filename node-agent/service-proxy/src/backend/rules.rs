//! The two back ends that write packet filter rules: which fragments are in the kernel, and what to do about it.

use std::collections::{BTreeMap, BTreeSet};

use super::Synced;
use crate::desired::ServiceTables;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::names::ServiceName;
use crate::rules::Ground;
use crate::rules::conntrack::{self, Stale};
use crate::rules::owners::Owners;

/// How rules are spelled and brought into the kernel.
pub(crate) trait Dialect {
    /// What one owner has in the kernel.
    type Fragment: Clone + Default + PartialEq;

    /// What there is without any service.
    fn ground(&self, ground: &Ground) -> Self::Fragment;

    /// What a service has.
    fn service(&self, tables: &ServiceTables, ground: &Ground) -> Self::Fragment;

    /// Brings differences in; on an error the kernel may hold anything.
    async fn partial(
        &mut self,
        changes: &[(&Self::Fragment, &Self::Fragment)],
        services: &BTreeMap<ServiceName, Self::Fragment>,
        ground: &Self::Fragment,
    ) -> Result<()>;

    /// Makes the kernel hold just this.
    async fn full(
        &mut self,
        services: &BTreeMap<ServiceName, Self::Fragment>,
        ground: &Self::Fragment,
    ) -> Result<()>;

    /// Deletes what was put off; says whether everything is still in place.
    async fn keep_house(&mut self, metrics: &Metrics) -> Result<bool>;
}

/// The owner of all rules.
pub(crate) struct Engine<D: Dialect> {
    dialect: D,
    ground: Ground,
    base: D::Fragment,
    fragments: BTreeMap<ServiceName, D::Fragment>,
    tables: BTreeMap<ServiceName, ServiceTables>,
    owners: Owners,
    /// What the last changes may have made stale, until they are in the kernel.
    stale: Stale,
    /// Who waits for an address that the last changes free.
    again: BTreeSet<ServiceName>,
    /// Whether the kernel holds the fragments; after an error nobody knows.
    is_known: bool,
    metrics: Metrics,
}

impl<D: Dialect> Engine<D> {
    pub(crate) fn new(dialect: D, metrics: Metrics) -> Self {
        Self {
            dialect,
            ground: Ground::default(),
            base: D::Fragment::default(),
            fragments: BTreeMap::new(),
            tables: BTreeMap::new(),
            owners: Owners::default(),
            stale: Stale::default(),
            again: BTreeSet::new(),
            is_known: false,
            metrics,
        }
    }

    pub(crate) fn services(&self) -> impl ExactSizeIterator<Item = &ServiceName> {
        self.tables.keys()
    }

    pub(crate) fn backends(&self) -> usize {
        let sets = self.tables.values().flat_map(|tables| tables.sets.values());
        sets.flat_map(|set| &set.backends).collect::<BTreeSet<_>>().len()
    }

    /// Takes a new ground: every service may read differently on it.
    pub(crate) fn set_ground(&mut self, ground: Ground) {
        if self.ground != ground {
            self.ground = ground;
            self.is_known = false;
        }
    }

    /// Brings services in.
    pub(crate) async fn sync(
        &mut self,
        wanted: BTreeMap<ServiceName, Option<ServiceTables>>,
    ) -> Result<Synced> {
        let settled = self.owners.settle(wanted);
        self.again.extend(settled.again);
        let mut before = BTreeMap::new();
        for (name, tables) in settled.tables {
            self.stale.note(self.tables.get(&name), tables.as_ref(), !self.is_known);
            let old = match &tables {
                Some(tables) => {
                    let fragment = self.dialect.service(tables, &self.ground);
                    self.fragments.insert(name.clone(), fragment)
                }
                None => self.fragments.remove(&name),
            };
            before.insert(name.clone(), old.unwrap_or_default());
            match tables {
                Some(tables) => drop(self.tables.insert(name, tables)),
                None => drop(self.tables.remove(&name)),
            }
        }
        self.write(&before).await?;
        let stale = std::mem::take(&mut self.stale);
        if !stale.is_empty() {
            let deleted = tokio::task::spawn_blocking(move || conntrack::delete(&stale)).await;
            match deleted {
                Ok(Ok(count)) => drop(self.metrics.conntrack_deleted.inc_by(count as u64)),
                Ok(Err(error)) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "stale connections");
                }
                Err(error) => tracing::error!(%error, "the search for stale connections broke off"),
            }
        }
        Ok(Synced {
            again: std::mem::take(&mut self.again),
            contested: settled.contested,
            ..Synced::default()
        })
    }

    async fn write(&mut self, before: &BTreeMap<ServiceName, D::Fragment>) -> Result<()> {
        let started = tokio::time::Instant::now();
        if self.is_known {
            let nothing = D::Fragment::default();
            let changes: Vec<(&D::Fragment, &D::Fragment)> = before
                .iter()
                .map(|(name, old)| (old, self.fragments.get(name).unwrap_or(&nothing)))
                .filter(|(old, new)| old != new)
                .collect();
            if changes.is_empty() {
                return Ok(());
            }
            match self.dialect.partial(&changes, &self.fragments, &self.base).await {
                Ok(()) => {
                    self.metrics.partial_sync_seconds.observe(started.elapsed().as_secs_f64());
                    return Ok(());
                }
                Err(error) => {
                    // Whatever the kernel holds now, the whole of it will be right again.
                    self.metrics.partial_failures.inc();
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a change of rules failed; writing all"
                    );
                }
            }
        }
        self.is_known = false;
        self.base = self.dialect.ground(&self.ground);
        for (name, tables) in &self.tables {
            self.fragments.insert(name.clone(), self.dialect.service(tables, &self.ground));
        }
        if let Err(error) = self.dialect.full(&self.fragments, &self.base).await {
            self.metrics.rule_failures.inc();
            return Err(error);
        }
        self.is_known = true;
        Ok(())
    }

    /// Whether everything must be written again: somebody removed rules of ours.
    pub(crate) async fn keep_house(&mut self) -> Result<bool> {
        let intact = self.dialect.keep_house(&self.metrics).await?;
        if !intact && self.is_known {
            tracing::warn!("rules of ours are gone; writing all again");
            self.is_known = false;
        }
        Ok(self.is_known)
    }
}
