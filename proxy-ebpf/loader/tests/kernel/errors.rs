//! ICMP errors on crafted packets: every type, both families, both directions, about every protocol.
//!
//! An error must reach the one whose packet it is about, from an address that it may come from, and quote exactly what
//! was sent. For "fragmentation needed" and "packet too big" that is path-MTU discovery.

use crate::bench::{Bench, FAMILIES, Family, HOST, OK, POD, UPLINK, at};
use crate::support::possible;
use crate::wire::{ACK, SYN, Wire};

/// Kind and code, by family.
const KINDS: [&[[u8; 2]]; 2] = [
    // Unreachable: net, host, protocol, port, fragmentation needed; quench; redirect; time exceeded; bad parameter.
    &[[3, 0], [3, 1], [3, 2], [3, 3], [3, 4], [4, 0], [5, 1], [11, 0], [11, 1], [12, 0]],
    // Unreachable: no route, port; packet too big; time exceeded; bad parameter.
    &[[1, 0], [1, 4], [2, 0], [3, 0], [4, 1]],
];

/// A packet of a client to a service, and of the pod's answer.
fn pairs(family: &Family, client_port: u16) -> [(Wire, u16); 3] {
    let client = at(family.client, client_port);
    [
        (Wire::tcp(&client, &at(family.node, 30080), SYN, b"data"), 8080),
        (Wire::udp(&client, &at(family.node, 30053), b"data"), 53),
        (Wire::sctp(&client, &at(family.node, 30036), b"data"), 36),
    ]
}

/// The other direction of a packet.
fn answer(packet: &Wire) -> Wire {
    let (from, to) = packet.ends();
    match packet.protocol {
        6 => Wire::tcp(&to, &from, SYN | ACK, b"answer"),
        17 => Wire::udp(&to, &from, b"answer"),
        _ => Wire::sctp(&to, &from, b"answer"),
    }
}

#[test]
fn errors_about_what_went_to_a_pod_come_back_as_if_the_service_had_sent_them() {
    if !possible("errors_about_what_went_to_a_pod_come_back_as_if_the_service_had_sent_them") {
        return;
    }
    let bench = Bench::new("ic-back");
    for (family, kinds) in FAMILIES.iter().zip(KINDS) {
        for (packet, port) in pairs(family, 4000) {
            let sent = bench.run(UPLINK, &packet.bytes()).1;
            assert_eq!(Wire::read(&sent).ports().1, port);
            // By the pod itself, and by something in between; quoting all, and as little as must be.
            let least = 14 + if packet.is_v4() { 28 } else { 48 };
            for (by, length) in [(family.pod, sent.len()), (family.pod, least), (family.client, sent.len())] {
                for kind in kinds {
                    let about = &sent[..length];
                    let error = Wire::error(by, family.client, *kind, 1280, about);
                    let (_, out) = bench.run(POD, &error.bytes());
                    let back = Wire::read(&out);
                    let source = if by == family.pod { family.node } else { by };
                    assert_eq!((back.src.to_string(), back.dst), (source.to_owned(), packet.src));
                    assert_eq!(back.payload[..2], kind[..]);
                    assert_eq!(back.payload[4..8], 1280_u32.to_be_bytes(), "the size that fits is told");
                    assert_eq!(back.quoted().ends(), packet.ends(), "{kind:?} by {by}");
                }
            }
        }
    }
}

#[test]
fn errors_about_answers_reach_the_pod_as_if_it_had_sent_to_the_client() {
    if !possible("errors_about_answers_reach_the_pod_as_if_it_had_sent_to_the_client") {
        return;
    }
    let bench = Bench::new("ic-there");
    for (family, kinds) in FAMILIES.iter().zip(KINDS) {
        for (packet, _) in pairs(family, 4000) {
            let there = bench.through(UPLINK, &packet);
            let answer = answer(&there);
            let (_, sent) = bench.run(POD, &answer.bytes());
            let router = if family.client.contains(':') { "2001:db8:77::1" } else { "198.51.100.1" };
            for by in [family.client, router] {
                for kind in kinds {
                    let error = Wire::error(by, family.node, *kind, 1280, &sent);
                    let back = bench.through(UPLINK, &error);
                    assert_eq!((back.src.to_string(), back.dst), (by.to_owned(), there.dst));
                    assert_eq!(back.quoted().ends(), answer.ends(), "{kind:?} by {by}");
                    assert_eq!(back.payload[..2], kind[..]);
                }
            }
        }
    }
}

#[test]
fn errors_of_the_node_itself_are_translated_on_their_way_out() {
    if !possible("errors_of_the_node_itself_are_translated_on_their_way_out") {
        return;
    }
    let bench = Bench::new("ic-host");
    for (family, set) in FAMILIES.iter().zip([41, 42]) {
        bench.serve(set, &at(family.node, 30060), skep_ebpf_abi::UDP, &[&at(family.node, 9)]);
        let packet = Wire::udp(&at(family.client, 4000), &at(family.node, 30060), b"data");
        let (verdict, sent) = bench.run(UPLINK, &packet.bytes());
        assert_eq!((verdict, Wire::read(&sent).ports().1), (OK, 9));
        let kind = if family.node.contains(':') { [1, 4] } else { [3, 3] };
        let error = Wire::error(family.node, family.client, kind, 0, &sent);
        let (verdict, out) = bench.run(HOST, &error.bytes());
        assert_eq!((verdict, Wire::read(&out).quoted().ends()), (OK, packet.ends()));
    }
}

#[test]
fn errors_about_other_things_and_odd_ones_pass_untouched() {
    if !possible("errors_about_other_things_and_odd_ones_pass_untouched") {
        return;
    }
    let bench = Bench::new("ic-odd");
    for (family, kind) in FAMILIES.iter().zip([[3, 3], [1, 4]]) {
        let service = at(family.node, 30053);
        let there = bench.run(UPLINK, &Wire::udp(&at(family.client, 4000), &service, b"data").bytes()).1;
        let about_nothing = Wire::udp(&at(family.pod, 7), &at(family.client, 7), b"data").bytes();
        bench.untouched(UPLINK, &Wire::error(family.client, family.pod, kind, 0, &about_nothing).bytes());
        // A quotation too short to tell ports, one of a later fragment, and one of an error.
        let header = if family.node.contains(':') { 40 } else { 20 };
        bench.untouched(
            POD,
            &Wire::error("203.0.113.1", "203.0.113.2", [3, 3], 0, &there[..14 + header + 3]).bytes(),
        );
        let fragment = Wire { fragment: Some((800, false)), ..Wire::read(&there) }.bytes();
        bench.untouched(UPLINK, &Wire::error(family.client, "192.0.2.77", kind, 0, &fragment).bytes());
        let inner = Wire::error(family.client, family.pod, kind, 0, &there).bytes();
        bench.untouched(UPLINK, &Wire::error(family.client, family.pod, kind, 0, &inner).bytes());
    }
}

/// Echoes have an identifier where others have ports.
#[test]
fn echoes_leave_the_cluster_under_another_identifier_and_errors_find_back() {
    if !possible("echoes_leave_the_cluster_under_another_identifier_and_errors_find_back") {
        return;
    }
    let bench = Bench::new("ic-echo");
    let networks = ["10.244.0.0", "fd00:9::"].map(|text| text.parse().expect("an address"));
    bench.plane.set_masquerade(&[(networks[0], 16), (networks[1], 64)]).expect("masquerade");
    for (family, kind) in FAMILIES.iter().zip([[11, 0], [3, 0]]) {
        let echo = Wire::echo(family.pod, family.client, 77);
        let (_, sent) = bench.run(POD, &echo.bytes());
        let out = Wire::read(&sent);
        assert_eq!(out.src.to_string(), family.node);
        let identifier = u16::from_be_bytes([out.payload[4], out.payload[5]]);
        assert_ne!(identifier, 77);
        let mut reply = Wire::echo(family.client, family.node, identifier);
        reply.payload[0] = if out.is_v4() { 0 } else { 129 };
        reply.seal();
        let back = bench.through(UPLINK, &reply);
        assert_eq!((back.dst, &back.payload[4..6]), (echo.src, &77_u16.to_be_bytes()[..]));
        let error = bench.through(UPLINK, &Wire::error(family.client, family.node, kind, 0, &sent));
        assert_eq!(error.dst, echo.src);
        let quoted = error.quoted();
        assert_eq!((quoted.src, &quoted.payload[4..6]), (echo.src, &77_u16.to_be_bytes()[..]));
    }
}
