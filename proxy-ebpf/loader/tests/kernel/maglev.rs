//! Backends chosen by the hash of a flow: as the table says, on every node alike, and without it by chance.

use std::collections::BTreeMap;

use skep_ebpf_abi::TCP;
use skep_ebpf_abi::hash::{client, words};
use skep_ebpf_abi::maglev::{PAGE, SEED, place};
use skep_ebpf_abi::service::{Set, set};
use skep_ebpf_loader::tables::{Change, HashTable};

use crate::bench::{Bench, FAMILIES, UPLINK, at};
use crate::support::{addr, possible, put_service};
use crate::wire::{SYN, Wire};

const PORT: u16 = 30085;

/// The addresses of `count` pods beside the one that is there.
fn pods(family: usize, count: u16) -> Vec<String> {
    let pod = |last| if family == 0 { format!("10.244.9.{last}") } else { format!("fd00:9::{last}") };
    (10..10 + count).map(pod).collect()
}

/// A service whose backends are `order` of the pods, as set `id`, with its table of hashes.
fn serve(bench: &Bench, id: u32, family: usize, order: &[String], affinity_seconds: u32) -> HashTable {
    for pod in order {
        bench.add_pod(pod);
    }
    let backends: Vec<String> = order.iter().map(|pod| at(pod, 8080)).collect();
    let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
    let frontend = at(FAMILIES[family].node, PORT);
    put_service(bench.plane.services(), id, &frontend, TCP, &backends, affinity_seconds);
    // By name, as the proxy does, whatever the numbers are.
    let number = |pod: &String| {
        let [a, b, c, d] = addr(pod).words_be.map(u64::from);
        words(a, b, c, d)
    };
    let named: BTreeMap<u64, u32> = order.iter().map(number).zip(id * 100..).collect();
    let table = HashTable::new(&named.into_iter().collect::<Vec<_>>()).expect("a table");
    let set = Set { count: order.len() as u32, flags: set::MAGLEV, affinity_seconds };
    for change in [Change::PutTable(id, table.clone()), Change::PutSet(id, set)] {
        bench.plane.services().apply(&change).expect("the map accepts");
    }
    table
}

/// The pod that a client's connection is sent to.
fn sent(bench: &Bench, family: usize, port: u16) -> String {
    let node = at(FAMILIES[family].node, PORT);
    let packet = Wire::tcp(&at(FAMILIES[family].client, port), &node, SYN, b"");
    bench.through(UPLINK, &packet).ends().1
}

/// The backend of set 40 that the table has for a client's connection, by its place in the set.
fn said(table: &HashTable, family: usize, port: u16) -> usize {
    let from = addr(FAMILIES[family].client);
    let (page, entry) = place(client(SEED, &from, port.to_be(), PORT.to_be(), TCP));
    table.entries()[page as usize * PAGE + entry as usize] as usize - 4000
}

#[test]
fn flows_go_where_the_table_says_on_every_node() {
    if !possible("flows_go_where_the_table_says_on_every_node") {
        return;
    }
    let (one, other) = (Bench::new("ml-one"), Bench::new("ml-other"));
    for family in 0..2 {
        let mut order = pods(family, 30);
        let table = serve(&one, 40, family, &order, 0);
        order.reverse();
        serve(&other, 77, family, &order, 0);
        order.reverse();
        let mut shares = BTreeMap::<String, u32>::new();
        for port in 2000..2200 {
            let chosen = sent(&one, family, port);
            assert_eq!(chosen, sent(&other, family, port), "nodes choose alike");
            assert_eq!(chosen, at(&order[said(&table, family, port)], 8080));
            *shares.entry(chosen).or_default() += 1;
        }
        assert!(shares.len() > 20, "{shares:?}");
    }
}

#[test]
fn a_client_that_sticks_gets_the_same_backend_from_every_node() {
    if !possible("a_client_that_sticks_gets_the_same_backend_from_every_node") {
        return;
    }
    let (one, other) = (Bench::new("ml-stick"), Bench::new("ml-stuck"));
    serve(&one, 40, 0, &pods(0, 30), 60);
    serve(&other, 40, 0, &pods(0, 30), 60);
    let first = sent(&one, 0, 2000);
    assert!((2001..2020).all(|port| sent(&other, 0, port) == first));
}

#[test]
fn without_its_table_a_set_is_served_by_chance() {
    if !possible("without_its_table_a_set_is_served_by_chance") {
        return;
    }
    let bench = Bench::new("ml-none");
    let order = pods(0, 2);
    let table = serve(&bench, 40, 0, &order, 0);
    bench.plane.services().apply(&Change::RemoveTable(40)).expect("removed");
    assert!((2000..2060).any(|port| sent(&bench, 0, port) != at(&order[said(&table, 0, port)], 8080)));
}

#[test]
fn a_table_is_read_as_it_was_written_and_leaves_nothing() {
    if !possible("a_table_is_read_as_it_was_written_and_leaves_nothing") {
        return;
    }
    let bench = Bench::new("ml-read");
    let tables = [serve(&bench, 40, 0, &pods(0, 7), 0), serve(&bench, 41, 1, &pods(1, 9), 0)];
    let read = bench.plane.services().read().expect("tables").hashed;
    assert_eq!(read, [(40, tables[0].digest()), (41, tables[1].digest())].into());
    let smaller = serve(&bench, 40, 0, &pods(0, 6), 0);
    assert_ne!(smaller.digest(), tables[0].digest());
    let again = bench.plane.services().read().expect("tables").hashed;
    assert_eq!(again[&40], smaller.digest());
    for id in [40, 41] {
        bench.plane.services().apply(&Change::RemoveTable(id)).expect("removed");
    }
    assert!(bench.plane.services().read().expect("tables").hashed.is_empty());
}
