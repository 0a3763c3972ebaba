//! A small cluster, the maps in memory, and sockets that were translated through them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use skep_ebpf_abi::service::frontend::{CLUSTER_IP, EXTERNAL_IP, NODE_PORT};
use skep_ebpf_abi::service::set::MAGLEV;
use skep_ebpf_abi::service::{Backend, FrontendKey};
use skep_ebpf_abi::{Addr, TCP, UDP};
use skep_ebpf_loader::memory::MemoryMaps;
use skep_ebpf_loader::sockets::Gone;
use skep_ebpf_loader::tables::{Change, Lookup, ServiceMaps, Tables};
use tokio::time::Instant;

use super::super::{Done, GRACE, Plan, Reconciler, TABLES};
use crate::desired::{DesiredFrontend, DesiredSet, ServiceTables};
use crate::names::{BackendName, Scope, ServiceName, SetName};

/// One service as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) backends: BTreeSet<u8>,
    /// Endpoints that do not serve, and are not gone either.
    pub(super) terminating: BTreeSet<u8>,
    pub(super) local: BTreeSet<u8>,
    pub(super) external_local: bool,
    pub(super) affinity: bool,
    pub(super) node_port: bool,
    /// Of an address that several services may want.
    pub(super) external: Option<u8>,
    pub(super) ranges: BTreeSet<u8>,
    /// Packets from outside fall on backends by their hash.
    pub(super) by_hash: bool,
}

/// What there should be.
pub(super) type Wishes = BTreeMap<u8, Wish>;

pub(super) fn name(service: u8) -> ServiceName {
    ServiceName { namespace: "default".to_owned(), name: format!("s{service}") }
}

/// Even services are of TCP, odd ones of UDP.
pub(super) fn protocol(service: u8) -> u8 {
    if service.is_multiple_of(2) { TCP } else { UDP }
}

fn address(octets: [u8; 4]) -> Addr {
    IpAddr::from(octets).into()
}

pub(super) fn backend(service: u8, last: u8) -> BackendName {
    BackendName { addr: address([10, 244, 0, last]), port: 8080, protocol: protocol(service) }
}

pub(super) fn vip(service: u8) -> FrontendKey {
    FrontendKey::new(address([10, 96, 0, service]), 80u16.to_be(), protocol(service))
}

pub(super) fn node_port(service: u8) -> FrontendKey {
    let port = 30_000 + u16::from(service);
    FrontendKey::new(address([192, 0, 2, 1]), port.to_be(), protocol(service))
}

pub(super) fn external(number: u8, service: u8) -> FrontendKey {
    FrontendKey::new(address([203, 0, 113, number]), 80u16.to_be(), protocol(service))
}

pub(super) fn tables(service: u8, wish: &Wish) -> ServiceTables {
    let protocol = protocol(service);
    let set = |scope| SetName { service: name(service), port: String::new(), protocol, v6: false, scope };
    let all = |list: &BTreeSet<u8>| list.iter().map(|last| backend(service, *last)).collect();
    let known: BTreeSet<u8> = wish.backends.union(&wish.terminating).copied().collect();
    let desired = |backends: BTreeSet<BackendName>| DesiredSet {
        backends,
        known: all(&known),
        affinity_seconds: if wish.affinity { 60 } else { 0 },
        drop_when_empty: false,
        by_hash: false,
    };
    let mut tables = ServiceTables::default();
    let by_hash = wish.by_hash && !wish.external_local;
    tables.sets.insert(set(Scope::Cluster), DesiredSet { by_hash, ..desired(all(&wish.backends)) });
    let internal = set(Scope::Cluster);
    let to = |external: SetName, flags| DesiredFrontend { external, internal: internal.clone(), flags };
    tables.frontends.insert(vip(service), to(internal.clone(), CLUSTER_IP));
    let outside = if wish.external_local { set(Scope::Local) } else { internal.clone() };
    if wish.external_local && (wish.node_port || wish.external.is_some()) {
        let local = wish.local.intersection(&wish.backends).copied().collect();
        tables.sets.insert(outside.clone(), desired(all(&local)));
    }
    if wish.node_port {
        tables.frontends.insert(node_port(service), to(outside.clone(), NODE_PORT));
    }
    if let Some(number) = wish.external {
        tables.frontends.insert(external(number, service), to(outside.clone(), EXTERNAL_IP));
        for third in &wish.ranges {
            let range = format!("198.51.{third}.0/24").parse().expect("a network");
            tables.ranges.insert((outside.clone(), range));
        }
    }
    tables
}

pub(super) fn wish() -> impl Strategy<Value = Wish> {
    let some = || proptest::collection::btree_set(1u8..12, 0..8);
    let by_hash = proptest::bool::weighted(0.3);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), proptest::option::of(1u8..3), by_hash);
    (some(), some(), some(), flags, proptest::collection::btree_set(0u8..4, 0..3)).prop_map(
        |(backends, terminating, local, (external_local, affinity, node_port, external, by_hash), ranges)| {
            Wish {
                terminating: terminating.difference(&backends).copied().collect(),
                backends,
                local,
                external_local,
                affinity,
                node_port,
                external,
                ranges,
                by_hash,
            }
        },
    )
}

pub(super) fn wishes() -> impl Strategy<Value = Wishes> {
    proptest::collection::btree_map(1u8..6, wish(), 0..5)
}

/// A socket that was translated.
#[derive(Clone, Debug)]
pub(super) struct Socket {
    pub(super) service: u8,
    pub(super) to: Gone,
}

/// How one step of a test goes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trouble {
    /// The write that is refused.
    pub(super) fails_at: Option<usize>,
    /// Whether the agent dies of it, and begins again from what is in the maps.
    pub(super) crashes: bool,
}

pub(super) fn trouble() -> impl Strategy<Value = Trouble> {
    (proptest::option::of(0usize..80), any::<bool>())
        .prop_map(|(fails_at, crashes)| Trouble { fails_at, crashes })
}

pub(super) struct World {
    pub(super) maps: MemoryMaps,
    pub(super) reconciler: Reconciler,
    pub(super) now: Instant,
    pub(super) is: Wishes,
    pub(super) sockets: Vec<Socket>,
    /// What the tables of hashes in the maps lead to, and their digests.
    pub(super) hashed: BTreeMap<u32, (BTreeSet<u32>, u64)>,
}

/// Every address that there could be, and from where it is dialled.
pub(super) fn dials() -> impl Iterator<Item = (FrontendKey, bool)> {
    (1u8..6)
        .flat_map(|service| [vip(service), node_port(service), external(1, service), external(2, service)])
        .collect::<BTreeSet<_>>()
        .into_iter()
        .flat_map(|key| [(key, true), (key, false)])
}

pub(super) fn names(backends: &[Backend]) -> BTreeSet<BackendName> {
    backends
        .iter()
        .map(|b| BackendName { addr: b.addr, port: u16::from_be(b.port_be), protocol: b.protocol })
        .collect()
}

/// The services that want an address, and whom each would have answer.
pub(super) fn wanted(key: &FrontendKey, outside: bool, wishes: &Wishes) -> Vec<BTreeSet<BackendName>> {
    let wanting = wishes.iter().filter_map(|(service, wish)| {
        let tables = tables(*service, wish);
        let frontend = tables.frontends.get(key)?;
        let set = if outside { &frontend.external } else { &frontend.internal };
        Some(tables.sets.get(set)?.backends.clone())
    });
    wanting.collect()
}

/// What the services which want an address, before or after, are like before and after: while it goes from one to
/// another, it leads to what the one has by then.
pub(super) fn anybody<'a>(key: &FrontendKey, before: &'a Wishes, after: &'a Wishes) -> Vec<&'a Wish> {
    let wants = |service: &u8| {
        let mut wishes = [before, after].into_iter().filter_map(|wishes| wishes.get(service));
        wishes.any(|wish| tables(*service, wish).frontends.contains_key(key))
    };
    before.iter().chain(after).filter(|(service, _)| wants(service)).map(|(_, wish)| wish).collect()
}

/// The addresses of a service's backends.
pub(super) fn addresses(wish: &Wish) -> impl Iterator<Item = Addr> {
    wish.backends.iter().map(|last| backend(0, *last).addr)
}

impl World {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let reconciler = Reconciler::restore(Tables::default(), TABLES, now);
        Self {
            maps: MemoryMaps::default(),
            reconciler,
            now,
            is: Wishes::new(),
            sockets: Vec::new(),
            hashed: BTreeMap::new(),
        }
    }

    /// Applies a plan; `check` sees the maps after every write.
    pub(super) fn apply(&mut self, changes: &[Change], mut check: impl FnMut(&Tables)) -> Result<(), ()> {
        for change in changes {
            if self.maps.apply(change).is_err() {
                self.reconciler.refused(change);
                return Err(());
            }
            self.reconciler.applied(change, self.now);
            if let Change::PutTable(set, table) = change {
                let members = table.entries().iter().copied().collect();
                self.hashed.insert(*set, (members, table.digest()));
            }
            let tables = self.maps.tables();
            self.hashes_are_whole(&tables);
            check(&tables);
        }
        Ok(())
    }

    /// A set whose backends are chosen by hash has a table, and all that it leads to is there.
    fn hashes_are_whole(&self, tables: &Tables) {
        assert!(tables.hashed.len() <= TABLES, "{tables}");
        for (id, _) in tables.sets.iter().filter(|(_, set)| set.flags & MAGLEV != 0) {
            let digest = tables.hashed.get(id).unwrap_or_else(|| panic!("set {id} has no table\n{tables}"));
            let (members, known) = &self.hashed[id];
            assert_eq!(digest, known);
            assert!(members.iter().all(|id| tables.backends.contains_key(id)), "{members:?}\n{tables}");
        }
    }

    /// Where there is to be a table it is of the backends that there are, no more and no less.
    pub(super) fn hashes_are_exact(&self) {
        let tables = self.maps.tables();
        for (service, wish) in &self.is {
            let Some(frontend) = tables.frontends.get(&vip(*service)) else { continue };
            let id = frontend.internal_set;
            let wanted = wish.by_hash && !wish.external_local && !wish.backends.is_empty();
            let is_marked = tables.sets.get(&id).is_some_and(|set| set.flags & MAGLEV != 0);
            assert_eq!(is_marked, tables.hashed.contains_key(&id), "{tables}");
            assert_eq!(is_marked, wanted, "{tables}");
            if !is_marked {
                continue;
            }
            let slots = tables.slots.iter().filter(|(key, _)| key.set == id);
            assert_eq!(self.hashed[&id].0, slots.map(|(_, id)| *id).collect(), "{tables}");
        }
    }

    pub(super) fn plan(&mut self, services: &BTreeSet<u8>, wishes: &Wishes) -> Plan {
        let wanted: BTreeMap<ServiceName, Option<ServiceTables>> = services
            .iter()
            .map(|service| (name(*service), wishes.get(service).map(|wish| tables(*service, wish))))
            .collect();
        self.reconciler.plan(&wanted, self.now)
    }

    /// Destroys sockets as the proxy would.
    pub(super) fn destroy(&mut self, gone: &[Gone]) {
        self.sockets.retain(|socket| {
            let any = Gone { set: Gone::ANY_SET, ..socket.to };
            !gone.contains(&socket.to) && !gone.contains(&any)
        });
    }

    /// Opens a socket to every backend that each address leads to.
    pub(super) fn connect(&mut self) {
        let tables = self.maps.tables();
        for (key, _) in dials().filter(|(_, outside)| !outside) {
            let Some(frontend) = tables.frontends.get(&key) else { continue };
            let Lookup::Backends(backends) = tables.lookup(&key, false) else { continue };
            let service = (1u8..6).find(|service| {
                self.is
                    .get(service)
                    .is_some_and(|wish| tables_have(&tables, *service, wish, frontend.internal_set, &key))
            });
            let Some(service) = service else { continue };
            for to in backends {
                let (addr, port_be, protocol) = (to.addr, to.port_be, to.protocol);
                let to = Gone { set: frontend.internal_set, addr, port_be, protocol };
                self.sockets.push(Socket { service, to });
            }
        }
    }

    /// Brings wishes in, with trouble, until all is well.
    pub(super) fn bring(&mut self, next: &Wishes, trouble: Trouble, check: &mut dyn FnMut(&Tables)) {
        let mut dirty: BTreeSet<u8> = self.is.keys().chain(next.keys()).copied().collect();
        self.maps.refuse_after(trouble.fails_at);
        let mut must_prune = false;
        while !dirty.is_empty() {
            let plan = self.plan(&dirty, next);
            if self.apply(&plan.changes, &mut *check).is_err() {
                if trouble.crashes {
                    self.reconciler =
                        Reconciler::restore(self.maps.read().expect("the fake reads"), TABLES, self.now);
                    // It knows nothing of services that are gone.
                    dirty = next.keys().copied().collect();
                    must_prune = true;
                }
                continue;
            }
            let Done { gone, again } = self.reconciler.done(&plan);
            self.destroy(&gone);
            dirty = (1u8..6).filter(|service| again.contains(&name(*service))).collect();
        }
        self.maps.refuse_after(None);
        if must_prune {
            let changes = self.reconciler.prune(self.now);
            self.apply(&changes, &mut *check).expect("refused once only");
            let reached: BTreeSet<Gone> = self.sockets.iter().map(|socket| socket.to).collect();
            let stale = |to: &Gone| to.protocol == UDP && !self.reconciler.serves(to);
            let stale: Vec<Gone> = reached.into_iter().filter(stale).collect();
            self.destroy(&stale);
        }
        self.is = next.clone();
    }

    /// Lets grace periods pass.
    pub(super) fn wait(&mut self, check: &mut dyn FnMut(&Tables)) {
        // Backends of a set that goes begin their own period then.
        for _ in 0..3 {
            self.now += GRACE + Duration::from_secs(1);
            let changes = self.reconciler.expire(self.now);
            let late: Vec<Gone> = changes
                .iter()
                .filter_map(|change| match change {
                    Change::RemoveBackend(id) => self.reconciler.gone_from_any(*id),
                    _ => None,
                })
                .filter(|gone| gone.protocol == UDP)
                .collect();
            self.destroy(&late);
            self.apply(&changes, &mut *check).expect("nothing is refused");
        }
    }
}

/// Whether a service is the one that has the address: its set there is the one of its own cluster IP.
fn tables_have(maps: &Tables, service: u8, wish: &Wish, set: u32, key: &FrontendKey) -> bool {
    tables(service, wish).frontends.contains_key(key)
        && maps.frontends.get(&vip(service)).is_some_and(|own| own.internal_set == set)
}
