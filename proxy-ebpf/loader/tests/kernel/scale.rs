//! Many entries at once.

use std::time::Instant;

use skep_ebpf_abi::Addr;
use skep_ebpf_abi::service::{
    AffinityMatch, Backend, Frontend, FrontendKey, Set, SlotKey, SourceRange, frontend,
};
use skep_ebpf_loader::Error;
use skep_ebpf_loader::tables::{Change, RangeKey, Tables};

use crate::support::{TestBox, possible};

/// Writes of `services` services with `endpoints` each, in the proxy's order.
fn changes(services: u32, endpoints: u32) -> Vec<Change> {
    let mut phases: [Vec<Change>; 6] = Default::default();
    for service in 1..=services {
        for slot in 1..=endpoints {
            let id = (service - 1) * endpoints + slot;
            let backend =
                Backend { addr: Addr::v4((0x0a10_0000 + id).to_be()), port_be: 80, protocol: 6, state: 0 };
            phases[0].push(Change::PutBackend(id, backend));
            phases[1].push(Change::PutAffinity(AffinityMatch { set: service, backend: id }));
            phases[2].push(Change::PutSlot(SlotKey { set: service, slot }, id));
        }
        let range = SourceRange { set: service, addr: Addr::v4(0xc633_6400_u32.to_be()) };
        phases[3].push(Change::PutRange(RangeKey { bits: range.prefix_bits(24), range }));
        phases[4].push(Change::PutSet(service, Set { count: endpoints, flags: 0, affinity_seconds: 60 }));
        let key = FrontendKey::new(Addr::v4((0x0a60_0000 + service).to_be()), 80u16.to_be(), 6);
        let value = Frontend { external_set: service, internal_set: service, flags: frontend::CLUSTER_IP };
        phases[5].push(Change::PutFrontend(key, value));
    }
    phases.concat()
}

fn undo(change: &Change) -> Change {
    match change {
        Change::PutBackend(id, _) => Change::RemoveBackend(*id),
        Change::PutAffinity(key) => Change::RemoveAffinity(*key),
        Change::PutSlot(key, _) => Change::RemoveSlot(*key),
        Change::PutRange(key) => Change::RemoveRange(*key),
        Change::PutSet(id, _) => Change::RemoveSet(*id),
        Change::PutFrontend(key, _) => Change::RemoveFrontend(*key),
        other => other.clone(),
    }
}

#[test]
fn many_changes_at_once_are_the_same_as_one_by_one() {
    if !possible("many_changes_at_once_are_the_same_as_one_by_one") {
        return;
    }
    let place = TestBox::new("batch");
    let plane = place.load();
    let changes = changes(1_000, 10);
    let mut expected = Tables::default();
    changes.iter().for_each(|change| expected.apply(change));
    let started = Instant::now();
    let (done, result) = plane.services().apply_all(&changes);
    let took = started.elapsed();
    result.expect("the maps accept");
    assert_eq!(done, changes.len());
    eprintln!("{} writes in {took:?}", changes.len());
    assert_eq!(plane.services().read().expect("tables"), expected);

    // Every second one is absent already.
    let mut removals: Vec<Change> = changes.iter().map(undo).collect();
    removals.reverse();
    for removal in removals.iter().step_by(2) {
        plane.services().apply(removal).expect("the map accepts");
    }
    let (done, result) = plane.services().apply_all(&removals);
    result.expect("absent is success");
    assert_eq!(done, removals.len());
    assert_eq!(plane.services().read().expect("tables"), Tables::default());
}

#[test]
fn a_full_map_says_how_far_it_came() {
    if !possible("a_full_map_says_how_far_it_came") {
        return;
    }
    let place = TestBox::new("full");
    let mut options = place.options();
    options.map_sizes.insert("slots".to_owned(), 256);
    let plane = skep_ebpf_loader::DataPlane::load(options).expect("the data plane loads");
    let changes = changes(100, 10);
    let (done, result) = plane.services().apply_all(&changes);
    assert!(matches!(result, Err(Error::Full { .. })), "{result:?}");
    let mut expected = Tables::default();
    changes.iter().take(done).for_each(|change| expected.apply(change));
    assert!(expected.slots.len() >= 256, "{done}");
    assert_eq!(plane.services().read().expect("tables"), expected);
}
