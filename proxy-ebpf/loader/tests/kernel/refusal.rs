//! Refusing what nobody serves, on crafted packets: the answer must be what a client's stack believes.

use skep_ebpf_abi::service::{Set, frontend, set};
use skep_ebpf_abi::{ICMP, ICMP_V6, TCP, UDP};
use skep_ebpf_loader::tables::Change;

use crate::bench::{Bench, FAMILIES, POD, SHOT, UPLINK, at};
use crate::support::possible;
use crate::wire::{ACK, FIN, RST, SYN, Wire};

fn number(packet: &Wire, at: usize) -> u32 {
    u32::from_be_bytes([0, 1, 2, 3].map(|n| packet.payload[at + n]))
}

#[test]
fn tcp_is_reset_with_numbers_that_the_client_accepts() {
    if !possible("tcp_is_reset_with_numbers_that_the_client_accepts") {
        return;
    }
    let bench = Bench::new("rf-tcp");
    for family in &FAMILIES {
        let (client, service) = (at(family.client, 4000), at(family.node, 30099));
        // Flags and data; then flags, sequence and acknowledgement of the reset.
        let cases: [(u8, &[u8], u8, u32, u32); 5] = [
            (SYN, b"", RST | ACK, 0, 1001),
            (SYN, b"fast open", RST | ACK, 0, 1010),
            (SYN | FIN, b"", RST | ACK, 0, 1002),
            (ACK, b"more", RST, 2000, 0),
            (ACK | FIN, b"", RST, 2000, 0),
        ];
        for (flags, data, answer, sequence, acknowledgement) in cases {
            let mut packet = Wire::tcp(&client, &service, flags, data);
            packet.hops = 3;
            let frame = packet.bytes();
            let (_, out) = bench.run(UPLINK, &frame);
            let reset = Wire::read(&out);
            assert_eq!(out[..12], [&frame[6..12], &frame[..6]].concat(), "hardware addresses turned");
            assert_eq!(reset.ends(), (service.clone(), client.clone()));
            assert_eq!(reset.payload[13], answer, "flags of the answer to {flags}");
            assert_eq!((number(&reset, 4), number(&reset, 8)), (sequence, acknowledgement));
            assert_eq!((reset.payload[12], reset.hops), (0x50, 64));
        }
        let reset = Wire::tcp(&client, &service, RST, b"");
        assert_eq!(bench.run(UPLINK, &reset.bytes()).0, SHOT, "a reset is not answered");
    }
    assert_eq!(bench.flows(), 0, "refusing leaves nothing behind");
    assert_eq!(bench.counter("rejected"), 10);
}

#[test]
fn udp_and_sctp_are_answered_with_port_unreachable() {
    if !possible("udp_and_sctp_are_answered_with_port_unreachable") {
        return;
    }
    let bench = Bench::new("rf-icmp");
    for family in &FAMILIES {
        let (client, service) = (at(family.client, 4000), at(family.node, 30099));
        for program in [UPLINK, POD] {
            for data in [&b""[..], b"x", b"some data", &[7; 1400]] {
                for packet in [Wire::udp(&client, &service, data), Wire::sctp(&client, &service, data)] {
                    let error = Wire::read(&bench.run(program, &packet.bytes()).1);
                    let (protocol, kind) = if packet.is_v4() { (ICMP, [3, 3]) } else { (ICMP_V6, [1, 4]) };
                    assert_eq!((error.protocol, &error.payload[..2]), (protocol, &kind[..]));
                    assert_eq!((error.src, error.dst), (packet.dst, packet.src));
                    let quoted = error.quoted();
                    assert_eq!((quoted.ends(), quoted.protocol), (packet.ends(), packet.protocol));
                    if packet.protocol == UDP {
                        assert_eq!(quoted.payload.len(), 8);
                        stays_right_when_completed(&error, &quoted);
                    }
                }
            }
        }
    }
    assert_eq!(bench.flows(), 0);
}

/// Does what a device does that takes the quoted checksum for one to be completed.
#[track_caller]
fn stays_right_when_completed(error: &Wire, quoted: &Wire) {
    let at = error.payload.len() - quoted.payload.len();
    let completed = crate::wire::fold(crate::wire::sum(&error.payload[at..]));
    let mut error = error.clone();
    error.payload[at + 6..at + 8].copy_from_slice(&completed.to_be_bytes());
    assert!(error.is_sealed());
}

#[test]
fn options_and_extension_headers_are_quoted() {
    if !possible("options_and_extension_headers_are_quoted") {
        return;
    }
    let bench = Bench::new("rf-opt");
    let mut packet = Wire::udp("198.51.100.7:4000", "192.0.2.1:30099", b"data");
    packet.options = vec![1; 40];
    let quoted = Wire::read(&bench.run(UPLINK, &packet.bytes()).1).quoted();
    assert_eq!((quoted.options, quoted.payload.len()), (vec![1; 40], 8));
    let mut packet = Wire::tcp("198.51.100.7:4000", "192.0.2.1:30099", SYN, b"");
    packet.options = vec![1; 40];
    assert_eq!(number(&Wire::read(&bench.run(UPLINK, &packet.bytes()).1), 8), 1001);

    let mut packet = Wire::udp("[2001:db8:77::7]:4000", "[2001:db8::1]:30099", b"data");
    packet.options = vec![17, 0, 1, 4, 0, 0, 0, 0];
    packet.extension = 60;
    let error = Wire::read(&bench.run(UPLINK, &packet.bytes()).1);
    assert_eq!(error.payload.len(), 8 + 40 + 8 + 8, "the extension header is quoted too");
    // More of them than honest traffic has.
    packet.options = [&[60, 0, 1, 4, 0, 0, 0, 0].repeat(2), &[17, 15][..], &[0; 126]].concat();
    assert_eq!(bench.run(UPLINK, &packet.bytes()).0, SHOT);
}

#[test]
fn a_policy_that_leaves_nobody_here_drops_and_other_addresses_refuse() {
    if !possible("a_policy_that_leaves_nobody_here_drops_and_other_addresses_refuse") {
        return;
    }
    let bench = Bench::new("rf-kind");
    for (port, kind) in [
        (81, frontend::CLUSTER_IP),
        (82, frontend::EXTERNAL_IP),
        (83, frontend::LOAD_BALANCER),
        (84, frontend::NODE_PORT),
    ] {
        let service = at("203.0.113.9", port);
        bench.mark(4, &service, TCP, kind);
        for program in [UPLINK, POD] {
            let reset = bench.through(program, &Wire::tcp("198.51.100.7:4000", &service, SYN, b""));
            assert_eq!(reset.payload[13], RST | ACK);
        }
    }
    let value = Set { count: 0, flags: set::DROP_WHEN_EMPTY, affinity_seconds: 0 };
    bench.plane.services().apply(&Change::PutSet(4, value)).expect("the map accepts");
    let syn = Wire::tcp("198.51.100.7:4000", "203.0.113.9:82", SYN, b"");
    assert_eq!(bench.run(UPLINK, &syn.bytes()).0, SHOT);
    assert_eq!(bench.counter("drop_no_backend"), 1);
}

/// Somebody else's address as the source must not make this node shout at him.
#[test]
fn errors_are_limited() {
    if !possible("errors_are_limited") {
        return;
    }
    let bench = Bench::new("rf-limit");
    let packet = Wire::udp("198.51.100.7:4000", "192.0.2.1:30099", b"x").bytes();
    let answered = (0..3000).filter(|_| bench.run(UPLINK, &packet).0 != SHOT).count();
    assert!((1000..3000).contains(&answered), "{answered} of 3000");
}
