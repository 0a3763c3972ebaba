//! The difference between what should be in the maps and what is, as an ordered list of writes. Pure.
//!
//! The reconciler keeps a copy of the maps (`model`), changed only by writes that succeeded. A plan that fails half
//! way is thrown away, and the next one starts from the truth.
//!
//! Order of a plan: backends, affinity, slots, source ranges, sets (their counts make slots visible), frontends; then
//! frontends that go, surplus slots, the rest. A backend's own entry goes last of all, after a grace period.

mod arrange;
mod ids;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skep_ebpf_abi::service::FrontendKey;
use skep_ebpf_loader::tables::{Change, Tables};
use tokio::time::Instant;

use crate::desired::ServiceTables;
use crate::names::ServiceName;
use ids::Ids;
pub use plan::Plan;

/// How long the entry of a backend without users stays: a program that has just read its id must still find it.
const BACKEND_GRACE: Duration = Duration::from_secs(10);

/// The owner of the model and of all ids.
#[derive(Debug, Default)]
pub struct Reconciler {
    model: Tables,
    ids: Ids,
    services: BTreeMap<ServiceName, ServiceTables>,
    owners: BTreeMap<FrontendKey, ServiceName>,
    /// Services that want a frontend another one has.
    waiting: BTreeMap<FrontendKey, BTreeSet<ServiceName>>,
    /// How many slots name a backend.
    uses: BTreeMap<u32, u32>,
    /// Backends that no slot names, and since when.
    retiring: BTreeMap<u32, Instant>,
}

impl Reconciler {
    /// Starts from what is in the maps: ids that are in use stay.
    pub fn restore(tables: Tables, now: Instant) -> Self {
        let mut uses: BTreeMap<u32, u32> = BTreeMap::new();
        for backend in tables.slots.values() {
            *uses.entry(*backend).or_default() += 1;
        }
        let retiring =
            tables.backends.keys().filter(|id| !uses.contains_key(id)).map(|id| (*id, now)).collect();
        Self { ids: Ids::restore(&tables), uses, retiring, model: tables, ..Self::default() }
    }

    /// Notes a write that succeeded.
    pub fn applied(&mut self, change: &Change, now: Instant) {
        match change {
            Change::PutSlot(key, id) => {
                if let Some(before) = self.model.slots.get(key).copied() {
                    self.release(before, now);
                }
                *self.uses.entry(*id).or_default() += 1;
                self.retiring.remove(id);
            }
            Change::RemoveSlot(key) => {
                if let Some(before) = self.model.slots.get(key).copied() {
                    self.release(before, now);
                }
            }
            Change::PutBackend(id, _) if !self.uses.contains_key(id) => drop(self.retiring.insert(*id, now)),
            Change::RemoveBackend(id) => {
                self.retiring.remove(id);
                self.ids.forget_backend(*id);
            }
            Change::RemoveSet(id) => self.ids.forget_set(*id),
            _ => {}
        }
        self.model.apply(change);
    }

    fn release(&mut self, backend: u32, now: Instant) {
        if let Some(uses) = self.uses.get_mut(&backend) {
            *uses -= 1;
            if *uses == 0 {
                self.uses.remove(&backend);
                self.retiring.insert(backend, now);
            }
        }
    }

    /// The entries of backends whose grace period is over.
    pub fn expire(&self, now: Instant) -> Vec<Change> {
        let over = self.retiring.iter().filter(|(_, since)| now.duration_since(**since) >= BACKEND_GRACE);
        over.map(|(id, _)| Change::RemoveBackend(*id)).collect()
    }

    /// What no service claims: leftovers of services that went while nobody looked. Only to be called when every
    /// source has synced and every service has been planned.
    pub fn prune(&self) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        let frontends = self.model.frontends.keys().filter(|key| !self.owners.contains_key(key));
        changes.extend(frontends.map(|key| Change::RemoveFrontend(*key)));
        let is_named = |set: &u32| self.ids.is_named(*set);
        changes
            .extend(self.model.sets.keys().filter(|set| !is_named(set)).map(|set| Change::RemoveSet(*set)));
        let surplus = self.model.slots.keys().filter(|key| {
            !is_named(&key.set) || self.model.sets.get(&key.set).is_none_or(|set| key.slot > set.count)
        });
        changes.extend(surplus.map(|key| Change::RemoveSlot(*key)));
        let affinity = self.model.affinity.iter().filter(|key| !is_named(&key.set));
        changes.extend(affinity.map(|key| Change::RemoveAffinity(*key)));
        let ranges = self.model.ranges.iter().filter(|key| !is_named(&key.range.set));
        changes.extend(ranges.map(|key| Change::RemoveRange(*key)));
        changes
    }

    /// The services that are known.
    pub fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys()
    }

    /// What is in the maps.
    pub fn model(&self) -> &Tables {
        &self.model
    }
}
