//! The difference between what should be in the maps and what is, as an ordered list of writes. Pure.
//!
//! The reconciler keeps a copy of the maps (`model`), changed only by writes that succeeded. A plan that fails half
//! way is thrown away, and the next one for the same services starts from the truth; what a service still has to get
//! rid of is kept in its [`Claim`] until a plan is [`done`](Reconciler::done).
//!
//! Order of a plan: backends, affinity, tables of hashes, slots, source ranges, sets (their counts make slots visible), frontends; then
//! frontends that go, surplus slots. Sets and backends without users go last of all, after a grace period.

mod arrange;
mod claim;
mod ids;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use skep_ebpf_abi::Addr;
use skep_ebpf_abi::service::{AffinityMatch, FrontendKey, SlotKey, SourceRange};
use skep_ebpf_loader::sockets::Gone;
use skep_ebpf_loader::tables::{Change, RangeKey, Tables};
use tokio::time::Instant;

use crate::names::ServiceName;
use claim::Claim;
use ids::Ids;
pub use plan::Plan;

/// How long a set or a backend without users stays: a program that has just read its number must still find it.
const GRACE: Duration = Duration::from_secs(10);

/// How many sets have tables of hashes at most: each takes 72 KiB of the kernel's memory.
pub(crate) const TABLES: usize = 512;

/// The owner of the model and of all ids.
#[derive(Debug, Default)]
pub struct Reconciler {
    model: Tables,
    ids: Ids,
    services: BTreeMap<Arc<ServiceName>, Claim>,
    owners: BTreeMap<FrontendKey, Arc<ServiceName>>,
    /// Services that want a frontend another one has.
    waiting: BTreeMap<FrontendKey, BTreeSet<Arc<ServiceName>>>,
    /// How many slots name a backend.
    uses: BTreeMap<u32, u32>,
    /// How many frontends name a set.
    references: BTreeMap<u32, u32>,
    /// Backends that no slot names, and since when.
    retiring: BTreeMap<u32, Instant>,
    /// Sets that no service has any more, and since when.
    doomed: BTreeMap<u32, Instant>,
    /// Of whom the tables of hashes in the maps are, as far as that is known.
    hashed: BTreeMap<u32, u64>,
    /// How many tables of hashes there may be.
    table_limit: usize,
}

/// What is left to do when all writes of a plan are done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Backends whose sockets must be destroyed.
    pub gone: Vec<Gone>,
    /// Services that can have a frontend which is free now: to be planned next.
    pub again: BTreeSet<ServiceName>,
}

impl Reconciler {
    /// Starts from what is in the maps: ids that are in use stay.
    pub fn restore(tables: Tables, table_limit: usize, now: Instant) -> Self {
        let (mut uses, mut references) = (BTreeMap::<u32, u32>::new(), BTreeMap::<u32, u32>::new());
        for backend in tables.slots.values() {
            *uses.entry(*backend).or_default() += 1;
        }
        for set in tables.frontends.values().flat_map(|value| [value.external_set, value.internal_set]) {
            *references.entry(set).or_default() += 1;
        }
        let retiring =
            tables.backends.keys().filter(|id| !uses.contains_key(id)).map(|id| (*id, now)).collect();
        Self {
            ids: Ids::restore(&tables),
            uses,
            references,
            retiring,
            model: tables,
            table_limit,
            ..Self::default()
        }
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
            Change::PutBackend(id, _) => {
                self.ids.is_in_maps(*id);
                if !self.uses.contains_key(id) {
                    self.retiring.insert(*id, now);
                }
            }
            Change::RemoveBackend(id) => {
                self.retiring.remove(id);
                self.ids.forget_backend(*id, &self.model);
            }
            Change::PutFrontend(key, value) => {
                self.unrefer(key);
                for set in [value.external_set, value.internal_set] {
                    *self.references.entry(set).or_default() += 1;
                }
            }
            Change::RemoveFrontend(key) => self.unrefer(key),
            Change::PutTable(set, table) => drop(self.hashed.insert(*set, table.members())),
            Change::RemoveTable(set) => drop(self.hashed.remove(set)),
            _ => {}
        }
        self.model.apply(change);
    }

    /// Notes a write that was refused: of a table of hashes a part may be there.
    pub fn refused(&mut self, change: &Change) {
        if let Change::PutTable(set, _) | Change::RemoveTable(set) = change {
            self.hashed.remove(set);
            // No table has this digest but by a chance of one to many.
            self.model.hashed.insert(*set, u64::MAX);
        }
    }

    fn release(&mut self, backend: u32, now: Instant) {
        if count_down(&mut self.uses, backend) {
            self.retiring.insert(backend, now);
        }
    }

    fn unrefer(&mut self, key: &FrontendKey) {
        if let Some(before) = self.model.frontends.get(key) {
            count_down(&mut self.references, before.external_set);
            count_down(&mut self.references, before.internal_set);
        }
    }

    /// To be called when every write of the plan is done.
    pub fn done(&mut self, plan: &Plan) -> Done {
        let mut done = Done::default();
        for name in &plan.services {
            let Some(claim) = self.services.get_mut(name) else { continue };
            done.gone.extend(std::mem::take(&mut claim.gone));
            for key in std::mem::take(&mut claim.closing) {
                if !self.owners.contains_key(&key) {
                    let waiting = self.waiting.remove(&key).into_iter().flatten();
                    done.again.extend(waiting.map(|name| ServiceName::clone(&name)));
                }
            }
            if claim.is_nothing() {
                self.services.remove(name);
            }
        }
        done.gone.retain(|gone| !self.serves(gone));
        done.gone.sort_unstable();
        done.gone.dedup();
        done
    }

    /// Whether a service's set holds the backend (again).
    pub fn serves(&self, gone: &Gone) -> bool {
        !self.doomed.contains_key(&gone.set)
            && self.members(gone.set).any(|id| {
                self.model.backends.get(&id).is_some_and(|backend| {
                    backend.addr == gone.addr
                        && backend.port_be == gone.port_be
                        && backend.protocol == gone.protocol
                })
            })
    }

    /// Removes the sets and backends whose grace period is over.
    pub fn expire(&mut self, now: Instant) -> Vec<Change> {
        let is_over = |since: &Instant| now.duration_since(*since) >= GRACE;
        let mut changes = Vec::new();
        let mut clean = Vec::new();
        // A frontend of another service may still lead to a set, if its own plan has failed.
        for id in self.doomed.iter().filter(|(_, since)| is_over(since)).map(|(id, _)| *id) {
            if !self.references.contains_key(&id) {
                let before = changes.len();
                self.remove_set(id, &mut changes);
                clean.extend((changes.len() == before).then_some(id));
            }
        }
        for id in clean {
            self.doomed.remove(&id);
            self.ids.forget_set(id);
        }
        let over = self.retiring.iter().filter(|(_, since)| is_over(since));
        changes.extend(over.map(|(id, _)| Change::RemoveBackend(*id)));
        changes
    }

    /// Everything there is of a set.
    fn remove_set(&self, id: u32, changes: &mut Vec<Change>) {
        changes.extend(self.model.sets.contains_key(&id).then_some(Change::RemoveSet(id)));
        changes.extend(self.model.slots.range(slots_of(id)).map(|(key, _)| Change::RemoveSlot(*key)));
        changes.extend(self.model.hashed.contains_key(&id).then_some(Change::RemoveTable(id)));
        changes.extend(self.model.affinity.range(affinity_of(id)).map(|key| Change::RemoveAffinity(*key)));
        changes.extend(self.model.ranges.range(ranges_of(id)).map(|key| Change::RemoveRange(*key)));
    }

    /// Closes the frontends that no service claims, and dooms such sets: leftovers of services that went while nobody
    /// looked. Only to be called when every source has synced and every service has been planned.
    pub fn prune(&mut self, now: Instant) -> Vec<Change> {
        let frontends = self.model.frontends.keys().filter(|key| !self.owners.contains_key(key));
        let mut changes: Vec<Change> = frontends.map(|key| Change::RemoveFrontend(*key)).collect();
        let surplus = self.model.slots.keys().filter(|key| {
            self.ids.is_claimed(key.set)
                && self.model.sets.get(&key.set).is_none_or(|set| key.slot > set.count)
        });
        changes.extend(surplus.map(|key| Change::RemoveSlot(*key)));
        for id in self.ids.claim_rest() {
            self.doomed.insert(id, now);
        }
        changes
    }

    /// A backend as one that has left every set.
    pub fn gone_from_any(&self, id: u32) -> Option<Gone> {
        let backend = self.model.backends.get(&id)?;
        Some(Gone {
            set: Gone::ANY_SET,
            addr: backend.addr,
            port_be: backend.port_be,
            protocol: backend.protocol,
        })
    }

    /// The services that are known.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &ServiceName> {
        self.services.keys().map(AsRef::as_ref)
    }

    /// What is in the maps.
    pub fn model(&self) -> &Tables {
        &self.model
    }

    /// The backends in a set's slots.
    fn members(&self, set: u32) -> impl Iterator<Item = u32> + '_ {
        let count = self.model.sets.get(&set).map_or(0, |set| set.count);
        let slots = SlotKey { set, slot: 1 }..SlotKey { set, slot: count.saturating_add(1) };
        self.model.slots.range(slots).map(|(_, id)| *id)
    }
}

/// Takes one; whether it was the last.
fn count_down(counts: &mut BTreeMap<u32, u32>, id: u32) -> bool {
    let Some(count) = counts.get_mut(&id) else { return false };
    *count -= 1;
    let is_last = *count == 0;
    if is_last {
        counts.remove(&id);
    }
    is_last
}

/// Every key that can be a set's.
fn slots_of(set: u32) -> RangeInclusive<SlotKey> {
    SlotKey { set, slot: 0 }..=SlotKey { set, slot: u32::MAX }
}

/// Every range that can be a set's.
fn ranges_of(set: u32) -> RangeInclusive<RangeKey> {
    let end = |words, bits| RangeKey { range: SourceRange { set, addr: Addr::v6([words; 4]) }, bits };
    end(0, 0)..=end(u32::MAX, u32::MAX)
}

/// Every key that can be a set's.
fn affinity_of(set: u32) -> RangeInclusive<AffinityMatch> {
    AffinityMatch { set, backend: 0 }..=AffinityMatch { set, backend: u32::MAX }
}
