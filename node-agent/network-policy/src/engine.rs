//! From what is known of the cluster to what the maps shall hold, as far as it changed.
//!
//! Invariants of a plan, so that nothing is let through that should not be, whatever prefix of it is carried out:
//! what rules allow is written before anybody is judged by them; what is no longer allowed is removed before the
//! epoch changes that makes flows be asked again; a pod is moved to a table that is whole; what nobody is judged by
//! any more goes last. A table whose blocks of addresses change is written anew under another number: classes of
//! addresses have no meaning outside of their table.

mod names;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use skep_ebpf_abi::Addr;
use skep_ebpf_abi::policy::{Policed, peer};
use skep_ebpf_loader::policy::{PolicyChange, PolicyTables};

use crate::identities::Identities;
use crate::model::{ClusterDns, Identity, Labels, NamedPort, ObjectName, PodInfo, Policy, Ports, RuleName};
use crate::table::{Entries, Entry, Fixed, Selected, Surroundings, fixed, of_identity};
pub use names::{Names, TableNames};
use written::Written;

/// A pod of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalPod {
    /// Its name.
    pub name: ObjectName,
    /// Who it is, as long as the API's list of pods does not say otherwise.
    pub identity: Identity,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Its network namespace: flows that are open when it is selected are looked up there.
    pub netns: std::path::PathBuf,
}

/// Who says that an address is whose; the first is believed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Claimant {
    Local(String),
    Node,
    Pod(ObjectName),
}

/// What tells tables apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TableKey {
    policies: Vec<ObjectName>,
    ports: BTreeSet<NamedPort>,
}

#[derive(Debug)]
struct Table {
    id: u32,
    selected: Selected,
    fixed: Fixed,
    by_identity: BTreeMap<u32, Entries>,
    stale: Stale,
}

/// What of a table must be compared with what is written.
#[derive(Debug, PartialEq, Eq)]
enum Stale {
    All,
    Peers(BTreeSet<u32>),
}

impl Table {
    fn entries(&self) -> impl Iterator<Item = (&Entry, &RuleName)> {
        self.fixed.entries.iter().chain(self.by_identity.values().flatten())
    }
}

/// The state; its methods only note what changed, [`Engine::plan`] says what to write.
#[derive(Debug, Default)]
pub struct Engine {
    policies: BTreeMap<ObjectName, Arc<Policy>>,
    namespaces: BTreeMap<String, Labels>,
    pods: BTreeMap<ObjectName, PodInfo>,
    local: BTreeMap<String, LocalPod>,
    nodes: BTreeSet<IpAddr>,
    dns: ClusterDns,
    identities: Identities,
    claims: BTreeMap<Addr, BTreeMap<Claimant, u32>>,
    changed_addresses: BTreeSet<Addr>,
    tables: BTreeMap<TableKey, Table>,
    next_table: u32,
    rule_ids: BTreeMap<RuleName, u32>,
    written: Written,
    /// Addresses of pods that an earlier agent policed and that this one does not know yet.
    kept: BTreeSet<Addr>,
    epoch: u32,
}

impl Engine {
    /// Begins with what the maps hold.
    pub fn restore(tables: &PolicyTables, dns: ClusterDns) -> Self {
        let mut engine = Self { dns, ..Self::default() };
        for id in tables.identities.values() {
            engine.identities.keep_clear_of(*id);
        }
        engine.kept = tables.policed.keys().copied().collect();
        engine.take_over(tables);
        engine
    }

    /// Takes the maps as they are for what is written, and compares everything anew: after a failed write nobody
    /// knows how far it came.
    pub fn take_over(&mut self, tables: &PolicyTables) {
        self.written = Written::from(tables);
        let highest = tables.rules.keys().map(|rule| rule.key.table).max().unwrap_or_default();
        let policed = tables.policed.values().map(|policed| policed.table).max().unwrap_or_default();
        self.next_table = self.next_table.max(highest + 1).max(policed + 1);
        self.epoch =
            tables.policed.values().map(|policed| policed.epoch).max().unwrap_or_default().max(self.epoch);
        self.changed_addresses.extend(tables.identities.keys().copied());
        self.changed_addresses.extend(self.claims.keys().copied());
        for table in self.tables.values_mut() {
            table.stale = Stale::All;
        }
    }

    /// A policy came, changed or went.
    pub fn set_policy(&mut self, name: &ObjectName, policy: Option<Policy>) {
        match policy {
            Some(policy) => drop(self.policies.insert(name.clone(), Arc::new(policy))),
            None => drop(self.policies.remove(name)),
        }
        // Tables of the old policy are made anew under the same names.
        self.tables.retain(|key, _| !key.policies.contains(name));
    }

    /// A namespace came, changed or went.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        let before = self.namespaces.get(name).cloned();
        if before == labels {
            return;
        }
        match labels {
            Some(labels) => drop(self.namespaces.insert(name.to_owned(), labels)),
            None => drop(self.namespaces.remove(name)),
        }
        let of_it: Vec<u32> = self
            .identities
            .iter()
            .filter(|(_, identity)| identity.namespace == name)
            .map(|(id, _)| id)
            .collect();
        let is_dns = self.dns.identity().namespace == name;
        let around = Surroundings { namespaces: &self.namespaces, dns: &self.dns };
        for table in self.tables.values_mut() {
            if is_dns {
                table.fixed = fixed(&table.selected, around);
                table.stale = Stale::All;
            }
            of_it.iter().for_each(|id| refresh(table, *id, self.identities.get(*id), around));
        }
    }

    /// A pod of any node came, changed or went.
    pub fn set_pod(&mut self, name: &ObjectName, pod: Option<PodInfo>) {
        let before = self.pods.remove(name);
        if before == pod {
            self.pods.extend(pod.map(|pod| (name.clone(), pod)));
            return;
        }
        let claimant = Claimant::Pod(name.clone());
        // The new claims first: what both have is not given up in between.
        let ips: Vec<IpAddr> = pod.iter().flat_map(|pod| pod.ips.clone()).collect();
        if let Some(pod) = &pod {
            ips.iter().for_each(|ip| self.claim(*ip, &claimant, &pod.identity));
        }
        for ip in before.iter().flat_map(|pod| &pod.ips).filter(|ip| !ips.contains(ip)) {
            self.unclaim(*ip, &claimant);
        }
        let identity = pod.as_ref().map(|pod| pod.identity.clone());
        self.pods.extend(pod.map(|pod| (name.clone(), pod)));
        // Of this node's pods the list says what labels they have now.
        let own: Vec<String> =
            self.local.iter().filter(|(_, local)| local.name == *name).map(|(uid, _)| uid.clone()).collect();
        for uid in own {
            if let (Some(identity), Some(local)) = (&identity, self.local.get(&uid).cloned()) {
                self.set_local(&uid, Some(LocalPod { identity: identity.clone(), ..local }));
            }
        }
    }

    /// A pod of this node has its network, or is gone.
    pub fn set_local(&mut self, uid: &str, pod: Option<LocalPod>) {
        let before = self.local.remove(uid);
        let claimant = Claimant::Local(uid.to_owned());
        let ips: Vec<IpAddr> = pod.iter().flat_map(|pod| pod.ips.clone()).collect();
        if let Some(pod) = &pod {
            ips.iter().for_each(|ip| self.claim(*ip, &claimant, &pod.identity));
        }
        for ip in before.iter().flat_map(|pod| &pod.ips).filter(|ip| !ips.contains(ip)) {
            self.unclaim(*ip, &claimant);
        }
        for ip in before.iter().flat_map(|pod| &pod.ips).chain(&ips) {
            self.kept.remove(&Addr::from(*ip));
        }
        self.local.extend(pod.map(|pod| (uid.to_owned(), pod)));
    }

    /// Pods that an earlier agent policed are gone unless they have one of these addresses.
    pub fn keep_only(&mut self, addresses: &BTreeSet<IpAddr>) {
        let alive: BTreeSet<Addr> = addresses.iter().map(|ip| Addr::from(*ip)).collect();
        self.kept.retain(|addr| alive.contains(addr));
    }

    /// The addresses of nodes.
    pub fn set_nodes(&mut self, nodes: BTreeSet<IpAddr>) {
        let before = std::mem::replace(&mut self.nodes, nodes);
        for ip in self.nodes.clone().difference(&before) {
            self.claims.entry(Addr::from(*ip)).or_default().insert(Claimant::Node, peer::NODE);
            self.changed_addresses.insert(Addr::from(*ip));
        }
        for ip in before.difference(&self.nodes.clone()) {
            self.unclaim(*ip, &Claimant::Node);
        }
    }

    /// The namespaces of pods that a plan begins to police, with their addresses.
    pub fn begun(&self, change: &PolicyChange) -> BTreeMap<std::path::PathBuf, Vec<IpAddr>> {
        let PolicyChange::Police(pods) = change else { return BTreeMap::new() };
        let fresh: BTreeSet<Addr> = pods
            .iter()
            .map(|(addr, _)| *addr)
            .filter(|addr| !self.written.policed.contains_key(addr))
            .collect();
        let of_pod = |local: &LocalPod| {
            let ips: Vec<IpAddr> =
                local.ips.iter().copied().filter(|ip| fresh.contains(&Addr::from(*ip))).collect();
            (!ips.is_empty()).then(|| (local.netns.clone(), ips))
        };
        self.local.values().filter_map(of_pod).collect()
    }

    /// A policy that selects a pod.
    pub fn selecting(&self, identity: &Identity) -> Option<&ObjectName> {
        self.policies.values().find(|policy| policy.selects(identity)).map(|policy| &policy.name)
    }

    /// Policies that select pods of this node, with one such pod each.
    pub fn selected_here(&self) -> Vec<(ObjectName, ObjectName)> {
        let one = |policy: &Arc<Policy>| {
            let pod = self.local.values().find(|local| policy.selects(&local.identity))?;
            Some((policy.name.clone(), pod.name.clone()))
        };
        self.policies.values().filter_map(one).collect()
    }

    /// Whether there is any policy.
    pub fn has_policies(&self) -> bool {
        !self.policies.is_empty()
    }

    /// Whether there is nothing to do and nothing done: no policy, and no trace of one in the maps.
    pub fn is_idle(&self) -> bool {
        self.policies.is_empty() && self.tables.is_empty() && self.written.is_clean()
    }

    /// Policies, tables, identities.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.policies.len(), self.tables.len(), self.identities.len())
    }

    fn claim(&mut self, ip: IpAddr, claimant: &Claimant, identity: &Identity) {
        let addr = Addr::from(ip);
        let before = self.written.identities.get(&addr).copied();
        let id = self.identities.claim(identity, before);
        let old = self.claims.entry(addr).or_default().insert(claimant.clone(), id);
        old.into_iter().for_each(|old| self.identities.release(old));
        self.changed_addresses.insert(addr);
    }

    fn unclaim(&mut self, ip: IpAddr, claimant: &Claimant) {
        let addr = Addr::from(ip);
        if let Some(claims) = self.claims.get_mut(&addr) {
            if let Some(id) = claims.remove(claimant) {
                self.identities.release(id);
            }
            if claims.is_empty() {
                self.claims.remove(&addr);
            }
            self.changed_addresses.insert(addr);
        }
    }

    /// What to write, in this order; each batch is to be told by [`Engine::applied`] when it is done.
    pub fn plan(&mut self) -> Vec<PolicyChange> {
        let users = self.resolve();
        self.follow_identities();
        let mut plan = Plan::default();
        for table in self.tables.values_mut() {
            self.written.diff_table(table, &mut self.rule_ids, &mut self.next_table, &mut plan);
        }
        self.diff_identities(&mut plan);
        self.diff_policed(&users, &mut plan);
        self.diff_dead(&mut plan);
        plan.into_changes()
    }

    /// A batch of the plan is done.
    pub fn applied(&mut self, change: &PolicyChange) {
        self.written.apply(change);
    }

    /// Gives each pod of this node that is selected its table; tables that nobody uses go.
    fn resolve(&mut self) -> BTreeMap<Addr, TableKey> {
        let mut users = BTreeMap::new();
        let mut used = BTreeSet::new();
        let around = Surroundings { namespaces: &self.namespaces, dns: &self.dns };
        for local in self.local.values() {
            let policies: Vec<Arc<Policy>> =
                self.policies.values().filter(|policy| policy.selects(&local.identity)).cloned().collect();
            if policies.is_empty() {
                continue;
            }
            let key = TableKey {
                policies: policies.iter().map(|policy| policy.name.clone()).collect(),
                ports: if names_ports(&policies) { local.identity.ports.clone() } else { BTreeSet::new() },
            };
            if !self.tables.contains_key(&key) {
                let selected = Selected { policies, ports: key.ports.clone() };
                let by_identity = self
                    .identities
                    .iter()
                    .map(|(id, identity)| (id, of_identity(&selected, (id, identity), around)))
                    .filter(|(_, entries)| !entries.is_empty())
                    .collect();
                let fixed = fixed(&selected, around);
                let id = self.next_table;
                self.next_table += 1;
                self.tables
                    .insert(key.clone(), Table { id, selected, fixed, by_identity, stale: Stale::All });
            }
            users.extend(local.ips.iter().map(|ip| (Addr::from(*ip), key.clone())));
            used.insert(key);
        }
        self.tables.retain(|key, _| used.contains(key));
        users
    }

    fn follow_identities(&mut self) {
        let changed = self.identities.take_changes();
        let around = Surroundings { namespaces: &self.namespaces, dns: &self.dns };
        for table in self.tables.values_mut() {
            changed.iter().for_each(|id| refresh(table, *id, self.identities.get(*id), around));
        }
    }

    fn diff_identities(&mut self, plan: &mut Plan) {
        for addr in std::mem::take(&mut self.changed_addresses) {
            let wanted = self.claims.get(&addr).and_then(|claims| claims.values().next().copied());
            let written = self.written.identities.get(&addr).copied();
            if wanted == written {
                continue;
            }
            if wanted.is_none() && self.kept.contains(&addr) {
                // It will be told of.
                self.changed_addresses.insert(addr);
                continue;
            }
            match wanted {
                Some(id) => plan.identities.push((addr, id)),
                None => plan.gone.push(addr),
            }
            // Who was allowed under the old identity may not be under the new one.
            plan.ask_again |= written.is_some();
        }
    }

    fn diff_policed(&mut self, users: &BTreeMap<Addr, TableKey>, plan: &mut Plan) {
        let mut wanted = BTreeMap::new();
        for (addr, key) in users {
            let Some(table) = self.tables.get(key) else { continue };
            let old = self.written.policed.get(addr).copied();
            let policed = Policed {
                table: table.id,
                epoch: old.map_or(0, |old| old.epoch),
                isolated: table.fixed.isolated,
                // The data plane knows where the pod is.
                ifindex: old.map_or(0, |old| old.ifindex),
            };
            wanted.insert(*addr, policed);
        }
        let is_asked_again = |addr: &Addr, policed: &Policed| {
            let Some(old) = self.written.policed.get(addr) else { return true };
            plan.ask_again || plan.narrowed.contains(&policed.table) || old != policed
        };
        let asked: BTreeSet<Addr> = wanted
            .iter()
            .filter(|(addr, policed)| is_asked_again(addr, policed))
            .map(|(addr, _)| *addr)
            .collect();
        if !asked.is_empty() {
            self.epoch += 1;
        }
        for (addr, mut policed) in wanted {
            if asked.contains(&addr) {
                policed.epoch = self.epoch;
            }
            if self.written.policed.get(&addr) != Some(&policed) {
                plan.police.push((addr, policed));
            }
        }
        let is_left = |addr: &&Addr| !users.contains_key(addr) && !self.kept.contains(addr);
        plan.release.extend(self.written.policed.keys().filter(is_left));
    }

    /// Tables by which nobody is judged once the plan so far is carried out.
    fn diff_dead(&self, plan: &mut Plan) {
        let mut alive: BTreeSet<u32> = self.tables.values().map(|table| table.id).collect();
        alive.extend(self.kept.iter().filter_map(|addr| self.written.policed.get(addr)).map(|old| old.table));
        self.written.dead(&alive, plan);
    }
}

/// Whether rules name ports of the pods that the policies select.
fn names_ports(policies: &[Arc<Policy>]) -> bool {
    let rules = policies.iter().flat_map(|policy| policy.ingress.iter().flatten());
    rules.flat_map(|rule| &rule.ports).any(|port| matches!(port.ports, Ports::Named(_)))
}

/// Works out anew what an identity adds to a table.
fn refresh(table: &mut Table, id: u32, identity: Option<&Identity>, around: Surroundings<'_>) {
    let entries =
        identity.map(|identity| of_identity(&table.selected, (id, identity), around)).unwrap_or_default();
    let before = if entries.is_empty() {
        table.by_identity.remove(&id)
    } else {
        table.by_identity.insert(id, entries)
    };
    if before.as_ref() != table.by_identity.get(&id)
        && let Stale::Peers(peers) = &mut table.stale
    {
        peers.insert(id);
    }
}

/// A plan under construction.
#[derive(Debug, Default)]
struct Plan {
    rules: Vec<(skep_ebpf_loader::policy::RuleEntry, u32)>,
    blocks: Vec<(skep_ebpf_loader::policy::BlockEntry, u32)>,
    identities: Vec<(Addr, u32)>,
    gone: Vec<Addr>,
    forbidden: Vec<skep_ebpf_loader::policy::RuleEntry>,
    police: Vec<(Addr, Policed)>,
    release: Vec<Addr>,
    dead_rules: Vec<skep_ebpf_loader::policy::RuleEntry>,
    dead_blocks: Vec<skep_ebpf_loader::policy::BlockEntry>,
    /// Tables that allow less than before.
    narrowed: BTreeSet<u32>,
    /// Every flow of every pod is to be asked about again.
    ask_again: bool,
}

impl Plan {
    fn into_changes(self) -> Vec<PolicyChange> {
        let all = [
            PolicyChange::PutBlocks(self.blocks),
            PolicyChange::PutRules(self.rules),
            PolicyChange::PutIdentities(self.identities),
            PolicyChange::RemoveIdentities(self.gone),
            PolicyChange::RemoveRules(self.forbidden),
            PolicyChange::Police(self.police),
            PolicyChange::Release(self.release),
            PolicyChange::RemoveRules(self.dead_rules),
            PolicyChange::RemoveBlocks(self.dead_blocks),
        ];
        all.into_iter().filter(|change| !is_nothing(change)).collect()
    }
}

fn is_nothing(change: &PolicyChange) -> bool {
    match change {
        PolicyChange::PutRules(list) => list.is_empty(),
        PolicyChange::RemoveRules(list) => list.is_empty(),
        PolicyChange::PutBlocks(list) => list.is_empty(),
        PolicyChange::RemoveBlocks(list) => list.is_empty(),
        PolicyChange::PutIdentities(list) => list.is_empty(),
        PolicyChange::RemoveIdentities(list) | PolicyChange::Release(list) => list.is_empty(),
        PolicyChange::Police(list) => list.is_empty(),
    }
}

#[cfg(test)]
mod tests;
