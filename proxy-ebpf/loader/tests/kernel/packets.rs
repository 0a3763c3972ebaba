//! The tc programs on crafted packets: what the wire can bring that sockets would not send.

use std::net::IpAddr;

use skep_ebpf_abi::service::{Frontend, FrontendKey, Set, frontend};
use skep_ebpf_abi::{TCP, UDP};
use skep_ebpf_loader::inspect::Inspector;
use skep_ebpf_loader::tables::{Change, RangeKey};
use skep_ebpf_loader::{DataPlane, Endpoint};

use crate::support::{TestBox, addr, possible, put_service};

const OK: u32 = 0;
const SHOT: u32 = 2;
const REDIRECT: u32 = 7;
const UPLINK: &str = "skep_uplink_in";
const POD: &str = "skep_pod_in";

/// An IPv4 packet under construction.
#[derive(Clone)]
struct V4 {
    src: [u8; 4],
    dst: [u8; 4],
    protocol: u8,
    fragment: u16,
    options: usize,
    hops: u8,
    payload: Vec<u8>,
}

fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
    bytes.chunks(2).map(word).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

impl V4 {
    fn transport(src: &str, dst: &str, protocol: u8, ports: (u16, u16), flags: u8) -> Self {
        let ip = |text: &str| match text.parse().expect("an address") {
            IpAddr::V4(v4) => v4.octets(),
            IpAddr::V6(_) => panic!("IPv4 only"),
        };
        let mut payload = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
        if protocol == TCP {
            payload.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        } else {
            payload.extend([0, 12, 0, 0, b'd', b'a', b't', b'a']);
        }
        let mut packet =
            Self { src: ip(src), dst: ip(dst), protocol, fragment: 0, options: 0, hops: 64, payload };
        packet.seal();
        packet
    }

    fn at(&self) -> usize {
        if self.protocol == TCP { 16 } else { 6 }
    }

    fn pseudo(&self) -> u32 {
        sum(&self.src) + sum(&self.dst) + u32::from(self.protocol) + self.payload.len() as u32
    }

    /// Writes the transport checksum.
    fn seal(&mut self) {
        let at = self.at();
        self.payload[at..at + 2].fill(0);
        let value = fold(self.pseudo() + sum(&self.payload));
        self.payload[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    fn bytes(&self) -> Vec<u8> {
        let mut header = vec![0x45 + (self.options / 4) as u8, 0];
        header.extend(((20 + self.options + self.payload.len()) as u16).to_be_bytes());
        header.extend([0, 7]);
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.hops, self.protocol, 0, 0]);
        header.extend(self.src);
        header.extend(self.dst);
        header.resize(20 + self.options, 1);
        let checksum = fold(sum(&header));
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        [vec![2; 12], vec![8, 0], header, self.payload.clone()].concat()
    }

    /// Reads a packet back and checks both checksums.
    #[track_caller]
    fn parse(bytes: &[u8]) -> Self {
        let ip = &bytes[14..];
        let header = usize::from(ip[0] & 15) * 4;
        assert_eq!(fold(sum(&ip[..header])), 0, "the network header's checksum");
        let array = |at: usize| [ip[at], ip[at + 1], ip[at + 2], ip[at + 3]];
        let packet = Self {
            src: array(12),
            dst: array(16),
            protocol: ip[9],
            fragment: 0,
            options: header - 20,
            hops: ip[8],
            payload: ip[header..].to_vec(),
        };
        let at = packet.at();
        if packet.payload[at..at + 2] != [0, 0] {
            assert_eq!(fold(packet.pseudo() + sum(&packet.payload)), 0, "the transport checksum");
        }
        packet
    }

    fn ports(&self) -> (u16, u16) {
        let port = |at: usize| u16::from_be_bytes([self.payload[at], self.payload[at + 1]]);
        (port(0), port(2))
    }
}

struct Bench {
    _place: TestBox,
    plane: DataPlane,
    inspector: Inspector,
}

impl Bench {
    fn new(test: &str) -> Self {
        let place = TestBox::new(test);
        let plane = place.load();
        let pod = Endpoint { ifindex: 1, pod_mac: [4; 6], host_mac: [6; 6] };
        plane.set_endpoint("10.244.9.5".parse().expect("an address"), &pod).expect("the endpoint");
        plane.set_node_addresses(&["192.0.2.1".parse().expect("an address")]).expect("the node");
        put_service(plane.services(), 1, "192.0.2.1:30080", TCP, &["10.244.9.5:8080"], 0);
        put_service(plane.services(), 2, "192.0.2.1:30053", UDP, &["10.244.9.5:53"], 0);
        let inspector = Inspector::new(&place.pin_dir);
        Self { _place: place, plane, inspector }
    }

    fn run(&self, program: &'static str, packet: &[u8]) -> (u32, Vec<u8>) {
        let ran = self.plane.test_run(program, packet, 1).expect("the program runs");
        (ran.verdict, ran.packet)
    }

    fn flows(&self) -> usize {
        self.inspector.flows().expect("flows").len()
    }
}

const SYN: u8 = 2;
const ACK: u8 = 16;

#[test]
fn there_and_back_every_header_is_right() {
    if !possible("there_and_back_every_header_is_right") {
        return;
    }
    let bench = Bench::new("pk-tcp");
    for options in [0, 4, 40] {
        let mut packet = V4::transport("198.51.100.7", "192.0.2.1", TCP, (4000 + options as u16, 30080), SYN);
        packet.options = options;
        let (verdict, out) = bench.run(UPLINK, &packet.bytes());
        assert_eq!(verdict, REDIRECT);
        assert_eq!(out[..12], [[4; 6], [6; 6]].concat(), "the pod's hardware addresses");
        let there = V4::parse(&out);
        assert_eq!((there.src, there.dst), ([198, 51, 100, 7], [10, 244, 9, 5]));
        assert_eq!(there.ports(), (4000 + options as u16, 8080));

        let answer =
            V4::transport("10.244.9.5", "198.51.100.7", TCP, (8080, 4000 + options as u16), SYN | ACK);
        let (_, out) = bench.run(POD, &answer.bytes());
        let back = V4::parse(&out);
        assert_eq!((back.src, back.dst), ([192, 0, 2, 1], [198, 51, 100, 7]));
        assert_eq!(back.ports(), (30080, 4000 + options as u16));
    }
    assert_eq!(bench.flows(), 3);
}

#[test]
fn a_udp_packet_without_a_checksum_stays_without() {
    if !possible("a_udp_packet_without_a_checksum_stays_without") {
        return;
    }
    let bench = Bench::new("pk-udp");
    let mut packet = V4::transport("198.51.100.7", "192.0.2.1", UDP, (4000, 30053), 0);
    packet.payload[6..8].fill(0);
    let (verdict, out) = bench.run(UPLINK, &packet.bytes());
    assert_eq!(verdict, REDIRECT);
    assert_eq!(V4::parse(&out).payload[6..8], [0, 0]);
}

#[test]
fn what_is_cut_short_or_strange_passes_untouched() {
    if !possible("what_is_cut_short_or_strange_passes_untouched") {
        return;
    }
    let bench = Bench::new("pk-odd");
    let whole = V4::transport("198.51.100.7", "192.0.2.1", TCP, (4000, 30080), SYN).bytes();
    let mut cases: Vec<Vec<u8>> = (34..48).map(|length| whole[..length].to_vec()).collect();
    let mut later = V4::transport("198.51.100.7", "192.0.2.1", TCP, (4000, 30080), SYN);
    later.fragment = 100;
    cases.push(later.bytes());
    let mut short_header = whole.clone();
    short_header[14] = 0x44;
    cases.push(short_header);
    let mut other = whole.clone();
    other[12..14].copy_from_slice(&[0x08, 0x06]);
    cases.push(other);
    for packet in cases {
        let (verdict, out) = bench.run(UPLINK, &packet);
        assert_eq!(verdict, OK, "{packet:?}");
        assert_eq!(out, packet);
    }
    assert_eq!(bench.flows(), 0);
}

#[test]
fn a_syn_after_a_reset_begins_anew_and_a_repeated_one_does_not() {
    if !possible("a_syn_after_a_reset_begins_anew_and_a_repeated_one_does_not") {
        return;
    }
    let bench = Bench::new("pk-syn");
    let packet = |flags| V4::transport("198.51.100.7", "192.0.2.1", TCP, (4000, 30080), flags).bytes();
    for flags in [SYN, SYN, 4, SYN] {
        assert_eq!(bench.run(UPLINK, &packet(flags)).0, REDIRECT);
    }
    let flows = bench.inspector.flows().expect("flows");
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0].1.state & 8, 0, "the reset is forgotten");
}

#[test]
fn two_services_with_one_backend_do_not_mix_a_clients_port() {
    if !possible("two_services_with_one_backend_do_not_mix_a_clients_port") {
        return;
    }
    let bench = Bench::new("pk-two");
    put_service(bench.plane.services(), 3, "192.0.2.1:30081", TCP, &["10.244.9.5:8080"], 0);
    let to = |port| V4::transport("198.51.100.7", "192.0.2.1", TCP, (4000, port), SYN).bytes();
    let first = V4::parse(&bench.run(UPLINK, &to(30080)).1);
    let second = V4::parse(&bench.run(UPLINK, &to(30081)).1);
    assert_eq!(first.ports().0, 4000);
    assert_ne!(second.ports().0, 4000, "the same five numbers would be one connection to the pod");
    let answer = |port| V4::transport("10.244.9.5", "198.51.100.7", TCP, (8080, port), SYN | ACK).bytes();
    let back = |port| V4::parse(&bench.run(POD, &answer(port)).1).ports();
    assert_eq!(back(first.ports().0), (30080, 4000));
    assert_eq!(back(second.ports().0), (30081, 4000));
}

#[test]
fn source_ranges_let_in_who_is_in_them() {
    if !possible("source_ranges_let_in_who_is_in_them") {
        return;
    }
    let bench = Bench::new("pk-range");
    let range = skep_ebpf_abi::service::SourceRange { set: 1, addr: addr("198.51.100.0") };
    let services = bench.plane.services();
    services
        .apply(&Change::PutRange(RangeKey { bits: range.prefix_bits(24), range }))
        .expect("the map accepts");
    let key = FrontendKey::new(addr("203.0.113.9"), 80u16.to_be(), TCP);
    let value = Frontend {
        external_set: 1,
        internal_set: 1,
        flags: frontend::LOAD_BALANCER | frontend::SOURCE_RANGES,
    };
    services.apply(&Change::PutFrontend(key, value)).expect("the map accepts");
    let from = |src| bench.run(UPLINK, &V4::transport(src, "203.0.113.9", TCP, (4000, 80), SYN).bytes()).0;
    assert_eq!(from("198.51.100.7"), REDIRECT);
    assert_eq!(from("198.51.101.7"), SHOT);
}

#[test]
fn affinity_of_packets_is_by_the_clients_address() {
    if !possible("affinity_of_packets_is_by_the_clients_address") {
        return;
    }
    let bench = Bench::new("pk-aff");
    let pod = Endpoint { ifindex: 1, pod_mac: [4; 6], host_mac: [6; 6] };
    let backends: Vec<String> = (10..40).map(|last| format!("10.244.9.{last}:80")).collect();
    for last in 10..40 {
        bench.plane.set_endpoint(IpAddr::from([10, 244, 9, last]), &pod).expect("the endpoint");
    }
    let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
    put_service(bench.plane.services(), 5, "192.0.2.1:30090", TCP, &backends, 60);
    let to = |src: &str, port| {
        let packet = V4::transport(src, "192.0.2.1", TCP, (port, 30090), SYN).bytes();
        V4::parse(&bench.run(UPLINK, &packet).1).dst
    };
    let first = to("198.51.100.7", 1000);
    assert!((1001..1020).all(|port| to("198.51.100.7", port) == first));
    assert!((1..20).any(|last| to(&format!("198.51.100.{}", 100 + last), 1000) != first));
}

#[test]
fn the_per_packet_cost_is_bounded() {
    if !possible("the_per_packet_cost_is_bounded") {
        return;
    }
    let bench = Bench::new("pk-cost");
    let set = Set { count: 1, flags: 0, affinity_seconds: 0 };
    bench.plane.services().apply(&Change::PutSet(1, set)).expect("the map accepts");
    let foreign = V4::transport("198.51.100.7", "192.0.2.9", TCP, (4000, 81), ACK).bytes();
    let ran = bench.plane.test_run(UPLINK, &foreign, 20_000).expect("the program runs");
    eprintln!("a packet that is not ours: {} ns", ran.nanoseconds);
    // Far above what it takes, so that a busy machine does not fail the test, and far below a lost optimisation.
    assert!(ran.nanoseconds < 5_000);
}
