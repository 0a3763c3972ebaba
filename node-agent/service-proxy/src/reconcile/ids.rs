//! The numbers of sets and backends.

use std::collections::{BTreeMap, BTreeSet};

use skep_ebpf_abi::service::Backend;
use skep_ebpf_loader::tables::Tables;

use crate::names::BackendName;

/// Numbers in use. Zero is never given, so that it can mean "none".
#[derive(Debug, Default)]
pub(super) struct Ids {
    backends: BTreeMap<BackendName, u32>,
    /// Those with a number whose entry is not in the maps yet.
    planned: BTreeMap<u32, BackendName>,
    /// Sets in the maps that no service has claimed yet.
    unclaimed: BTreeSet<u32>,
    /// Sets that a service claims.
    claimed: BTreeSet<u32>,
    last_set: u32,
    last_backend: u32,
}

fn name_of(backend: &Backend) -> BackendName {
    BackendName { addr: backend.addr, port: u16::from_be(backend.port_be), protocol: backend.protocol }
}

impl Ids {
    /// Backends are named by what they are; sets are claimed later, through the frontends that use them.
    pub(super) fn restore(tables: &Tables) -> Self {
        let mut ids = Self::default();
        for (id, backend) in &tables.backends {
            ids.backends.entry(name_of(backend)).or_insert(*id);
        }
        let named =
            tables.frontends.values().flat_map(|frontend| [frontend.external_set, frontend.internal_set]);
        let in_slots = tables.slots.keys().map(|key| key.set);
        // An agent that died in the middle of a plan may have written these and nothing else of a set.
        let with_ranges = tables.ranges.iter().map(|key| key.range.set);
        let with_affinity = tables.affinity.iter().map(|key| key.set);
        let with_tables = tables.hashed.keys().copied();
        ids.unclaimed = tables
            .sets
            .keys()
            .copied()
            .chain(named)
            .chain(in_slots)
            .chain(with_ranges)
            .chain(with_affinity)
            .chain(with_tables)
            .collect();
        ids.last_set = ids.unclaimed.last().copied().unwrap_or(0);
        ids.last_backend = tables.backends.keys().last().copied().unwrap_or(0);
        ids
    }

    /// Claims a set that is in the maps; whether it was free to be claimed.
    pub(super) fn adopt_set(&mut self, id: u32) -> bool {
        id != 0 && self.unclaimed.remove(&id) && self.claimed.insert(id)
    }

    /// A number for a new set.
    pub(super) fn new_set(&mut self) -> u32 {
        let (claimed, unclaimed) = (&self.claimed, &self.unclaimed);
        let id = next_free(&mut self.last_set, |id| claimed.contains(&id) || unclaimed.contains(&id));
        self.claimed.insert(id);
        id
    }

    /// Claims all that nobody has claimed.
    pub(super) fn claim_rest(&mut self) -> BTreeSet<u32> {
        let rest = std::mem::take(&mut self.unclaimed);
        self.claimed.extend(&rest);
        rest
    }

    /// Whether a service claims the set.
    pub(super) fn is_claimed(&self, id: u32) -> bool {
        self.claimed.contains(&id)
    }

    /// Nothing of the set is in the maps any more.
    pub(super) fn forget_set(&mut self, id: u32) {
        self.claimed.remove(&id);
    }

    /// The backend's number, made if need be.
    pub(super) fn backend(&mut self, name: BackendName, model: &Tables) -> u32 {
        if let Some(id) = self.backends.get(&name) {
            return *id;
        }
        let planned = &self.planned;
        let is_used = |id| planned.contains_key(&id) || model.backends.contains_key(&id);
        let id = next_free(&mut self.last_backend, is_used);
        self.backends.insert(name, id);
        self.planned.insert(id, name);
        id
    }

    /// The backend's name.
    pub(super) fn backend_name(&self, id: u32, model: &Tables) -> Option<BackendName> {
        model.backends.get(&id).map(name_of).or_else(|| self.planned.get(&id).copied())
    }

    /// The backend's entry is in the maps now.
    pub(super) fn is_in_maps(&mut self, id: u32) {
        self.planned.remove(&id);
    }

    /// Forgets numbers that a plan gave which came to nothing.
    pub(super) fn forget_planned(&mut self) {
        for (id, name) in std::mem::take(&mut self.planned) {
            self.forget(id, &name);
        }
    }

    /// The backend is about to be in the maps no more; `model` still has it.
    pub(super) fn forget_backend(&mut self, id: u32, model: &Tables) {
        if let Some(backend) = model.backends.get(&id) {
            self.forget(id, &name_of(backend));
        }
    }

    fn forget(&mut self, id: u32, name: &BackendName) {
        if self.backends.get(name) == Some(&id) {
            self.backends.remove(name);
        }
    }
}

/// The next number after `last` that is free. Counting on, rather than filling gaps, keeps a number unused as long
/// as possible after its owner went.
fn next_free(last: &mut u32, is_used: impl Fn(u32) -> bool) -> u32 {
    loop {
        *last = last.checked_add(1).unwrap_or(1);
        if !is_used(*last) {
            return *last;
        }
    }
}
