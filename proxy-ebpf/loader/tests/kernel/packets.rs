//! The tc programs on crafted packets: translation there and back, and what must be left alone.

use skep_ebpf_abi::TCP;
use skep_ebpf_abi::service::{Set, frontend};
use skep_ebpf_loader::tables::Change;

use crate::bench::{Bench, FAMILIES, OK, POD, REDIRECT, SHOT, UPLINK, at};
use crate::support::{possible, put_service};
use crate::wire::{ACK, RST, SYN, Wire};

#[test]
fn there_and_back_every_header_is_right() {
    if !possible("there_and_back_every_header_is_right") {
        return;
    }
    let bench = Bench::new("pk-tcp");
    for family in &FAMILIES {
        // No options, one, as many as there can be; hop-by-hop and destination options.
        let options: [&[u8]; 3] = if family.node.contains(':') {
            [
                &[],
                &[6, 0, 1, 4, 0, 0, 0, 0],
                &[60, 0, 1, 4, 0, 0, 0, 0, 6, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ]
        } else {
            [&[], &[1, 1, 1, 1], &[1; 40]]
        };
        for (port, options) in (4000..).zip(options) {
            let mut packet = Wire::tcp(&at(family.client, port), &at(family.node, 30080), SYN, b"");
            packet.options = options.to_vec();
            let (verdict, out) = bench.run(UPLINK, &packet.bytes());
            assert_eq!(verdict, REDIRECT);
            assert_eq!(out[..12], [[4; 6], [6; 6]].concat(), "the pod's hardware addresses");
            let there = if options.is_empty() || family.node.contains('.') {
                Wire::read(&out)
            } else {
                // As if the extension headers were not there.
                let whole = [&out[..14 + 40], &out[14 + 40 + options.len()..]].concat();
                let mut whole = whole;
                whole[14 + 6] = TCP;
                Wire::read(&whole)
            };
            assert_eq!(there.ends(), (at(family.client, port), at(family.pod, 8080)));

            let answer = Wire::tcp(&at(family.pod, 8080), &at(family.client, port), SYN | ACK, b"data");
            // There is no route to the client in this namespace, so the verdict says nothing.
            let back = Wire::read(&bench.run(POD, &answer.bytes()).1);
            assert_eq!(back.ends(), (at(family.node, 30080), at(family.client, port)));
        }
    }
    assert_eq!(bench.flows(), 6);
}

#[test]
fn a_udp_packet_without_a_checksum_stays_without() {
    if !possible("a_udp_packet_without_a_checksum_stays_without") {
        return;
    }
    let bench = Bench::new("pk-udp");
    let mut packet = Wire::udp("198.51.100.7:4000", "192.0.2.1:30053", b"data");
    packet.payload[6..8].fill(0);
    assert_eq!(bench.through(UPLINK, &packet).payload[6..8], [0, 0]);
}

#[test]
fn what_is_cut_short_or_strange_passes_untouched() {
    if !possible("what_is_cut_short_or_strange_passes_untouched") {
        return;
    }
    let bench = Bench::new("pk-odd");
    for family in &FAMILIES {
        let whole = Wire::tcp(&at(family.client, 4000), &at(family.node, 30080), SYN, b"");
        let bytes = whole.bytes();
        // Up to the byte with the flags, the transport header is too short to be judged. The kernel runs no programs on
        // less than a network header.
        for length in bytes.len() - 20..bytes.len() - 6 {
            bench.untouched(UPLINK, &bytes[..length]);
        }
        let mut other = bytes.clone();
        other[12..14].copy_from_slice(&[0x08, 0x06]);
        bench.untouched(UPLINK, &other);
        let mut version = bytes.clone();
        version[14] = 0x55;
        bench.untouched(UPLINK, &version);
        let mut protocol = whole.clone();
        protocol.protocol = 47;
        bench.untouched(UPLINK, &protocol.bytes());
    }
    let mut short_header = Wire::tcp("198.51.100.7:4000", "192.0.2.1:30080", SYN, b"").bytes();
    short_header[14] = 0x44;
    bench.untouched(UPLINK, &short_header);
    // More extension headers than honest traffic has.
    let mut endless = Wire::tcp("[2001:db8:77::7]:4000", "[2001:db8::1]:30080", SYN, b"");
    endless.options = [60, 0, 1, 4, 0, 0, 0, 0].repeat(9);
    endless.extension = 60;
    bench.untouched(UPLINK, &endless.bytes());
    assert_eq!(bench.flows(), 0);
}

#[test]
fn a_syn_after_a_reset_begins_anew_and_a_repeated_one_does_not() {
    if !possible("a_syn_after_a_reset_begins_anew_and_a_repeated_one_does_not") {
        return;
    }
    let bench = Bench::new("pk-syn");
    for flags in [SYN, SYN, RST, SYN] {
        bench.through(UPLINK, &Wire::tcp("198.51.100.7:4000", "192.0.2.1:30080", flags, b""));
    }
    assert_eq!(bench.only_flow().state & 8, 0, "the reset is forgotten");
}

#[test]
fn two_services_with_one_backend_do_not_mix_a_clients_port() {
    if !possible("two_services_with_one_backend_do_not_mix_a_clients_port") {
        return;
    }
    let bench = Bench::new("pk-two");
    for (family, set) in FAMILIES.iter().zip([31, 32]) {
        bench.serve(set, &at(family.node, 30081), TCP, &[&at(family.pod, 8080)]);
        let to = |port| Wire::tcp(&at(family.client, 4000), &at(family.node, port), SYN, b"");
        let first = bench.through(UPLINK, &to(30080)).ports().0;
        let second = bench.through(UPLINK, &to(30081)).ports().0;
        assert_eq!(first, 4000);
        assert_ne!(second, 4000, "the same five numbers would be one connection to the pod");
        let back = |port| {
            let answer = Wire::tcp(&at(family.pod, 8080), &at(family.client, port), SYN | ACK, b"");
            Wire::read(&bench.run(POD, &answer.bytes()).1).ports()
        };
        assert_eq!(back(first), (30080, 4000));
        assert_eq!(back(second), (30081, 4000));
    }
}

#[test]
fn source_ranges_let_in_who_is_in_them_from_outside_and_from_pods() {
    if !possible("source_ranges_let_in_who_is_in_them_from_outside_and_from_pods") {
        return;
    }
    let bench = Bench::new("pk-range");
    bench.allow(1, "198.51.100.0", 24);
    bench.allow(1, "10.244.9.6", 32);
    bench.mark(1, "203.0.113.9:80", TCP, frontend::LOAD_BALANCER | frontend::SOURCE_RANGES);
    let from = |program, src: &str| {
        bench.run(program, &Wire::tcp(&at(src, 4000), "203.0.113.9:80", SYN, b"").bytes()).0
    };
    assert_eq!(from(UPLINK, "198.51.100.7"), REDIRECT);
    assert_eq!(from(UPLINK, "198.51.101.7"), SHOT);
    assert_eq!(from(POD, "10.244.9.6"), REDIRECT);
    assert_eq!(from(POD, "10.244.9.7"), SHOT);
    assert_eq!(bench.counter("drop_source_range"), 2);
}

#[test]
fn affinity_of_packets_is_by_the_clients_address() {
    if !possible("affinity_of_packets_is_by_the_clients_address") {
        return;
    }
    let bench = Bench::new("pk-aff");
    let backends: Vec<String> = (10..40).map(|last| format!("10.244.9.{last}:80")).collect();
    for last in 10..40 {
        bench.add_pod(&format!("10.244.9.{last}"));
    }
    let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
    put_service(bench.plane.services(), 55, "192.0.2.1:30090", TCP, &backends, 60);
    let to =
        |src: &str, port| bench.through(UPLINK, &Wire::tcp(&at(src, port), "192.0.2.1:30090", SYN, b"")).dst;
    let first = to("198.51.100.7", 1000);
    assert!((1001..1020).all(|port| to("198.51.100.7", port) == first));
    assert!((1..20).any(|last| to(&format!("198.51.100.{}", 100 + last), 1000) != first));
}

/// SCTP's checksum is a polynomial's remainder: a changed port goes through all of it.
#[test]
fn sctp_ports_change_and_the_checksum_follows() {
    if !possible("sctp_ports_change_and_the_checksum_follows") {
        return;
    }
    let bench = Bench::new("pk-sctp");
    for family in &FAMILIES {
        for length in [0, 4, 13, 600, 1400] {
            let data: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let client = at(family.client, 4000 + length);
            let there = bench.through(UPLINK, &Wire::sctp(&client, &at(family.node, 30036), &data));
            assert_eq!(there.ends(), (client.clone(), at(family.pod, 36)));
            let answer = Wire::sctp(&at(family.pod, 36), &client, &data);
            let back = Wire::read(&bench.run(POD, &answer.bytes()).1);
            assert_eq!(back.ends(), (at(family.node, 30036), client));
        }
        // Zero is for a device to fill in.
        let mut offloaded = Wire::sctp(&at(family.client, 9), &at(family.node, 30036), b"data");
        offloaded.payload[8..12].fill(0);
        let (verdict, out) = bench.run(UPLINK, &offloaded.bytes());
        let there = Wire::read_unchecked(&out[14..]);
        assert_eq!((verdict, there.ports(), &there.payload[8..12]), (REDIRECT, (9, 36), &[0; 4][..]));
        // The checksum is over a datagram of unknown length.
        let fragment =
            &Wire::sctp(&at(family.client, 10), &at(family.node, 30036), &[7; 100]).fragments(64)[0];
        assert_eq!(bench.run(UPLINK, &fragment.bytes()).0, SHOT);
    }
}

#[test]
fn the_per_packet_cost_is_bounded() {
    if !possible("the_per_packet_cost_is_bounded") {
        return;
    }
    let bench = Bench::new("pk-cost");
    let set = Set { count: 1, flags: 0, affinity_seconds: 0 };
    bench.plane.services().apply(&Change::PutSet(1, set)).expect("the map accepts");
    let foreign = Wire::tcp("198.51.100.7:4000", "192.0.2.9:81", ACK, b"").bytes();
    let ran = bench.plane.test_run(UPLINK, &foreign, 20_000).expect("the program runs");
    eprintln!("a packet that is not ours: {} ns", ran.nanoseconds);
    // Far above what it takes, so that a busy machine does not fail the test, and far below a lost optimisation.
    assert!(ran.verdict == OK && ran.nanoseconds < 5_000);
}
