//! Real sockets of a process in the cgroup.

use skep_ebpf_abi::service::{Frontend, FrontendKey, Set};
use skep_ebpf_abi::{TCP, UDP};
use skep_ebpf_loader::LoadOptions;
use skep_ebpf_loader::sockets::Gone;
use skep_ebpf_loader::tables::Change;

use crate::support::{TestBox, addr, possible, put_service};

const BACKENDS: [&str; 3] = ["10.244.9.1:8080", "10.244.9.2:8080", "10.244.9.3:8080"];

fn box_with_backends(test: &str) -> TestBox {
    let place = TestBox::new(test);
    for (index, backend) in BACKENDS.iter().enumerate() {
        let ip = backend.split(':').next().expect("an address");
        place.ip(&format!("addr add {ip}/32 dev lo"));
        place.serve(backend, &format!("b{index}"));
    }
    place
}

#[test]
fn a_cluster_ip_reaches_every_backend_and_looks_like_itself() {
    if !possible("a_cluster_ip_reaches_every_backend_and_looks_like_itself") {
        return;
    }
    let place = box_with_backends("clusterip");
    let plane = place.load();
    put_service(plane.services(), 1, "10.96.9.9:80", TCP, &BACKENDS, 0);
    put_service(plane.services(), 2, "10.96.9.9:53", UDP, &BACKENDS, 0);
    let mut client = place.client();

    let many = client.ask("many 60 10.96.9.9:80");
    for name in ["b0=", "b1=", "b2="] {
        assert!(many.contains(name), "{many}");
    }
    assert!(client.ask("tcp 10.96.9.9:80").ends_with(" 10.96.9.9:80"), "getpeername shows the cluster IP");
    assert!(client.ask("tcp [::ffff:10.96.9.9]:80").ends_with(" [::ffff:10.96.9.9]:80"), "also v4-mapped");
    assert!(client.ask("udp 10.96.9.9:53").ends_with(" 10.96.9.9:53"));
    assert!(
        client.ask("udp-unconnected 10.96.9.9:53").ends_with(" 10.96.9.9:53"),
        "recvmsg shows the cluster IP"
    );
    assert!(client.ask("udp-unconnected [::ffff:10.96.9.9]:53").ends_with(" [::ffff:10.96.9.9]:53"));
    assert_eq!(client.ask("tcp 10.244.9.2:8080"), "b1 10.244.9.2:8080", "a direct connection is left alone");
}

#[test]
fn ipv6_works_the_same() {
    if !possible("ipv6_works_the_same") {
        return;
    }
    let place = TestBox::new("ipv6");
    place.ip("addr add fd00:10::1/128 dev lo nodad");
    place.serve("[fd00:10::1]:8080", "six");
    let plane = place.load();
    put_service(plane.services(), 1, "[fd00:96::9]:80", TCP, &["[fd00:10::1]:8080"], 0);
    put_service(plane.services(), 2, "[fd00:96::9]:53", UDP, &["[fd00:10::1]:8080"], 0);
    let mut client = place.client();
    assert_eq!(client.ask("tcp [fd00:96::9]:80"), "six [fd00:96::9]:80");
    assert_eq!(client.ask("udp [fd00:96::9]:53"), "six [fd00:96::9]:53");
    assert_eq!(client.ask("udp-unconnected [fd00:96::9]:53"), "six [fd00:96::9]:53");
}

#[test]
fn a_service_without_backends_is_refused_at_once() {
    if !possible("a_service_without_backends_is_refused_at_once") {
        return;
    }
    let place = TestBox::new("empty");
    let plane = place.load();
    put_service(plane.services(), 1, "10.96.9.9:80", TCP, &[], 0);
    let mut client = place.client();
    // Before 5.18 a program cannot say which error a connect ends with.
    let can_say =
        aya::util::KernelVersion::current().expect("a version") >= aya::util::KernelVersion::new(5, 18, 0);
    let wanted = if can_say { "ECONNREFUSED" } else { "EPERM" };
    let answer = client.ask("tcp 10.96.9.9:80");
    assert!(answer.contains(wanted), "{answer}, not {wanted}");
}

#[test]
fn contradicting_maps_let_the_connect_pass() {
    if !possible("contradicting_maps_let_the_connect_pass") {
        return;
    }
    let place = box_with_backends("open");
    let plane = place.load();
    // A frontend that names a set which is not there: the kernel must see the connect as it was.
    let key = FrontendKey::new(addr("10.244.9.1"), 8080u16.to_be(), TCP);
    let value = Frontend { external_set: 7, internal_set: 7, flags: 0 };
    plane.services().apply(&Change::PutFrontend(key, value)).expect("the map accepts");
    let mut client = place.client();
    assert_eq!(client.ask("tcp 10.244.9.1:8080"), "b0 10.244.9.1:8080");
    // A set that promises slots it does not have, as while it shrinks.
    let set = Set { count: 2, flags: 0, affinity_seconds: 0 };
    plane.services().apply(&Change::PutSet(7, set)).expect("the map accepts");
    assert_eq!(client.ask("tcp 10.244.9.1:8080"), "b0 10.244.9.1:8080");
}

#[test]
fn a_shrinking_set_falls_back_to_its_first_slot() {
    if !possible("a_shrinking_set_falls_back_to_its_first_slot") {
        return;
    }
    let place = box_with_backends("shrink");
    let plane = place.load();
    put_service(plane.services(), 1, "10.96.9.9:80", TCP, &BACKENDS[..1], 0);
    let set = Set { count: 50, flags: 0, affinity_seconds: 0 };
    plane.services().apply(&Change::PutSet(1, set)).expect("the map accepts");
    assert_eq!(place.client().ask("many 50 10.96.9.9:80"), "b0=50");
}

#[test]
fn affinity_keeps_a_client_until_its_backend_leaves() {
    if !possible("affinity_keeps_a_client_until_its_backend_leaves") {
        return;
    }
    let place = box_with_backends("affinity");
    let plane = place.load();
    put_service(plane.services(), 1, "10.96.9.9:80", TCP, &BACKENDS, 3600);
    let mut client = place.client();
    let first = client.ask("many 40 10.96.9.9:80");
    let index: usize =
        first.strip_suffix("=40").and_then(|name| name[1..].parse().ok()).expect("one backend only");

    let gone = skep_ebpf_abi::service::AffinityMatch { set: 1, backend: 100 + index as u32 };
    plane.services().apply(&Change::RemoveAffinity(gone)).expect("the map accepts");
    let rest: Vec<&str> = BACKENDS.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, b)| *b).collect();
    put_service(plane.services(), 5, "10.96.9.10:80", TCP, &rest, 0);
    let frontend = Frontend { external_set: 5, internal_set: 5, flags: 0 };
    let key = FrontendKey::new(addr("10.96.9.9"), 80u16.to_be(), TCP);
    plane.services().apply(&Change::PutFrontend(key, frontend)).expect("the map accepts");
    let after = client.ask("many 40 10.96.9.9:80");
    assert!(!after.contains(&format!("b{index}=")), "{after}");
}

#[test]
fn sockets_of_a_gone_backend_are_destroyed_and_others_are_not() {
    if !possible("sockets_of_a_gone_backend_are_destroyed_and_others_are_not") {
        return;
    }
    let place = box_with_backends("destroy");
    let plane = place.load();
    put_service(plane.services(), 1, "10.96.9.9:53", UDP, &BACKENDS[..1], 0);
    put_service(plane.services(), 2, "10.96.9.9:80", TCP, &BACKENDS[..1], 0);
    let mut client = place.client();
    client.ask("keep-udp service 10.96.9.9:53");
    client.ask("keep-udp direct 10.244.9.1:8080");
    client.ask("keep-tcp service 10.96.9.9:80");
    assert_eq!(client.ask("use-udp service"), "b0");

    let gone = |set, protocol| Gone { set, addr: addr("10.244.9.1"), port_be: 8080u16.to_be(), protocol };
    let spared =
        plane.destroy_sockets(&[gone(9, UDP), gone(9, TCP)], &[place.namespace()]).expect("a search");
    assert_eq!(spared.sockets, 0, "the backend left another set only");
    let destroyed =
        plane.destroy_sockets(&[gone(1, UDP), gone(2, TCP)], &[place.namespace()]).expect("a search");
    assert!(destroyed.failures.is_empty(), "{:?}", destroyed.failures);
    assert_eq!(destroyed.sockets, 2);
    assert!(client.ask("use-udp service").contains("errno"), "the client notices and connects anew");
    assert!(client.ask("use-tcp service").contains("errno"));
    assert_eq!(client.ask("use-udp direct"), "b0", "who dialled the pod itself is left alone");
}

#[test]
fn a_translated_connect_costs_little() {
    if !possible("a_translated_connect_costs_little") {
        return;
    }
    let place = box_with_backends("cost");
    let plane = place.load();
    put_service(plane.services(), 1, "10.96.9.9:53", UDP, &BACKENDS, 0);
    let mut client = place.client();
    let mut cost = |to: &str| {
        // The best of several rounds: what the machine does besides is not the hook's.
        let rounds =
            (0..10).map(|_| client.ask(&format!("cost 5000 {to}")).parse::<u64>().expect("a number"));
        rounds.min().expect("a round")
    };
    let (direct, translated) = (cost("10.244.9.1:8080"), cost("10.96.9.9:53"));
    eprintln!("connect: {direct} ns direct, {translated} ns translated");
    // The goal is half a microsecond; the bound only catches what has gone badly wrong, as other tests run meanwhile.
    assert!(translated < direct + 50_000, "{translated} against {direct} ns");
    let usage = plane.usage().expect("the usage");
    let connected = usage.iter().find(|(name, ..)| *name == "connected").expect("the map");
    assert_eq!(connected.1, 0, "closed sockets leave nothing behind");
}

#[test]
fn a_namespace_that_opted_out_is_left_alone_until_it_opts_in_or_goes() {
    if !possible("a_namespace_that_opted_out_is_left_alone_until_it_opts_in_or_goes") {
        return;
    }
    let place = box_with_backends("skip");
    let plane = place.load();
    put_service(plane.services(), 1, "10.96.9.9:80", TCP, &BACKENDS[..1], 0);
    let mut client = place.client();
    let mut is_translated = || client.ask("tcp 10.96.9.9:80").starts_with("b0 ");
    assert!(is_translated());
    plane.skip_sockets(&place.namespace(), true).expect("it opts out");
    plane.skip_sockets(&place.namespace(), true).expect("again");
    assert!(!is_translated());
    plane.keep_skipped(&[place.namespace()]).expect("it is still there");
    assert!(!is_translated());
    plane.skip_sockets(&place.namespace(), false).expect("it opts in");
    assert!(is_translated());
    plane.skip_sockets(&place.namespace(), true).expect("it opts out");
    plane.keep_skipped(&[]).expect("it is gone");
    assert!(is_translated());
    plane.skip_sockets(std::path::Path::new("/run/netns/nobody"), true).expect("nothing to leave alone");
}

#[test]
fn the_node_cannot_bind_a_node_port_and_pods_can() {
    if !possible("the_node_cannot_bind_a_node_port_and_pods_can") {
        return;
    }
    let place = box_with_backends("bind");
    let plane = place.load_inside(place.options());
    let addresses = ["10.244.9.1", "127.0.0.1", "fd00:10::1", "::1"];
    plane
        .set_node_addresses(&addresses.map(|text| text.parse().expect("an address")))
        .expect("the addresses");
    for (set, address) in [(1, "127.0.0.1"), (2, "10.244.9.1"), (3, "[::1]")] {
        for protocol in [TCP, UDP] {
            let at = format!("{address}:30080");
            put_service(plane.services(), set, &at, protocol, &BACKENDS[..1], 0);
            let at: std::net::SocketAddr = at.parse().expect("an address");
            let key = FrontendKey::new(at.ip().into(), 30080u16.to_be(), protocol);
            let flags = skep_ebpf_abi::service::frontend::NODE_PORT;
            let value = Frontend { external_set: set, internal_set: set, flags };
            plane.services().apply(&Change::PutFrontend(key, value)).expect("the map accepts");
        }
    }
    let mut node = place.client();
    for at in
        ["0.0.0.0:30080", "127.0.0.1:30080", "10.244.9.1:30080", "[::]:30080", "[::ffff:10.244.9.1]:30080"]
    {
        for protocol in ["tcp", "udp"] {
            let answer = node.ask(&format!("bind {protocol} {at}"));
            assert!(answer.contains("EADDRINUSE") || answer.contains("EPERM"), "{protocol} {at}: {answer}");
        }
    }
    for at in ["0.0.0.0:30081", "127.0.0.1:0", "10.244.9.2:30080"] {
        assert_eq!(node.ask(&format!("bind tcp {at}")), "bound", "{at}");
    }
    // Programs that think another namespace the node's take this one for a pod's.
    drop(plane);
    drop(place.load());
    assert_eq!(node.ask("bind tcp 0.0.0.0:30080"), "bound");
    drop(place.load_inside(LoadOptions { free_node_ports: true, ..place.options() }));
    assert_eq!(node.ask("bind tcp 0.0.0.0:30080"), "bound");
    drop(place.load_inside(place.options()));
    assert!(!node.ask("bind tcp 0.0.0.0:30080").contains("bound"));
}
