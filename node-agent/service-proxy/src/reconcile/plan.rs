//! Making a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use skep_ebpf_abi::service::frontend::{CLUSTER_IP, KIND_MASK, NODE_PORT};
use skep_ebpf_abi::service::{AffinityMatch, Backend, Frontend, Set, SlotKey, SourceRange, backend, set};
use skep_ebpf_abi::{Addr, UDP};
use skep_ebpf_loader::sockets::Gone;
use skep_ebpf_loader::tables::{Change, HashTable, RangeKey, socket_address};

use tokio::time::Instant;

use super::arrange::arrange;
use super::claim::Claim;
use super::{Reconciler, affinity_of, ranges_of};
use crate::desired::{DesiredSet, ServiceTables};
use crate::names::{BackendName, ServiceName, SetName};

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Writes, in the order in which they must be done.
    pub changes: Vec<Change>,
    /// Frontends that were refused to a service because another has them.
    pub contested: Vec<(ServiceName, String)>,
    /// Services for whose tables of hashes there is no room: their backends are chosen by chance.
    pub without_table: BTreeSet<ServiceName>,
    /// The services it is for.
    pub(super) services: Vec<Arc<ServiceName>>,
}

/// Who could have had a set that is in the maps.
#[derive(Default)]
struct Candidate<'a> {
    names: BTreeSet<&'a SetName>,
    /// A frontend that no other service can have leads there.
    is_own: bool,
    /// How often the service's frontends name it.
    uses: u32,
}

/// The writes by phase, joined at the end.
#[derive(Default)]
struct Phases {
    backends: Vec<Change>,
    affinity: Vec<Change>,
    tables: Vec<Change>,
    slots: Vec<Change>,
    ranges: Vec<Change>,
    sets: Vec<Change>,
    frontends: Vec<Change>,
    closing: Vec<Change>,
    trimming: Vec<Change>,
    planned_backends: BTreeSet<u32>,
    new_tables: usize,
}

impl Phases {
    fn join(self) -> Vec<Change> {
        [
            self.backends,
            self.affinity,
            self.tables,
            self.slots,
            self.ranges,
            self.sets,
            self.frontends,
            self.closing,
            self.trimming,
        ]
        .concat()
    }
}

impl Reconciler {
    /// Plans for services whose tables should become these; `None` is a service that is gone. The same call again
    /// gives what is still missing.
    pub fn plan(&mut self, wanted: &BTreeMap<ServiceName, Option<ServiceTables>>, now: Instant) -> Plan {
        let mut plan = Plan::default();
        let mut phases = Phases::default();
        let nothing = ServiceTables::default();
        // Numbers that an earlier plan gave without effect would be lost for good.
        self.ids.forget_planned();
        for (name, tables) in wanted {
            self.let_go(name, tables.as_ref());
        }
        for (name, tables) in wanted {
            let known = self.services.get_key_value(name).map(|(name, _)| Arc::clone(name));
            let name = known.unwrap_or_else(|| Arc::new(name.clone()));
            self.plan_service(&name, tables.as_ref().unwrap_or(&nothing), now, &mut phases, &mut plan);
            plan.services.push(name);
        }
        for name in &plan.services {
            self.close(name, &mut phases);
        }
        plan.changes = phases.join();
        plan
    }

    /// Frees the frontends that a service does not want any more.
    fn let_go(&mut self, name: &ServiceName, tables: Option<&ServiceTables>) {
        let Some(claim) = self.services.get_mut(name) else { return };
        for key in &claim.frontends {
            let keeps = tables.is_some_and(|tables| tables.frontends.contains_key(key));
            if !keeps && self.owners.get(key).is_some_and(|owner| **owner == *name) {
                self.owners.remove(key);
                claim.closing.push(*key);
            }
        }
    }

    fn plan_service(
        &mut self,
        name: &Arc<ServiceName>,
        tables: &ServiceTables,
        now: Instant,
        phases: &mut Phases,
        plan: &mut Plan,
    ) {
        let mut claim = match self.services.remove(name) {
            Some(claim) => claim,
            None => self.adopt(tables),
        };
        let mut sets = Vec::with_capacity(tables.sets.len());
        for (set_name, set) in &tables.sets {
            let id = claim.set(set_name).unwrap_or_else(|| self.ids.new_set());
            sets.push((set_name.into(), id));
            let by_hash = self.plan_table(id, set, phases);
            if by_hash == Some(false) {
                plan.without_table.insert(ServiceName::clone(name));
            }
            self.plan_set(id, set, by_hash == Some(true), &mut claim, phases);
        }
        let old = std::mem::replace(&mut claim.sets, sets);
        for (_, id) in old {
            if !claim.sets.iter().any(|(_, kept)| *kept == id) {
                let leaving =
                    self.members(id).filter_map(|member| self.ids.backend_name(member, &self.model));
                claim.gone.extend(leaving.map(|backend_name| gone(id, backend_name)));
                self.doomed.insert(id, now);
            }
        }
        self.plan_ranges(tables, &claim, phases);
        let mut frontends = Vec::with_capacity(tables.frontends.len());
        for (key, frontend) in &tables.frontends {
            match self.owners.get(key) {
                Some(owner) if owner != name => {
                    self.waiting.entry(*key).or_default().insert(Arc::clone(name));
                    let address = socket_address(key.addr, key.port_be);
                    plan.contested.push((ServiceName::clone(name), format!("{address} belongs to {owner}")));
                    continue;
                }
                _ => drop(self.owners.insert(*key, Arc::clone(name))),
            }
            frontends.push(*key);
            let set = |name: &SetName| claim.set(name).unwrap_or_default();
            let value = Frontend {
                external_set: set(&frontend.external),
                internal_set: set(&frontend.internal),
                flags: frontend.flags,
            };
            if self.model.frontends.get(key) != Some(&value) {
                phases.frontends.push(Change::PutFrontend(*key, value));
            }
        }
        claim.frontends = frontends.into();
        self.services.insert(Arc::clone(name), claim);
    }

    /// Closes the frontends that a service has let go and nobody else has taken.
    fn close(&self, name: &ServiceName, phases: &mut Phases) {
        let Some(claim) = self.services.get(name) else { return };
        let free = claim.closing.iter().filter(|key| !self.owners.contains_key(*key));
        let there = free.filter(|key| self.model.frontends.contains_key(*key));
        phases.closing.extend(there.map(|key| Change::RemoveFrontend(*key)));
    }

    /// After a restart: the frontends in the maps tell which numbers a service's sets had. A number that two sets
    /// could have had belongs to neither: whoever dials one must not see it become the other.
    fn adopt(&mut self, tables: &ServiceTables) -> Claim {
        let mut candidates: BTreeMap<u32, Candidate<'_>> = BTreeMap::new();
        for (key, frontend) in &tables.frontends {
            let Some(known) = self.model.frontends.get(key) else { continue };
            // The API server gives these to one service only; other addresses may have been another service's.
            let is_own = matches!(frontend.flags & KIND_MASK, CLUSTER_IP | NODE_PORT);
            for (id, name) in
                [(known.external_set, &frontend.external), (known.internal_set, &frontend.internal)]
            {
                let candidate = candidates.entry(id).or_default();
                candidate.names.insert(name);
                candidate.is_own |= is_own;
                candidate.uses += 1;
            }
        }
        let mut claim = Claim::default();
        for (id, Candidate { names, is_own, uses }) in candidates {
            let is_own = is_own || self.references.get(&id) == Some(&uses);
            if let (Some(name), 1) = (names.first(), names.len())
                && is_own
                && claim.set(name).is_none()
                && self.ids.adopt_set(id)
            {
                claim.sets.push(((*name).into(), id));
            }
        }
        claim
    }

    /// Plans a set's table of hashes. None when there is to be none, else whether there is room for it.
    fn plan_table(&mut self, id: u32, wanted: &DesiredSet, phases: &mut Phases) -> Option<bool> {
        let is_there = self.model.hashed.contains_key(&id);
        let table = if wanted.by_hash && !wanted.backends.is_empty() {
            let room = is_there || self.model.hashed.len() + phases.new_tables < self.table_limit;
            Some(room && self.plan_hashes(id, wanted, phases))
        } else {
            None
        };
        if table != Some(true) && is_there {
            phases.trimming.push(Change::RemoveTable(id));
        } else if table == Some(true) && !is_there {
            phases.new_tables += 1;
        }
        table
    }

    /// Whether the members are few enough for a table.
    fn plan_hashes(&mut self, id: u32, wanted: &DesiredSet, phases: &mut Phases) -> bool {
        let numbered =
            wanted.backends.iter().map(|name| (name.number(), self.ids.backend(*name, &self.model)));
        let members: Vec<(u64, u32)> = numbered.collect();
        let fingerprint = HashTable::fingerprint(&members);
        if self.hashed.get(&id) == Some(&fingerprint) {
            return true;
        }
        let Some(table) = HashTable::new(&members) else { return false };
        if self.model.hashed.get(&id) == Some(&table.digest()) {
            self.hashed.insert(id, fingerprint);
        } else {
            phases.tables.push(Change::PutTable(id, table));
        }
        true
    }

    fn plan_set(
        &mut self,
        id: u32,
        wanted: &DesiredSet,
        by_hash: bool,
        claim: &mut Claim,
        phases: &mut Phases,
    ) {
        let current: Vec<u32> = self.members(id).collect();
        let mut wanted_ids = BTreeSet::new();
        for backend_name in &wanted.backends {
            let backend_id = self.ids.backend(*backend_name, &self.model);
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
            flags: if wanted.drop_when_empty { set::DROP_WHEN_EMPTY } else { 0 }
                | if by_hash { set::MAGLEV } else { 0 },
            affinity_seconds: wanted.affinity_seconds,
        };
        if self.model.sets.get(&id) != Some(&value) {
            phases.sets.push(Change::PutSet(id, value));
        }
        let surplus = SlotKey { set: id, slot: count + 1 }..=SlotKey { set: id, slot: u32::MAX };
        phases.trimming.extend(self.model.slots.range(surplus).map(|(key, _)| Change::RemoveSlot(*key)));
        self.plan_affinity(id, &wanted_ids, wanted.affinity_seconds > 0, phases);
        for backend_id in current.iter().filter(|backend_id| !wanted_ids.contains(backend_id)) {
            if let Some(backend_name) = self.ids.backend_name(*backend_id, &self.model)
                && (backend_name.protocol == UDP || !wanted.known.contains(&backend_name))
            {
                claim.gone.push(gone(id, backend_name));
            }
        }
    }

    fn plan_affinity(&self, id: u32, wanted: &BTreeSet<u32>, sticky: bool, phases: &mut Phases) {
        let known: BTreeSet<AffinityMatch> = self.model.affinity.range(affinity_of(id)).copied().collect();
        let should: BTreeSet<AffinityMatch> = if sticky {
            wanted.iter().map(|backend| AffinityMatch { set: id, backend: *backend }).collect()
        } else {
            BTreeSet::new()
        };
        phases.affinity.extend(should.difference(&known).map(|key| Change::PutAffinity(*key)));
        // A backend that left is forgotten at once, before its last slot goes.
        phases.closing.extend(known.difference(&should).map(|key| Change::RemoveAffinity(*key)));
    }

    fn plan_ranges(&self, tables: &ServiceTables, claim: &Claim, phases: &mut Phases) {
        let wanted: BTreeSet<RangeKey> = tables
            .ranges
            .iter()
            .filter_map(|(name, range)| Some(range_key(claim.set(name)?, range)))
            .collect();
        phases.ranges.extend(wanted.difference(&self.model.ranges).map(|key| Change::PutRange(*key)));
        for (_, id) in &claim.sets {
            let stale = self.model.ranges.range(ranges_of(*id)).filter(|key| !wanted.contains(key));
            phases.trimming.extend(stale.map(|key| Change::RemoveRange(*key)));
        }
    }
}

fn gone(set: u32, name: BackendName) -> Gone {
    Gone { set, addr: name.addr, port_be: name.port.to_be(), protocol: name.protocol }
}

fn range_key(set: u32, range: &IpNet) -> RangeKey {
    let range_value = SourceRange { set, addr: Addr::from(range.addr()) };
    RangeKey { bits: range_value.prefix_bits(range.prefix_len()), range: range_value }
}
