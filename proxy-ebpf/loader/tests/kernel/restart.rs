//! Nothing is lost when the process that loaded everything goes, comes back, or is replaced.

use skep_ebpf_abi::TCP;
use skep_ebpf_loader::inspect::Inspector;
use skep_ebpf_loader::{DataPlane, Error};

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
        move || DataPlane::load(options).expect("the data plane loads again")
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
    DataPlane::purge(&place.pin_dir).expect("purge");
    assert!(!place.pin_dir.exists());
    DataPlane::purge(&place.pin_dir).expect("purge again");
    // Translated no more: the address is unreachable in a namespace without routes.
    assert!(place.client().ask("tcp 10.96.9.9:80").contains("ENETUNREACH"));
}

/// The built-in object with the first instruction of a program made one that no kernel knows.
pub(crate) fn broken_object() -> Vec<u8> {
    let mut object = skep_ebpf_loader::OBJECT.to_vec();
    let number = |at: usize, size: usize| {
        let bytes = &skep_ebpf_loader::OBJECT[at..at + size];
        bytes.iter().rev().fold(0_usize, |number, byte| (number << 8) | usize::from(*byte))
    };
    // The section headers of a 64-bit ELF file.
    let (table, size, count, names) = (number(0x28, 8), number(0x3a, 2), number(0x3c, 2), number(0x3e, 2));
    let header = |index: usize| table + index * size;
    let strings = number(header(names) + 24, 8);
    let found = (0..count).find(|index| {
        let name = strings + number(header(*index), 4);
        skep_ebpf_loader::OBJECT[name..].starts_with(b"cgroup/recvmsg6\0")
    });
    let program = number(header(found.expect("the program's section")) + 24, 8);
    object[program] = 0xff;
    object
}

#[test]
fn a_program_that_the_kernel_refuses_leaves_the_old_ones_at_work() {
    if !possible("a_program_that_the_kernel_refuses_leaves_the_old_ones_at_work") {
        return;
    }
    let place = TestBox::new("refused");
    place.ip("addr add 10.244.9.1/32 dev lo");
    place.serve("10.244.9.1:8080", "b0");
    let plane = place.load();
    put_service(plane.services(), 1, "10.96.9.9:80", TCP, &["10.244.9.1:8080"], 0);
    let inspector = Inspector::new(&place.pin_dir);
    let before = inspector.links().expect("links");
    let mut client = place.client();
    client.ask("keep-tcp s 10.96.9.9:80");

    let mut options = place.options();
    options.object = Some(broken_object());
    let refused = DataPlane::load(options).expect_err("the kernel refuses");
    assert!(matches!(refused, Error::Program { name: "skep_recvmsg6", .. }), "{refused:?}");
    let programs = |links: Vec<skep_ebpf_loader::inspect::LinkState>| -> Vec<(String, u32)> {
        links.into_iter().map(|link| (link.name, link.program)).collect()
    };
    assert_eq!(programs(before), programs(inspector.links().expect("links")));
    assert_eq!(client.ask("many 20 10.96.9.9:80"), "b0=20");
    assert_eq!(client.ask("use-tcp s"), "b0");
    assert_eq!(plane.services().read().expect("tables").frontends.len(), 1);
}
