//! The numbers of sets and backends.

use std::collections::{BTreeMap, BTreeSet};

use skep_ebpf_loader::tables::Tables;

use crate::names::{BackendName, SetName};

/// Names to numbers. Zero is never given, so that it can mean "none".
#[derive(Debug, Default)]
pub(super) struct Ids {
    sets: BTreeMap<SetName, u32>,
    set_names: BTreeMap<u32, SetName>,
    used_sets: BTreeSet<u32>,
    backends: BTreeMap<BackendName, u32>,
    backend_names: BTreeMap<u32, BackendName>,
    last_set: u32,
    last_backend: u32,
}

impl Ids {
    /// Backends are named by what they are; sets are adopted later, through the frontends that use them.
    pub(super) fn restore(tables: &Tables) -> Self {
        let mut ids = Self::default();
        for (id, backend) in &tables.backends {
            let name = BackendName {
                addr: backend.addr,
                port: u16::from_be(backend.port_be),
                protocol: backend.protocol,
            };
            ids.backends.entry(name).or_insert(*id);
            ids.backend_names.insert(*id, name);
        }
        let named =
            tables.frontends.values().flat_map(|frontend| [frontend.external_set, frontend.internal_set]);
        let in_slots = tables.slots.keys().map(|key| key.set);
        ids.used_sets = tables.sets.keys().copied().chain(named).chain(in_slots).collect();
        ids.last_set = ids.used_sets.last().copied().unwrap_or(0);
        ids.last_backend = tables.backends.keys().last().copied().unwrap_or(0);
        ids
    }

    /// The set's number if it has one.
    pub(super) fn known_set(&self, name: &SetName) -> Option<u32> {
        self.sets.get(name).copied()
    }

    /// Gives a set that is in the maps its name; a number has one name only.
    pub(super) fn adopt_set(&mut self, name: &SetName, id: u32) {
        if id != 0 && !self.sets.contains_key(name) && !self.set_names.contains_key(&id) {
            self.name_set(name, id);
        }
    }

    /// The set's number, made if need be.
    pub(super) fn set(&mut self, name: &SetName) -> u32 {
        if let Some(id) = self.known_set(name) {
            return id;
        }
        let id = next_free(&mut self.last_set, |id| self.used_sets.contains(&id));
        self.name_set(name, id);
        id
    }

    fn name_set(&mut self, name: &SetName, id: u32) {
        self.sets.insert(name.clone(), id);
        self.set_names.insert(id, name.clone());
        self.used_sets.insert(id);
    }

    /// Whether a service claims the set.
    pub(super) fn is_named(&self, id: u32) -> bool {
        self.set_names.contains_key(&id)
    }

    /// The set is in the maps no more.
    pub(super) fn forget_set(&mut self, id: u32) {
        self.used_sets.remove(&id);
        if let Some(name) = self.set_names.remove(&id) {
            self.sets.remove(&name);
        }
    }

    /// The backend's number, made if need be.
    pub(super) fn backend(&mut self, name: BackendName) -> u32 {
        if let Some(id) = self.backends.get(&name) {
            return *id;
        }
        let id = next_free(&mut self.last_backend, |id| self.backend_names.contains_key(&id));
        self.backends.insert(name, id);
        self.backend_names.insert(id, name);
        id
    }

    /// The backend's name.
    pub(super) fn backend_name(&self, id: u32) -> Option<BackendName> {
        self.backend_names.get(&id).copied()
    }

    /// The backend is in the maps no more.
    pub(super) fn forget_backend(&mut self, id: u32) {
        if let Some(name) = self.backend_names.remove(&id)
            && self.backends.get(&name) == Some(&id)
        {
            self.backends.remove(&name);
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
