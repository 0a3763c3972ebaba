//! Making a plan.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use skep_ebpf_abi::service::{AffinityMatch, Backend, Frontend, Set, SlotKey, SourceRange, backend, set};
use skep_ebpf_abi::{Addr, UDP};
use skep_ebpf_loader::sockets::Gone;
use skep_ebpf_loader::tables::{Change, RangeKey};

use super::Reconciler;
use super::arrange::arrange;
use crate::desired::{DesiredSet, ServiceTables};
use crate::names::{BackendName, ServiceName, SetName};

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Writes, in the order in which they must be done.
    pub changes: Vec<Change>,
    /// Backends whose sockets must be destroyed once the writes are done.
    pub gone: Vec<Gone>,
    /// Services that wait for a frontend which this plan frees: to be planned next.
    pub again: BTreeSet<ServiceName>,
    /// Frontends that were refused to a service because another has them.
    pub contested: Vec<(ServiceName, String)>,
}

/// The writes by phase, joined at the end.
#[derive(Default)]
struct Phases {
    backends: Vec<Change>,
    affinity: Vec<Change>,
    slots: Vec<Change>,
    ranges: Vec<Change>,
    sets: Vec<Change>,
    frontends: Vec<Change>,
    closing: Vec<Change>,
    trimming: Vec<Change>,
    removing: Vec<Change>,
    planned_backends: BTreeSet<u32>,
}

impl Phases {
    fn join(self) -> Vec<Change> {
        [
            self.backends,
            self.affinity,
            self.slots,
            self.ranges,
            self.sets,
            self.frontends,
            self.closing,
            self.trimming,
            self.removing,
        ]
        .concat()
    }
}

impl Reconciler {
    /// Plans for services whose tables should become these; `None` is a service that is gone. What was planned is
    /// remembered as wanted, so the same call with the same tables gives what is still missing.
    pub fn plan(&mut self, wanted: BTreeMap<ServiceName, Option<ServiceTables>>) -> Plan {
        let mut plan = Plan::default();
        let mut phases = Phases::default();
        let mut freed = BTreeSet::new();
        for (name, tables) in &wanted {
            let Some(before) = self.services.get(name) else { continue };
            for key in before.frontends.keys() {
                let keeps = tables.as_ref().is_some_and(|tables| tables.frontends.contains_key(key));
                if !keeps && self.owners.get(key) == Some(name) {
                    self.owners.remove(key);
                    freed.insert(*key);
                }
            }
        }
        for (name, tables) in wanted {
            self.plan_service(&name, tables, &mut phases, &mut plan);
        }
        for key in freed {
            if self.owners.contains_key(&key) {
                continue;
            }
            plan.again.extend(self.waiting.remove(&key).into_iter().flatten());
            if self.model.frontends.contains_key(&key) {
                phases.closing.push(Change::RemoveFrontend(key));
            }
        }
        plan.changes = phases.join();
        plan.gone.sort();
        plan.gone.dedup();
        plan
    }

    fn plan_service(
        &mut self,
        name: &ServiceName,
        tables: Option<ServiceTables>,
        phases: &mut Phases,
        plan: &mut Plan,
    ) {
        let tables_now = tables.clone().unwrap_or_default();
        self.adopt(&tables_now);
        let before = match tables {
            Some(tables) => self.services.insert(name.clone(), tables),
            None => self.services.remove(name),
        };
        for (set_name, set) in &tables_now.sets {
            self.plan_set(set_name, set, phases, plan);
        }
        self.plan_ranges(before.as_ref(), &tables_now, phases);
        for (key, frontend) in &tables_now.frontends {
            match self.owners.get(key) {
                Some(owner) if owner != name => {
                    self.waiting.entry(*key).or_default().insert(name.clone());
                    let address = skep_ebpf_loader::tables::socket_address(key.addr, key.port_be);
                    plan.contested.push((name.clone(), format!("{address} belongs to {owner}")));
                    continue;
                }
                _ => drop(self.owners.insert(*key, name.clone())),
            }
            let value = Frontend {
                external_set: self.ids.set(&frontend.external),
                internal_set: self.ids.set(&frontend.internal),
                flags: frontend.flags,
            };
            if self.model.frontends.get(key) != Some(&value) {
                phases.frontends.push(Change::PutFrontend(*key, value));
            }
        }
        for old in before.iter().flat_map(|before| before.sets.keys()) {
            if !tables_now.sets.contains_key(old) {
                self.remove_set(old, phases, plan);
            }
        }
    }

    /// After a restart: a frontend in the maps tells which number a set had.
    fn adopt(&mut self, tables: &ServiceTables) {
        for (key, frontend) in &tables.frontends {
            if let Some(known) = self.model.frontends.get(key) {
                self.ids.adopt_set(&frontend.external, known.external_set);
                self.ids.adopt_set(&frontend.internal, known.internal_set);
            }
        }
    }

    fn members(&self, id: u32) -> Vec<u32> {
        let count = self.model.sets.get(&id).map_or(0, |set| set.count);
        (1..=count).filter_map(|slot| self.model.slots.get(&SlotKey { set: id, slot }).copied()).collect()
    }

    fn plan_set(&mut self, name: &SetName, wanted: &DesiredSet, phases: &mut Phases, plan: &mut Plan) {
        let id = self.ids.set(name);
        let current = self.members(id);
        let mut wanted_ids = BTreeSet::new();
        for backend_name in &wanted.backends {
            let backend_id = self.ids.backend(*backend_name);
            wanted_ids.insert(backend_id);
            let value = Backend {
                addr: backend_name.addr,
                port_be: backend_name.port.to_be(),
                protocol: backend_name.protocol,
                state: backend::ACTIVE,
            };
            if self.model.backends.get(&backend_id) != Some(&value)
                && phases.planned_backends.insert(backend_id)
            {
                phases.backends.push(Change::PutBackend(backend_id, value));
            }
        }
        for (index, backend_id) in arrange(&current, &wanted_ids).into_iter().enumerate() {
            let key = SlotKey { set: id, slot: index as u32 + 1 };
            if self.model.slots.get(&key) != Some(&backend_id) {
                phases.slots.push(Change::PutSlot(key, backend_id));
            }
        }
        let count = wanted_ids.len() as u32;
        let value = Set {
            count,
            flags: if wanted.drop_when_empty { set::DROP_WHEN_EMPTY } else { 0 },
            affinity_seconds: wanted.affinity_seconds,
        };
        if self.model.sets.get(&id) != Some(&value) {
            phases.sets.push(Change::PutSet(id, value));
        }
        let surplus = SlotKey { set: id, slot: count + 1 }..=SlotKey { set: id, slot: u32::MAX };
        phases.trimming.extend(self.model.slots.range(surplus).map(|(key, _)| Change::RemoveSlot(*key)));
        self.plan_affinity(id, &wanted_ids, wanted.affinity_seconds > 0, phases);
        for backend_id in current.iter().filter(|backend_id| !wanted_ids.contains(backend_id)) {
            if let Some(backend_name) = self.ids.backend_name(*backend_id)
                && (backend_name.protocol == UDP || !wanted.known.contains(&backend_name))
            {
                plan.gone.push(gone(id, backend_name));
            }
        }
    }

    fn plan_affinity(&self, id: u32, wanted: &BTreeSet<u32>, sticky: bool, phases: &mut Phases) {
        let all = AffinityMatch { set: id, backend: 0 }..=AffinityMatch { set: id, backend: u32::MAX };
        let known: BTreeSet<AffinityMatch> = self.model.affinity.range(all).copied().collect();
        let should: BTreeSet<AffinityMatch> = if sticky {
            wanted.iter().map(|backend| AffinityMatch { set: id, backend: *backend }).collect()
        } else {
            BTreeSet::new()
        };
        phases.affinity.extend(should.difference(&known).map(|key| Change::PutAffinity(*key)));
        // A backend that left is forgotten at once, before its last slot goes.
        phases.closing.extend(known.difference(&should).map(|key| Change::RemoveAffinity(*key)));
    }

    fn plan_ranges(&mut self, before: Option<&ServiceTables>, now: &ServiceTables, phases: &mut Phases) {
        for (name, range) in &now.ranges {
            let key = range_key(self.ids.set(name), range);
            if !self.model.ranges.contains(&key) {
                phases.ranges.push(Change::PutRange(key));
            }
        }
        let Some(before) = before else {
            // Not planned since the start: what the maps hold for these sets may be older than the service.
            let ids: BTreeSet<u32> = now.sets.keys().filter_map(|name| self.ids.known_set(name)).collect();
            let wanted: BTreeSet<RangeKey> =
                now.ranges.iter().map(|(name, range)| range_key(self.ids.set(name), range)).collect();
            let stale =
                self.model.ranges.iter().filter(|key| ids.contains(&key.range.set) && !wanted.contains(key));
            return phases.trimming.extend(stale.map(|key| Change::RemoveRange(*key)));
        };
        for (name, range) in before.ranges.difference(&now.ranges) {
            if let Some(id) = self.ids.known_set(name) {
                phases.trimming.push(Change::RemoveRange(range_key(id, range)));
            }
        }
    }

    fn remove_set(&mut self, name: &SetName, phases: &mut Phases, plan: &mut Plan) {
        let Some(id) = self.ids.known_set(name) else { return };
        for backend_id in self.members(id) {
            if let Some(backend_name) = self.ids.backend_name(backend_id) {
                plan.gone.push(gone(id, backend_name));
            }
        }
        let slots = SlotKey { set: id, slot: 0 }..=SlotKey { set: id, slot: u32::MAX };
        phases.removing.push(Change::RemoveSet(id));
        phases.removing.extend(self.model.slots.range(slots).map(|(key, _)| Change::RemoveSlot(*key)));
        let affinity = AffinityMatch { set: id, backend: 0 }..=AffinityMatch { set: id, backend: u32::MAX };
        phases.removing.extend(self.model.affinity.range(affinity).map(|key| Change::RemoveAffinity(*key)));
    }
}

fn gone(set: u32, name: BackendName) -> Gone {
    Gone { set, addr: name.addr, port_be: name.port.to_be(), protocol: name.protocol }
}

fn range_key(set: u32, range: &IpNet) -> RangeKey {
    let range_value = SourceRange { set, addr: Addr::from(range.addr()) };
    RangeKey { bits: range_value.prefix_bits(range.prefix_len()), range: range_value }
}
