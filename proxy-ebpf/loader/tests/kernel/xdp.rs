//! The XDP program of the uplink: crafted packets for every branch, and connections from outside.

use std::collections::BTreeMap;

use skep_ebpf_abi::service::{SourceRange, frontend};
use skep_ebpf_abi::{TCP, UDP};
use skep_ebpf_loader::inspect::Inspector;
use skep_ebpf_loader::tables::{Change, RangeKey};
use skep_ebpf_loader::{DataPlane, Error, LoadOptions, XdpChoice, XdpMode, XdpState};

use crate::bench::{REDIRECT, UPLINK, at};
use crate::node_port::{Net, ifindex, mark_node_port, tcp, udp};
use crate::support::{TestBox, addr, inside, possible, put_service, serve};
use crate::sys::complete_checksums;
use crate::wire::{ACK, SYN, Wire};

const DROP: u32 = 1;
const PASS: u32 = 2;
const TX: u32 = 3;
/// The client's, the node's and the other backend's addresses, and a pod's.
const FAMILIES: [[&str; 4]; 2] = [
    ["192.0.2.2", "192.0.2.1", "192.0.2.3", "10.244.9.5"],
    ["2001:db8::2", "2001:db8::1", "2001:db8::3", "fd00:9::5"],
];
const NEIGHBOUR: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

/// The network with the program on its uplink.
struct Bench {
    net: Net,
    uplink: u32,
}

impl Bench {
    fn new(test: &str, choice: XdpChoice) -> Self {
        let net = Net::new(test);
        let bench = Self { uplink: ifindex(&net.place.namespace(), "up0"), net };
        let state = bench.attach(bench.uplink, choice);
        assert!(state.mode.is_some(), "{state:?}");
        bench
    }

    fn attach(&self, ifindex: u32, choice: XdpChoice) -> XdpState {
        self.inside(|| self.net.plane.attach_xdp(ifindex, choice).expect("attached or not"))
    }

    /// Runs on a thread inside the node's namespace.
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = || {
                self.net.enter();
                work()
            };
            scope.spawn(inside).join().expect("the work inside")
        })
    }

    fn run(&self, packet: &[u8]) -> (u32, Vec<u8>) {
        let ran = self.inside(|| self.net.plane.test_run_xdp(self.uplink, packet, 1));
        let ran = ran.expect("the program runs");
        (ran.verdict, ran.packet)
    }

    /// A packet that must go out again where it came in, to the neighbour.
    #[track_caller]
    fn through(&self, packet: &Wire) -> Wire {
        let (verdict, out) = self.run(&packet.bytes());
        assert_eq!(verdict, TX, "{packet:x?}");
        assert_eq!(out[..6], NEIGHBOUR, "the next hop");
        assert_ne!(out[6..12], [0; 6], "from the interface");
        let out = Wire::read(&out);
        assert_eq!(out.hops, packet.hops - 1);
        out
    }

    #[track_caller]
    fn passes(&self, packet: &[u8]) {
        let (verdict, out) = self.run(packet);
        assert_eq!((verdict, out.as_slice()), (PASS, packet), "{packet:x?}");
    }

    /// Ports 30080 of TCP and 30053 of UDP lead to the backend elsewhere, 30081 to a pod, 30099 to nobody.
    fn serve(&self) {
        let services = self.net.plane.services();
        for ([client, node, far, pod], base) in FAMILIES.into_iter().zip([0, 10]) {
            let ports: [(u32, u16, u8, &[&str]); 4] = [
                (1, 30080, TCP, &[&at(far, 8080)]),
                (2, 30053, UDP, &[&at(far, 8080)]),
                (3, 30081, TCP, &[&at(pod, 8080)]),
                (4, 30099, TCP, &[]),
            ];
            for (set, port, protocol, backends) in ports {
                put_service(services, base + set, &at(node, port), protocol, backends, 0);
            }
            // The kernel asks nobody during a test.
            let mac = NEIGHBOUR.map(|byte| format!("{byte:02x}")).join(":");
            for neighbour in [client, far] {
                self.net.place.ip(&format!("neigh replace {neighbour} lladdr {mac} dev up0 nud permanent"));
            }
        }
    }

    fn flows(&self) -> usize {
        Inspector::new(&self.net.place.pin_dir).flows().expect("flows").len()
    }
}

#[test]
fn a_packet_to_another_node_turns_round_with_every_header_right() {
    if !possible("a_packet_to_another_node_turns_round_with_every_header_right") {
        return;
    }
    let bench = Bench::new("xd-turn", XdpChoice::Native);
    bench.serve();
    for [client, node, far, _] in FAMILIES {
        for (port, data) in (4000..).zip([&b""[..], b"x", b"some more"]) {
            let there = bench.through(&Wire::tcp(&at(client, port), &at(node, 30080), SYN, data));
            assert_eq!((there.src.to_string(), there.ends().1), (node.to_owned(), at(far, 8080)));
            let taken = there.ports().0;
            assert!((10_240..30_000).contains(&taken), "{taken}");
            let answer = Wire::tcp(&at(far, 8080), &at(node, taken), SYN | ACK, data);
            let back = bench.through(&answer);
            assert_eq!(back.ends(), (at(node, 30080), at(client, port)));
            let again = bench.through(&Wire::tcp(&at(client, port), &at(node, 30080), ACK, data));
            assert_eq!(again.ends(), there.ends(), "the flow is known");

            let there = bench.through(&Wire::udp(&at(client, port), &at(node, 30053), data));
            assert_eq!(there.ends().1, at(far, 8080));
            let back = bench.through(&Wire::udp(&at(far, 8080), &at(node, there.ports().0), data));
            assert_eq!(back.ends(), (at(node, 30053), at(client, port)));
        }
    }
    let mut bare = Wire::udp("192.0.2.2:5000", "192.0.2.1:30053", b"data");
    bare.payload[6..8].fill(0);
    assert_eq!(bench.through(&bare).payload[6..8], [0, 0], "without a checksum it stays without");
    assert_eq!(bench.flows(), 13);
    assert_eq!(bench.net.counter("xdp_forwarded"), 31);
}

#[test]
fn what_is_for_this_node_passes_and_the_stack_knows_the_flow() {
    if !possible("what_is_for_this_node_passes_and_the_stack_knows_the_flow") {
        return;
    }
    let bench = Bench::new("xd-pod", XdpChoice::Native);
    bench.serve();
    for [client, node, _, pod] in FAMILIES {
        let packet = Wire::tcp(&at(client, 4000), &at(node, 30081), SYN, b"").bytes();
        bench.passes(&packet);
        let before = bench.flows();
        let ran = bench.inside(|| bench.net.plane.test_run(UPLINK, &packet, 1)).expect("the program runs");
        assert_eq!(ran.verdict, REDIRECT);
        assert_eq!(Wire::read(&ran.packet).ends(), (at(client, 4000), at(pod, 8080)));
        assert_eq!(bench.flows(), before, "the flow was open");
    }
    assert_eq!(bench.net.counter("xdp_forwarded"), 0);
}

#[test]
fn what_xdp_cannot_do_passes_as_it_is() {
    if !possible("what_xdp_cannot_do_passes_as_it_is") {
        return;
    }
    let bench = Bench::new("xd-pass", XdpChoice::Native);
    bench.serve();
    for [client, node, far, _] in FAMILIES {
        let (client, stranger) = (at(client, 4000), at(client, 4001));
        bench.passes(&Wire::tcp(&client, &at(node, 22), SYN, b"").bytes());
        bench.passes(&Wire::tcp(&client, &at(node, 30099), SYN, b"").bytes());
        bench.passes(&Wire::sctp(&client, &at(node, 30080), b"data").bytes());
        for fragment in Wire::udp(&client, &at(node, 30053), &[7; 100]).fragments(64) {
            bench.passes(&fragment.bytes());
        }
        let whole = Wire::tcp(&client, &at(node, 30080), SYN, b"");
        let mut last_hop = whole.clone();
        last_hop.hops = 1;
        bench.passes(&last_hop.bytes());
        let mut other = whole.bytes();
        other[12..14].copy_from_slice(&[0x08, 0x06]);
        bench.passes(&other);
        let bytes = whole.bytes();
        for length in bytes.len() - 20..bytes.len() - 6 {
            bench.passes(&bytes[..length]);
        }
        // Longer than the wire takes: the stack says so to the sender.
        bench.passes(&Wire::udp(&stranger, &at(node, 30053), &[7; 1600]).bytes());
        // Whose hardware address nobody knows.
        bench.net.place.ip(&format!("neigh del {far} dev up0"));
        bench.passes(&Wire::tcp(&stranger, &at(node, 30080), SYN, b"").bytes());
    }
    assert_eq!(bench.net.counter("xdp_forwarded"), 0);
}

#[test]
fn who_is_not_in_a_services_ranges_is_dropped() {
    if !possible("who_is_not_in_a_services_ranges_is_dropped") {
        return;
    }
    let bench = Bench::new("xd-range", XdpChoice::Native);
    bench.serve();
    let range = SourceRange { set: 1, addr: addr("198.51.100.0") };
    let key = RangeKey { bits: range.prefix_bits(24), range };
    bench.net.plane.services().apply(&Change::PutRange(key)).expect("the map accepts");
    mark_node_port(&bench.net, 1, "192.0.2.1", 30080, TCP, frontend::SOURCE_RANGES);
    let (verdict, _) = bench.run(&Wire::tcp("192.0.2.2:4000", "192.0.2.1:30080", SYN, b"").bytes());
    assert_eq!((verdict, bench.net.counter("drop_source_range")), (DROP, 1));
    assert_eq!(bench.flows(), 0);
}

#[test]
fn the_mode_falls_back_and_is_shown() {
    if !possible("the_mode_falls_back_and_is_shown") {
        return;
    }
    let bench = Bench::new("xd-mode", XdpChoice::Auto);
    let links = || {
        let links = Inspector::new(&bench.net.place.pin_dir).links().expect("links");
        let names = links.into_iter().map(|link| link.name).filter(|name| name.starts_with("xdp-"));
        names.collect::<Vec<_>>().join(" ")
    };
    let uplink = bench.uplink;
    assert_eq!(links(), format!("xdp-native-{uplink}"));
    // Loopback has no driver that could.
    let state = bench.attach(1, XdpChoice::Native);
    assert_eq!((state.mode, state.refused.len()), (None, 1), "{state:?}");
    let state = bench.attach(1, XdpChoice::Auto);
    assert_eq!((state.mode, state.refused.len()), (Some(XdpMode::Generic), 1), "{state:?}");
    assert_eq!(links(), format!("xdp-generic-1 xdp-native-{uplink}"));
    let state = bench.attach(uplink, XdpChoice::Generic);
    assert_eq!(state, XdpState { mode: Some(XdpMode::Generic), refused: Vec::new() });
    assert_eq!(bench.attach(uplink, XdpChoice::Generic), state, "again is success");
    assert_eq!(links(), format!("xdp-generic-1 xdp-generic-{uplink}"));
    assert_eq!(bench.attach(uplink, XdpChoice::Off), XdpState::default());
    bench.net.plane.leave_services().expect("left");
    assert_eq!(links(), "");
}

/// As an agent does it: the choice is made at the start, and followed wherever there is an uplink.
#[test]
fn uplinks_follow_the_choice_and_complaints_are_kept() {
    if !possible("uplinks_follow_the_choice_and_complaints_are_kept") {
        return;
    }
    let load = |place: &TestBox| {
        let options = LoadOptions { xdp: XdpChoice::Auto, ..place.options() };
        DataPlane::load(options).expect("the data plane loads")
    };
    let net = Net::with("xd-agent", load);
    let uplink = ifindex(&net.place.namespace(), "up0");
    let bench = Bench { net, uplink };
    let names = || {
        let links = Inspector::new(&bench.net.place.pin_dir).links().expect("links");
        let ours = links.into_iter().filter(|link| link.name.starts_with("xdp-"));
        ours.map(|link| (link.name, link.program)).collect::<BTreeMap<_, _>>()
    };
    let native = format!("xdp-native-{uplink}");
    assert_eq!(names().into_keys().collect::<Vec<_>>(), [native.as_str()], "with the other programs");
    assert!(bench.net.plane.xdp_complaints().is_empty());

    // Loopback has no driver: the kernel does it, and that is said; looking again changes nothing.
    bench.inside(|| bench.net.plane.attach_uplink(1)).expect("attached");
    let (said, before) = (bench.net.plane.xdp_complaints(), names());
    assert!(said.len() == 1 && said[0].contains("generic at interface 1 where auto"), "{said:?}");
    bench.inside(|| bench.net.plane.attach_uplink(1)).expect("again");
    assert_eq!((bench.net.plane.xdp_complaints(), names()), (said, before.clone()));

    // When maps have grown, the program of the larger ones is in the links, and knows the flows.
    bench.serve();
    let packet = Wire::tcp("192.0.2.2:4000", "192.0.2.1:30080", SYN, b"");
    let there = bench.through(&packet);
    let grown = bench.inside(|| bench.net.plane.make_room(&[("flows", 100_000)].into()));
    match grown {
        Ok(grown) => assert!(!grown.is_empty()),
        Err(Error::CannotExchange) => {
            return eprintln!("SKIPPED the rest: this kernel exchanges no programs");
        }
        Err(error) => panic!("{error}"),
    }
    let after = names();
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert!(after.iter().all(|(name, program)| before[name] != *program), "{before:?} {after:?}");
    assert_eq!(bench.through(&packet).ends(), there.ends());

    bench.inside(|| bench.net.plane.detach_uplink(1)).expect("detached");
    assert_eq!(names().into_keys().collect::<Vec<_>>(), [native]);
    assert!(bench.net.plane.xdp_complaints().is_empty());
}

#[test]
fn connections_from_outside_go_through_xdp_and_through_the_stack_alike() {
    if !possible("connections_from_outside_go_through_xdp_and_through_the_stack_alike") {
        return;
    }
    let bench = Bench::new("xd-net", XdpChoice::Generic);
    // What shares its buffers with the node leaves checksums to it, which no wire does.
    inside(&bench.net.client(), || complete_checksums("eth0").expect("an option of the interface"));
    let (client, services) = (bench.net.client(), bench.net.plane.services());
    serve(&client, "192.0.2.3:8080", "far");
    serve(&client, "[2001:db8::3]:8080", "far6");
    serve(&bench.net.pod(5), "10.244.9.5:8080", "pod5");
    put_service(services, 1, "192.0.2.1:30080", TCP, &["192.0.2.3:8080", "10.244.9.5:8080"], 0);
    put_service(services, 2, "192.0.2.1:30053", UDP, &["192.0.2.3:8080"], 0);
    put_service(services, 3, "[2001:db8::1]:30080", TCP, &["[2001:db8::3]:8080"], 0);
    put_service(services, 4, "[2001:db8::1]:30053", UDP, &["[2001:db8::3]:8080"], 0);
    let mut answers = BTreeMap::<String, u32>::new();
    for _ in 0..80 {
        *answers.entry(tcp(&client, "192.0.2.1:30080")).or_default() += 1;
    }
    // One choice, not one in each program: else there were three of four elsewhere.
    assert_eq!(answers.keys().collect::<Vec<_>>(), ["far", "pod5"]);
    assert!((24..=56).contains(&answers["far"]), "{answers:?}");
    assert_eq!(udp(&client, "192.0.2.1:30053"), "far");
    assert_eq!(tcp(&client, "[2001:db8::1]:30080"), "far6");
    assert_eq!(udp(&client, "[2001:db8::1]:30053"), "far6");
    let forwarded = bench.net.counter("xdp_forwarded");
    assert!(forwarded > u64::from(answers["far"]) * 6, "{forwarded}");
}

#[test]
fn a_packet_costs_little() {
    if !possible("a_packet_costs_little") {
        return;
    }
    let bench = Bench::new("xd-cost", XdpChoice::Native);
    bench.serve();
    let packet = Wire::tcp("192.0.2.2:4000", "192.0.2.1:30080", ACK, b"data").bytes();
    let ran = bench.inside(|| bench.net.plane.test_run_xdp(bench.uplink, &packet, 1));
    assert_eq!(ran.expect("the program runs").verdict, TX);
    // Every further run is on the packet as the last one left it, so this is what one costs that is not ours.
    let foreign = Wire::tcp("192.0.2.2:4000", "192.0.2.9:81", ACK, b"").bytes();
    let ran = bench.inside(|| bench.net.plane.test_run_xdp(bench.uplink, &foreign, 20_000));
    let ran = ran.expect("the program runs");
    eprintln!("a packet that is not ours: {} ns", ran.nanoseconds);
    assert!(ran.verdict == PASS && ran.nanoseconds < 5_000);
}
