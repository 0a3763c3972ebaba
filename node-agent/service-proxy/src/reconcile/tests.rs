//! The reconciler against a model of the programs' look-up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;
use skep_ebpf_abi::Addr;
use skep_ebpf_abi::service::{Backend, FrontendKey};
use skep_ebpf_loader::memory::MemoryMaps;
use skep_ebpf_loader::tables::{Lookup, ServiceMaps, Tables};
use tokio::time::Instant;

use super::{BACKEND_GRACE, Plan, Reconciler};
use crate::desired::{DesiredFrontend, DesiredSet, ServiceTables};
use crate::names::{BackendName, Scope, ServiceName, SetName};

/// One service of a test: its number, its backends, and whether it has affinity.
#[derive(Clone, Debug)]
struct Wish {
    backends: BTreeSet<u8>,
    local: BTreeSet<u8>,
    affinity: bool,
    node_port: bool,
}

fn name(service: u8) -> ServiceName {
    ServiceName { namespace: "default".to_owned(), name: format!("s{service}") }
}

fn backend(last: u8) -> BackendName {
    let address = IpAddr::from([10, 244, 0, last]);
    BackendName { addr: address.into(), port: 8080, protocol: if last.is_multiple_of(2) { 6 } else { 17 } }
}

fn vip(service: u8) -> FrontendKey {
    FrontendKey::new(Addr::from(IpAddr::from([10, 96, 0, service])), 80u16.to_be(), 6)
}

fn node_port(service: u8) -> FrontendKey {
    FrontendKey::new(Addr::from(IpAddr::from([192, 0, 2, 1])), (30_000 + u16::from(service)).to_be(), 6)
}

fn tables(service: u8, wish: &Wish) -> ServiceTables {
    let set = |scope| SetName { service: name(service), port: String::new(), protocol: 6, v6: false, scope };
    let affinity_seconds = if wish.affinity { 60 } else { 0 };
    let desired = |backends: &BTreeSet<u8>| DesiredSet {
        backends: backends.iter().map(|last| backend(*last)).collect(),
        known: wish.backends.iter().map(|last| backend(*last)).collect(),
        affinity_seconds,
        drop_when_empty: false,
    };
    let mut tables = ServiceTables::default();
    tables.sets.insert(set(Scope::Cluster), desired(&wish.backends));
    let frontend =
        |external| DesiredFrontend { external: set(external), internal: set(Scope::Cluster), flags: 0 };
    tables.frontends.insert(vip(service), frontend(Scope::Cluster));
    if wish.node_port {
        tables.sets.insert(set(Scope::Local), desired(&wish.local));
        tables.frontends.insert(node_port(service), frontend(Scope::Local));
    }
    tables
}

/// Applies a plan; after every write, `check` sees the maps.
fn apply(
    reconciler: &mut Reconciler,
    maps: &MemoryMaps,
    plan: &Plan,
    now: Instant,
    mut check: impl FnMut(&Tables),
) {
    for change in &plan.changes {
        maps.apply(change).expect("the fake accepts");
        reconciler.applied(change, now);
        check(&maps.tables());
    }
}

fn names(backends: &[Backend]) -> BTreeSet<BackendName> {
    backends
        .iter()
        .map(|b| BackendName { addr: b.addr, port: u16::from_be(b.port_be), protocol: b.protocol })
        .collect()
}

/// Who may answer at a frontend, by the wish.
fn expected(key: &FrontendKey, outside: bool, wish: &BTreeMap<u8, Wish>) -> Option<BTreeSet<BackendName>> {
    wish.iter().find_map(|(service, wish)| {
        let tables = tables(*service, wish);
        let frontend = tables.frontends.get(key)?;
        let set = if outside { &frontend.external } else { &frontend.internal };
        Some(tables.sets.get(set)?.backends.clone())
    })
}

fn wish() -> impl Strategy<Value = Wish> {
    let some = || proptest::collection::btree_set(1u8..12, 0..8);
    (some(), some(), any::<bool>(), any::<bool>()).prop_map(|(backends, local, affinity, node_port)| Wish {
        backends,
        local,
        affinity,
        node_port,
    })
}

fn wishes() -> impl Strategy<Value = BTreeMap<u8, Wish>> {
    proptest::collection::btree_map(1u8..5, wish(), 0..5)
}

fn plan_for(reconciler: &mut Reconciler, old: &BTreeMap<u8, Wish>, new: &BTreeMap<u8, Wish>) -> Plan {
    let touched: BTreeSet<u8> = old.keys().chain(new.keys()).copied().collect();
    let wanted = touched
        .into_iter()
        .map(|service| (name(service), new.get(&service).map(|wish| tables(service, wish))));
    reconciler.plan(wanted.collect())
}

fn keys() -> impl Iterator<Item = (FrontendKey, bool)> {
    (1u8..5)
        .flat_map(|service| [vip(service), node_port(service)])
        .flat_map(|key| [(key, true), (key, false)])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_prefix_of_a_plan_keeps_what_is_reachable_whole(steps in proptest::collection::vec(wishes(), 1..5)) {
        let maps = MemoryMaps::default();
        let now = Instant::now();
        let mut reconciler = Reconciler::restore(Tables::default(), now);
        let mut old = BTreeMap::new();
        for new in &steps {
            let plan = plan_for(&mut reconciler, &old, new);
            apply(&mut reconciler, &maps, &plan, now, |tables| {
                for (key, outside) in keys() {
                    let (before, after) = (expected(&key, outside, &old), expected(&key, outside, new));
                    let found = tables.lookup(&key, outside);
                    assert!(!matches!(found, Lookup::Broken(_)), "{found:?}\n{tables}");
                    let (Some(before), Some(after)) = (before, after) else { continue };
                    match found {
                        Lookup::Backends(backends) => {
                            let allowed: BTreeSet<BackendName> = before.union(&after).copied().collect();
                            assert!(names(&backends).is_subset(&allowed), "{backends:?}");
                        }
                        Lookup::Empty => assert!(before.is_empty() || after.is_empty()),
                        other => panic!("{key:?} was and will be reachable, but is {other:?}"),
                    }
                }
            });
            for (key, outside) in keys() {
                let found = match maps.tables().lookup(&key, outside) {
                    Lookup::Backends(backends) => Some(names(&backends)),
                    Lookup::Empty => Some(BTreeSet::new()),
                    _ => None,
                };
                prop_assert_eq!(found, expected(&key, outside, new));
            }
            prop_assert!(plan_for(&mut reconciler, &old, new).changes.is_empty(), "a second plan has nothing to do");
            old = new.clone();
        }
        // When all is gone and the grace period is over, nothing is left.
        let plan = plan_for(&mut reconciler, &old, &BTreeMap::new());
        apply(&mut reconciler, &maps, &plan, now, |_| {});
        for change in reconciler.expire(now + BACKEND_GRACE) {
            maps.apply(&change).expect("the fake accepts");
            reconciler.applied(&change, now);
        }
        prop_assert_eq!(maps.tables(), Tables::default());
    }

    #[test]
    fn a_restart_in_the_middle_of_a_plan_ends_in_the_same_place(
        before in wishes(), after in wishes(), done in 0usize..60
    ) {
        let maps = MemoryMaps::default();
        let now = Instant::now();
        let mut reconciler = Reconciler::restore(Tables::default(), now);
        let plan = plan_for(&mut reconciler, &BTreeMap::new(), &before);
        apply(&mut reconciler, &maps, &plan, now, |_| {});
        let plan = plan_for(&mut reconciler, &before, &after);
        for change in plan.changes.iter().take(done) {
            maps.apply(change).expect("the fake accepts");
        }

        let mut reconciler = Reconciler::restore(maps.read().expect("the fake reads"), now);
        let plan = plan_for(&mut reconciler, &BTreeMap::new(), &after);
        apply(&mut reconciler, &maps, &plan, now, |tables| {
            for (key, outside) in keys() {
                // Whoever was reachable before and will be after stays so.
                if let (Some(a), Some(b)) = (expected(&key, outside, &before), expected(&key, outside, &after))
                    && !a.is_empty() && !b.is_empty()
                {
                    let found = tables.lookup(&key, outside);
                    assert!(matches!(found, Lookup::Backends(_)), "{found:?}");
                }
            }
        });
        for change in reconciler.prune() {
            maps.apply(&change).expect("the fake accepts");
            reconciler.applied(&change, now);
        }
        for (key, outside) in keys() {
            let found = match maps.tables().lookup(&key, outside) {
                Lookup::Backends(backends) => Some(names(&backends)),
                Lookup::Empty => Some(BTreeSet::new()),
                _ => None,
            };
            prop_assert_eq!(found, expected(&key, outside, &after));
        }
    }
}

fn simple(backends: &[u8]) -> BTreeMap<u8, Wish> {
    let backends: BTreeSet<u8> = backends.iter().copied().collect();
    BTreeMap::from([(1, Wish { local: backends.clone(), backends, affinity: false, node_port: true })])
}

fn running(backends: &[u8]) -> (Reconciler, MemoryMaps, Instant) {
    let (maps, now) = (MemoryMaps::default(), Instant::now());
    let mut reconciler = Reconciler::restore(Tables::default(), now);
    let plan = plan_for(&mut reconciler, &BTreeMap::new(), &simple(backends));
    apply(&mut reconciler, &maps, &plan, now, |_| {});
    (reconciler, maps, now)
}

#[test]
fn one_more_endpoint_is_a_handful_of_writes_whatever_the_size() {
    let many: Vec<u8> = (2..200).collect();
    let (mut reconciler, _, _) = running(&many);
    let more: Vec<u8> = (2..201).collect();
    let plan = plan_for(&mut reconciler, &simple(&many), &simple(&more));
    assert_eq!(
        plan.changes.len(),
        5,
        "the backend, and a slot and a count in each of two sets: {:?}",
        plan.changes
    );
    assert!(plan.gone.is_empty());
}

#[test]
fn sockets_are_destroyed_for_udp_at_once_and_for_tcp_when_the_endpoint_is_no_more() {
    let (mut reconciler, _, _) = running(&[2, 3]);
    let mut wanted = tables(1, simple(&[2, 3]).get(&1).expect("a wish"));
    for set in wanted.sets.values_mut() {
        set.backends.clear();
    }
    let plan = reconciler.plan(BTreeMap::from([(name(1), Some(wanted))]));
    assert!(plan.gone.iter().all(|gone| gone.protocol == 17), "2 still terminates and keeps its connections");
    assert_eq!(plan.gone.len(), 2, "one for each set");
}

#[test]
fn a_backend_keeps_its_entry_for_the_grace_period_and_its_id_afterwards_is_not_given_again() {
    let (mut reconciler, maps, now) = running(&[2, 4]);
    let plan = plan_for(&mut reconciler, &simple(&[2, 4]), &simple(&[2]));
    apply(&mut reconciler, &maps, &plan, now, |_| {});
    assert_eq!(maps.tables().backends.len(), 2);
    assert!(reconciler.expire(now + BACKEND_GRACE / 2).is_empty());
    let expired = reconciler.expire(now + BACKEND_GRACE);
    assert_eq!(expired.len(), 1);
    let plan = plan_for(&mut reconciler, &simple(&[2]), &simple(&[2, 4]));
    apply(&mut reconciler, &maps, &plan, now, |_| {});
    assert!(reconciler.expire(now + BACKEND_GRACE * 2).is_empty(), "it is in use again");
}

#[test]
fn a_frontend_that_two_services_want_goes_to_the_first_and_then_to_the_second() {
    let (maps, now) = (MemoryMaps::default(), Instant::now());
    let mut reconciler = Reconciler::restore(Tables::default(), now);
    let wish = simple(&[2]).remove(&1).expect("a wish");
    let first = tables(1, &wish);
    let mut second = tables(2, &wish);
    let value = second.frontends.get(&vip(2)).cloned().expect("its own");
    second.frontends.insert(vip(1), value);
    let plan = reconciler.plan(BTreeMap::from([(name(1), Some(first)), (name(2), Some(second.clone()))]));
    assert_eq!(plan.contested.len(), 1);
    apply(&mut reconciler, &maps, &plan, now, |_| {});
    let plan = reconciler.plan(BTreeMap::from([(name(1), None)]));
    assert_eq!(plan.again, BTreeSet::from([name(2)]));
    apply(&mut reconciler, &maps, &plan, now, |_| {});
    let plan = reconciler.plan(BTreeMap::from([(name(2), Some(second))]));
    apply(&mut reconciler, &maps, &plan, now, |_| {});
    assert!(matches!(maps.tables().lookup(&vip(1), false), Lookup::Backends(_)));
}

#[test]
fn a_full_map_leaves_what_was_there_whole_and_the_plan_is_made_again() {
    let maps = MemoryMaps::default().limit_backends(2);
    let now = Instant::now();
    let mut reconciler = Reconciler::restore(Tables::default(), now);
    let plan = plan_for(&mut reconciler, &BTreeMap::new(), &simple(&[2, 4]));
    apply(&mut reconciler, &maps, &plan, now, |_| {});
    let plan = plan_for(&mut reconciler, &simple(&[2, 4]), &simple(&[2, 4, 6]));
    let refused = plan.changes.iter().try_for_each(|change| {
        maps.apply(change)?;
        reconciler.applied(change, now);
        Ok::<(), skep_ebpf_loader::Error>(())
    });
    assert!(matches!(refused, Err(skep_ebpf_loader::Error::Full { .. })));
    let Lookup::Backends(backends) = maps.tables().lookup(&vip(1), false) else { panic!("reachable") };
    assert_eq!(backends.len(), 2);
    let again = plan_for(&mut reconciler, &simple(&[2, 4]), &simple(&[2, 4, 6]));
    assert_eq!(again.changes, plan.changes, "nothing was done, so the same is planned");
}
