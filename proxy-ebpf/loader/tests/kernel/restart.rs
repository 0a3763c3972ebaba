//! Nothing is lost when the process that loaded everything goes, comes back, or is replaced.

use skep_ebpf_abi::TCP;
use skep_ebpf_loader::inspect::Inspector;

use crate::support::{TestBox, possible, put_service};

#[test]
fn the_data_plane_works_without_its_loader_and_is_adopted_by_the_next() {
    if !possible("the_data_plane_works_without_its_loader_and_is_adopted_by_the_next") {
        return;
    }
    let place = TestBox::new("restart");
    place.ip("addr add 10.244.9.1/32 dev lo");
    place.serve("10.244.9.1:8080", "b0");
    let plane = place.load();
    put_service(plane.services(), 1, "10.96.9.9:80", TCP, &["10.244.9.1:8080"], 0);
    let inspector = Inspector::new(&place.pin_dir);
    let before = inspector.links().expect("links");
    drop(plane);

    let mut client = place.client();
    assert_eq!(client.ask("many 20 10.96.9.9:80"), "b0=20", "nobody is loaded now");

    // Connections are made without pause while another loader swaps the programs.
    let swapping = std::thread::spawn({
        let options = place.options();
        move || skep_ebpf_loader::DataPlane::load(options).expect("the data plane loads again")
    });
    let mut rounds = 0;
    while !swapping.is_finished() {
        assert_eq!(client.ask("many 20 10.96.9.9:80"), "b0=20");
        rounds += 1;
    }
    let plane = swapping.join().expect("the loader");
    eprintln!("{} connections while the programs were swapped", rounds * 20);
    assert_eq!(client.ask("many 20 10.96.9.9:80"), "b0=20");
    assert_eq!(plane.services().read().expect("tables").frontends.len(), 1, "the maps were adopted");

    let after = inspector.links().expect("links");
    assert_eq!(before.len(), after.len());
    for (old, new) in before.iter().zip(&after) {
        assert_eq!(old.name, new.name);
        assert_ne!(old.program, new.program, "{} holds the new program", old.name);
    }
}

#[test]
fn purging_leaves_nothing_and_may_be_repeated() {
    if !possible("purging_leaves_nothing_and_may_be_repeated") {
        return;
    }
    let place = TestBox::new("purge");
    let plane = place.load();
    put_service(plane.services(), 1, "10.96.9.9:80", TCP, &[], 0);
    drop(plane);
    skep_ebpf_loader::DataPlane::purge(&place.pin_dir).expect("purge");
    assert!(!place.pin_dir.exists());
    skep_ebpf_loader::DataPlane::purge(&place.pin_dir).expect("purge again");
    // Translated no more: the address is unreachable in a namespace without routes.
    assert!(place.client().ask("tcp 10.96.9.9:80").contains("ENETUNREACH"));
}
