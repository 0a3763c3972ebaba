//! The reconciler against a model of the programs' look-up and of translated sockets.

mod world;

use std::collections::BTreeSet;

use proptest::prelude::*;
use skep_ebpf_abi::service::FrontendKey;
use skep_ebpf_abi::{Addr, UDP};
use skep_ebpf_loader::memory::MemoryMaps;
use skep_ebpf_loader::tables::{Change, Lookup, ServiceMaps, Tables};

use super::{GRACE, Reconciler, TABLES};
use world::{
    Trouble, Wish, Wishes, World, dials, name, names, node_port, tables, trouble, vip, wanted, wish, wishes,
};

/// What must be so of one address between two states.
struct Expected {
    key: FrontendKey,
    outside: bool,
    /// Whose address may answer.
    anybody: BTreeSet<Addr>,
    may_be_empty: bool,
    /// It is there before and after, and one service's.
    must_be_there: bool,
}

/// What must be so between two states, at every moment on the way.
fn between(before: &Wishes, after: &Wishes) -> Vec<Expected> {
    let mut expected = Vec::new();
    for (key, outside) in dials() {
        let anybody = world::anybody(&key, before, after);
        let (before, after) = (wanted(&key, outside, before), wanted(&key, outside, after));
        let is_empty =
            |wish: &&Wish| wish.backends.is_empty() || (outside && wish.local.is_disjoint(&wish.backends));
        expected.push(Expected {
            key,
            outside,
            may_be_empty: anybody.iter().any(is_empty),
            anybody: anybody.iter().flat_map(|wish| world::addresses(wish)).collect(),
            // A service that lets an address go and another that takes it may not be planned together.
            must_be_there: !before.is_empty() && !after.is_empty() && before.len() + after.len() == 2,
        });
    }
    expected
}

fn whole(tables: &Tables, expected: &[Expected]) {
    for Expected { key, outside, anybody, may_be_empty, must_be_there } in expected {
        match tables.lookup(key, *outside) {
            Lookup::Broken(why) => panic!("{key:?}: {why}\n{tables}"),
            Lookup::Backends(backends) => {
                let found: BTreeSet<Addr> = backends.iter().map(|backend| backend.addr).collect();
                assert!(found.is_subset(anybody), "{key:?}: {backends:?}\n{tables}");
            }
            Lookup::Empty => assert!(may_be_empty, "{key:?} is empty\n{tables}"),
            Lookup::NoFrontend => assert!(!must_be_there, "{key:?} is not there\n{tables}"),
        }
    }
}

/// The maps hold what is wished, no more and no less.
fn exact(world: &World) {
    let maps = world.maps.tables();
    for (key, outside) in dials() {
        let wanted = wanted(&key, outside, &world.is);
        match maps.lookup(&key, outside) {
            Lookup::Backends(backends) => assert!(wanted.contains(&names(&backends)), "{key:?}\n{maps}"),
            Lookup::Empty => assert!(wanted.iter().any(BTreeSet::is_empty), "{key:?} is empty\n{maps}"),
            Lookup::NoFrontend => assert!(wanted.is_empty(), "{key:?} is not there\n{maps}"),
            Lookup::Broken(why) => panic!("{key:?}: {why}"),
        }
    }
}

/// No UDP socket is left to a backend that its service does not have, and none was destroyed without need.
fn sockets(world: &World, opened: &[world::Socket], dirty_sets: bool) {
    let serves = |socket: &world::Socket, with_terminating: bool| {
        world.is.get(&socket.service).is_some_and(|wish| {
            let all = wish.backends.iter().chain(wish.terminating.iter().filter(|_| with_terminating));
            let mut all = all.map(|last| world::backend(socket.service, *last));
            all.any(|name| name.addr == socket.to.addr)
        })
    };
    for socket in &world.sockets {
        assert!(socket.to.protocol != UDP || serves(socket, false), "a socket is left: {socket:?}");
    }
    // A socket whose set went with a change of addresses may have to be connected anew.
    if dirty_sets {
        return;
    }
    for socket in opened {
        let is_left = world.sockets.iter().any(|left| left.to == socket.to);
        let may_stay = serves(socket, socket.to.protocol != UDP);
        assert!(is_left || !may_stay, "a socket was destroyed: {socket:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn every_prefix_is_whole_whatever_fails_and_all_converge(
        steps in proptest::collection::vec((wishes(), trouble()), 1..6)
    ) {
        let mut world = World::new();
        for (next, trouble) in &steps {
            let before = world.is.clone();
            world.connect();
            let opened = world.sockets.clone();
            let expected = between(&before, next);
            world.bring(next, *trouble, &mut |tables| whole(tables, &expected));
            exact(&world);
            world.hashes_are_exact();
            sockets(&world, &opened, trouble.crashes && trouble.fails_at.is_some());
            let everything = (1u8..6).collect();
            let plan = world.plan(&everything, next);
            prop_assert!(plan.changes.is_empty(), "a second plan has nothing to do: {:?}", plan.changes);
            world.reconciler.done(&plan);
            let expected = between(next, next);
            world.wait(&mut |tables| whole(tables, &expected));
            exact(&world);
        }
        world.bring(&Wishes::new(), Trouble::default(), &mut |_| {});
        world.wait(&mut |_| {});
        prop_assert_eq!(world.maps.tables(), Tables::default(), "nothing is left");
        prop_assert!(world.reconciler.services().len() == 0);
    }

    #[test]
    fn numbers_survive_a_restart(wishes in wishes(), service in 1u8..6, other in wish()) {
        let mut world = World::new();
        world.bring(&wishes, Trouble::default(), &mut |_| {});
        let before = world.maps.tables();
        world.reconciler = Reconciler::restore(before.clone(), TABLES, world.now);
        let everything: BTreeSet<u8> = (1u8..6).collect();
        let plan = world.plan(&everything, &wishes);
        // Of two services that want one address another one may have it now.
        let contested = plan.contested.len();
        prop_assert!(plan.changes.is_empty() || contested > 0, "{:?}", plan.changes);

        // A service that changed while nobody looked keeps its numbers where it keeps its addresses.
        let mut next = wishes.clone();
        next.insert(service, Wish { external: None, external_local: false, ..other });
        world.reconciler = Reconciler::restore(before.clone(), TABLES, world.now);
        let plan = world.plan(&everything, &next);
        world.apply(&plan.changes, |_| {}).expect("accepted");
        let after = world.maps.tables();
        if let (Some(old), Some(new)) = (before.frontends.get(&vip(service)), after.frontends.get(&vip(service))) {
            prop_assert_eq!(old.internal_set, new.internal_set);
        }
    }
}

fn simple(backends: &[u8]) -> Wishes {
    let backends: BTreeSet<u8> = backends.iter().copied().collect();
    let local = backends.clone();
    [(2, Wish { backends, local, external_local: true, node_port: true, ..Wish::default() })].into()
}

fn running(backends: &[u8]) -> World {
    let mut world = World::new();
    world.bring(&simple(backends), Trouble::default(), &mut |_| {});
    world
}

#[test]
fn one_more_endpoint_is_a_handful_of_writes_whatever_the_size() {
    let mut world = running(&(2..200).collect::<Vec<u8>>());
    let plan = world.plan(&[2].into(), &simple(&(2..201).collect::<Vec<u8>>()));
    assert_eq!(
        plan.changes.len(),
        5,
        "the backend, and a slot and a count in each of two sets: {:?}",
        plan.changes
    );
    world.apply(&plan.changes, |_| {}).expect("accepted");
    assert!(world.reconciler.done(&plan).gone.is_empty());
}

#[test]
fn sockets_are_destroyed_for_udp_at_once_and_for_tcp_when_the_endpoint_is_no_more() {
    for (service, expected) in [(1, 2), (2, 0)] {
        let wish = simple(&[2, 3]).remove(&2).expect("a wish");
        let mut world = World::new();
        world.bring(&[(service, wish.clone())].into(), Trouble::default(), &mut |_| {});
        let ending = Wish { backends: [3].into(), terminating: [2].into(), ..wish.clone() };
        let plan = world.plan(&[service].into(), &[(service, ending)].into());
        world.apply(&plan.changes, |_| {}).expect("accepted");
        assert_eq!(world.reconciler.done(&plan).gone.len(), expected, "one for each set");
        let ended = Wish { backends: [].into(), ..wish };
        let plan = world.plan(&[service].into(), &[(service, ended)].into());
        world.apply(&plan.changes, |_| {}).expect("accepted");
        assert_eq!(world.reconciler.done(&plan).gone.len(), 2, "3 is no more");
    }
}

#[test]
fn a_backend_keeps_its_entry_for_the_grace_period() {
    let mut world = running(&[2, 4]);
    world.bring(&simple(&[2]), Trouble::default(), &mut |_| {});
    assert_eq!(world.maps.tables().backends.len(), 2);
    assert!(world.reconciler.expire(world.now + GRACE / 2).is_empty());
    assert_eq!(world.reconciler.expire(world.now + GRACE).len(), 1);
    world.bring(&simple(&[2, 4]), Trouble::default(), &mut |_| {});
    assert!(world.reconciler.expire(world.now + GRACE * 2).is_empty(), "it is in use again");
}

#[test]
fn a_set_that_a_program_may_have_just_read_about_stays_for_the_grace_period() {
    let mut world = running(&[2, 4]);
    world.bring(&Wishes::new(), Trouble::default(), &mut |_| {});
    assert!(world.maps.tables().frontends.is_empty(), "closed at once");
    assert_eq!(world.maps.tables().sets.len(), 2);
    assert!(world.reconciler.expire(world.now + GRACE / 2).is_empty());
    world.wait(&mut |_| {});
    assert_eq!(world.maps.tables(), Tables::default());
}

#[test]
fn a_frontend_that_two_services_want_goes_to_the_first_and_then_to_the_second() {
    let wish = Wish { external: Some(1), backends: [2].into(), ..Wish::default() };
    let both: Wishes = [(2, wish.clone()), (4, Wish { backends: [3].into(), ..wish })].into();
    let mut world = World::new();
    let plan = world.plan(&[2, 4].into(), &both);
    assert_eq!(plan.contested.len(), 1);
    world.apply(&plan.changes, |_| {}).expect("accepted");
    world.reconciler.done(&plan);
    let second: Wishes =
        both.iter().filter(|(service, _)| **service == 4).map(|(s, w)| (*s, w.clone())).collect();
    let plan = world.plan(&[2].into(), &second);
    world.apply(&plan.changes, |_| {}).expect("accepted");
    assert_eq!(world.reconciler.done(&plan).again, [name(4)].into());
    let plan = world.plan(&[4].into(), &second);
    world.apply(&plan.changes, |_| {}).expect("accepted");
    assert!(matches!(world.maps.tables().lookup(&world::external(1, 4), false), Lookup::Backends(_)));
}

#[test]
fn a_full_map_leaves_what_was_there_whole_and_the_plan_is_made_again() {
    let mut world = World { maps: MemoryMaps::default().limit_backends(2), ..World::new() };
    world.bring(&simple(&[2, 4]), Trouble::default(), &mut |_| {});
    let more = simple(&[2, 4, 6]);
    let plan = world.plan(&[2].into(), &more);
    let (done, result) = world.maps.apply_all(&plan.changes);
    assert!(matches!(result, Err(skep_ebpf_loader::Error::Full { .. })));
    assert_eq!(done, 0);
    let Lookup::Backends(backends) = world.maps.tables().lookup(&vip(2), false) else { panic!("reachable") };
    assert_eq!(backends.len(), 2);
    let again = world.plan(&[2].into(), &more);
    let kinds = |changes: &[Change]| changes.iter().map(std::mem::discriminant).collect::<Vec<_>>();
    assert_eq!(kinds(&again.changes), kinds(&plan.changes), "nothing was done, so the same is planned");
}

/// A service whose backends are chosen by hash.
fn hashed(backends: &[u8]) -> Wishes {
    let wish = simple(backends).remove(&2).expect("a wish");
    [(2, Wish { external_local: false, by_hash: true, ..wish })].into()
}

#[test]
fn a_new_endpoint_is_in_the_table_before_it_has_a_slot_and_a_gone_one_loses_its_slot_last() {
    let mut world = World::new();
    world.bring(&hashed(&[2, 4]), Trouble::default(), &mut |_| {});
    assert_eq!(world.maps.tables().hashed.len(), 1);
    let plan = world.plan(&[2].into(), &hashed(&[2, 6]));
    let place = |is: fn(&Change) -> bool| plan.changes.iter().position(is).expect("such a change");
    let table = place(|change| matches!(change, Change::PutTable(..)));
    assert!(place(|change| matches!(change, Change::PutBackend(..))) < table);
    assert!(table < place(|change| matches!(change, Change::PutSlot(..))));

    // Without the option the table goes, after the set no longer refers to it.
    world.apply(&plan.changes, |_| {}).expect("accepted");
    world.reconciler.done(&plan);
    let plain = simple(&[2, 6]).remove(&2).expect("a wish");
    world.bring(&[(2, Wish { external_local: false, ..plain })].into(), Trouble::default(), &mut |_| {});
    assert!(world.maps.tables().hashed.is_empty());
}

#[test]
fn a_service_without_room_for_its_table_is_served_all_the_same() {
    let one = hashed(&[2, 4]).remove(&2).expect("a wish");
    let both: Wishes = [(1, one.clone()), (2, one)].into();
    let mut world = World::new();
    world.reconciler = Reconciler::restore(Tables::default(), 1, world.now);
    let plan = world.plan(&[1, 2].into(), &both);
    assert_eq!(plan.without_table, [name(2)].into());
    world.apply(&plan.changes, |_| {}).expect("accepted");
    world.reconciler.done(&plan);
    let maps = world.maps.tables();
    assert_eq!(maps.hashed.len(), 1);
    assert!(matches!(maps.lookup(&node_port(2), true), Lookup::Backends(_)));
    // The first one goes, and its table with the set: there is room.
    let second: Wishes = both.into_iter().filter(|(service, _)| *service == 2).collect();
    let plan = world.plan(&[1].into(), &second);
    world.apply(&plan.changes, |_| {}).expect("accepted");
    world.reconciler.done(&plan);
    world.wait(&mut |_| {});
    let plan = world.plan(&[2].into(), &second);
    assert!(plan.without_table.is_empty());
    world.apply(&plan.changes, |_| {}).expect("accepted");
    assert_eq!(world.maps.tables().hashed.len(), 1);
}

#[test]
fn a_table_that_was_written_in_part_is_written_again() {
    let mut world = World::new();
    world.bring(&hashed(&[2, 4]), Trouble::default(), &mut |_| {});
    let plan = world.plan(&[2].into(), &hashed(&[2, 6]));
    let table = plan.changes.iter().find(|change| matches!(change, Change::PutTable(..)));
    world.reconciler.refused(table.expect("a table"));
    // Back to what it was: the maps may hold some of each.
    let plan = world.plan(&[2].into(), &hashed(&[2, 4]));
    assert!(matches!(plan.changes.as_slice(), [Change::PutTable(..)]), "{:?}", plan.changes);
}

#[test]
fn tables_of_the_model_are_what_the_proxy_would_make() {
    // The model would prove nothing if its frontends named sets that it does not have.
    let wish = Wish {
        external: Some(1),
        node_port: true,
        external_local: true,
        ranges: [1].into(),
        ..simple(&[1, 2]).remove(&2).expect("a wish")
    };
    let made = tables(2, &wish);
    assert_eq!((made.frontends.len(), made.sets.len(), made.ranges.len()), (3, 2, 1));
    for frontend in made.frontends.values() {
        assert!(made.sets.contains_key(&frontend.external) && made.sets.contains_key(&frontend.internal));
    }
}
