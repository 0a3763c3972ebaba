//! Maps that grow while they are in use.

use std::collections::BTreeMap;

use skep_ebpf_abi::{TCP, UDP};
use skep_ebpf_loader::inspect::Inspector;
use skep_ebpf_loader::{DataPlane, Error};

use crate::node_port::Net;
use crate::support::{TestBox, possible, put_service, serve};
use crate::traffic::Traffic;

/// The least that a test fills.
fn small(place: &TestBox) -> DataPlane {
    let mut options = place.options();
    for name in
        ["frontends", "sets", "slots", "backends", "affinity_match", "connected", "flows", "flow_index"]
    {
        options.map_sizes.insert(name.to_owned(), 1024);
    }
    DataPlane::load(options).expect("the data plane loads")
}

fn limit(place: &TestBox, name: &str) -> u32 {
    let usage = Inspector::new(&place.pin_dir).usage().expect("the usage");
    usage.iter().find(|map| map.name == name).expect("the map").limit
}

#[test]
fn maps_grow_under_traffic_without_a_connection_noticing() {
    if !possible("maps_grow_under_traffic_without_a_connection_noticing") {
        return;
    }
    let net = Net::with("grow", small);
    serve(&net.pod(5), "10.244.9.5:8080", "pod5");
    serve(&net.pod(6), "10.244.9.6:8080", "pod6");
    net.place.serve("192.0.2.1:9090", "host");
    let services = net.plane.services();
    put_service(services, 1, "192.0.2.1:30080", TCP, &["10.244.9.5:8080", "10.244.9.6:8080"], 0);
    put_service(services, 2, "192.0.2.1:30053", UDP, &["10.244.9.5:8080"], 0);
    put_service(services, 3, "10.96.9.9:80", TCP, &["192.0.2.1:9090"], 0);
    let mut client = net.place.client();
    for number in 0..20 {
        client.ask(&format!("keep-tcp s{number} 10.96.9.9:80"));
    }
    let traffic = Traffic::start(&net.client(), "192.0.2.1:30080", "192.0.2.1:30053", 30);
    let before = services.read().expect("tables");
    for limit in [1025, 5_000, 20_000] {
        let wanted: BTreeMap<&str, u32> =
            ["frontends", "slots", "backends", "connected", "flows"].map(|name| (name, limit)).into();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                net.enter();
                let grown = net.plane.make_room(&wanted).expect("room");
                assert_eq!(grown.len(), 6, "{grown:?}");
                assert!(net.plane.make_room(&wanted).expect("again").is_empty());
            });
        });
        // Through the socket meanwhile.
        assert_eq!(client.ask("many 20 10.96.9.9:80"), "host=20");
    }
    let tally = traffic.stop();
    eprintln!("{tally:?}, {} held", net.counter("drop_hold"));
    tally.assert_whole();
    assert_eq!(net.plane.services().read().expect("tables"), before);
    for name in ["frontends", "slots", "backends", "connected", "flows", "flow_index"] {
        assert!(limit(&net.place, name) >= 20_000, "{name}");
    }
    assert_eq!(limit(&net.place, "sets"), 1024, "it was not asked for");
    for number in 0..20 {
        assert_eq!(client.ask(&format!("use-tcp s{number}")), "host");
    }
    let connected = net.plane.usage().expect("the usage");
    let connected = connected.iter().find(|(name, ..)| *name == "connected").expect("the map").1;
    assert_eq!(connected, 20, "sockets that ended meanwhile left nothing behind");
    assert!(client.ask("tcp 10.96.9.9:80").ends_with(" 10.96.9.9:80"), "getpeername shows the cluster IP");
    let names: Vec<String> = std::fs::read_dir(net.place.pin_dir.join(skep_ebpf_loader::LAYOUT_FOLDER))
        .expect("the pins")
        .map(|entry| entry.expect("a pin").file_name().to_string_lossy().into_owned())
        .collect();
    assert!(!names.iter().any(|name| name.contains('-')), "{names:?}");
}

#[test]
fn an_exchange_that_was_broken_off_is_ended_by_the_next_agent() {
    if !possible("an_exchange_that_was_broken_off_is_ended_by_the_next_agent") {
        return;
    }
    let place = TestBox::new("broken");
    place.ip("addr add 10.244.9.1/32 dev lo");
    place.serve("10.244.9.1:8080", "b0");
    let plane = small(&place);
    put_service(plane.services(), 1, "10.96.9.9:80", TCP, &["10.244.9.1:8080"], 0);
    let folder = place.pin_dir.join(skep_ebpf_loader::LAYOUT_FOLDER);
    let rename = |from: &str, to: &str| std::fs::rename(folder.join(from), folder.join(to)).expect("renamed");
    drop(plane);
    // Died between the two renames of one map.
    rename("slots", "slots-next");
    // Died before all programs had the larger map: what the smaller one holds is not lost.
    rename("backends", "backends-old");
    let plane = place.load();
    assert_eq!(place.client().ask("many 20 10.96.9.9:80"), "b0=20");
    let tables = plane.services().read().expect("tables");
    assert_eq!((tables.slots.len(), tables.backends.len()), (1, 1));
    assert!(!folder.join("backends-old").exists() && !folder.join("slots-next").exists());
}

#[test]
fn maps_do_not_grow_beyond_what_they_may_take() {
    if !possible("maps_do_not_grow_beyond_what_they_may_take") {
        return;
    }
    let place = TestBox::new("cap");
    let mut options = place.options();
    options.map_memory = Some(64 << 20);
    let plane = DataPlane::load(options).expect("the data plane loads");
    let refused = plane.make_room(&[("flows", 4_000_000)].into());
    assert!(matches!(refused, Err(Error::NoMemory { .. })), "{refused:?}");
    assert!(limit(&place, "flows") < 4_000_000);
    plane.make_room(&[("sets", 20_000)].into()).expect("that is little");
    assert!(limit(&place, "sets") >= 20_000);
}
