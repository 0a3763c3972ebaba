//! Network policy on crafted packets: what is asked, when it is asked again, and what is let through unasked.

use std::net::IpAddr;

use skep_ebpf_abi::policy::{BlockKey, Policed, RuleKey, direction, isolated, peer};
use skep_ebpf_abi::{Addr, SCTP, TCP, UDP};
use skep_ebpf_loader::inspect::Inspector;
use skep_ebpf_loader::policy::{BlockEntry, PolicyChange, PolicyMaps, RuleEntry, masked};
use skep_ebpf_loader::{DataPlane, Endpoint};

use crate::bench::{OK, REDIRECT, SHOT, at};
use crate::support::{TestBox, addr, possible};
use crate::wire::{ACK, RST, SYN, Wire};

const FROM: &str = "skep_pod_in_policed";
const TO: &str = "skep_pod_out_policed";
const FROM_OTHERS: &str = "skep_pod_in";
const POD: &str = "10.244.9.5";
const FRIEND: &str = "10.244.8.7";
const STRANGER: &str = "10.244.8.8";
const NODE: &str = "192.0.2.1";
/// Test runs come in over loopback.
const LO: u32 = 1;
const FRIENDS: u32 = peer::FIRST_POD + 4;

struct Bench {
    _place: TestBox,
    plane: DataPlane,
    inspector: Inspector,
    epoch: u32,
}

impl Bench {
    fn new(test: &str, isolated: u32) -> Self {
        let place = TestBox::new(test);
        let plane = place.load();
        let pod = Endpoint { ifindex: LO, pod_mac: [4; 6], host_mac: [6; 6] };
        plane.set_endpoint(POD.parse().expect("an address"), &pod).expect("the endpoint");
        plane.set_node_addresses(&[NODE.parse().expect("an address")]).expect("the node");
        let inspector = Inspector::new(&place.pin_dir);
        let mut bench = Self { _place: place, plane, inspector, epoch: 0 };
        bench.change(&PolicyChange::PutIdentities(vec![
            (addr(FRIEND), FRIENDS),
            (addr(STRANGER), FRIENDS + 1),
        ]));
        bench.police(isolated);
        bench
    }

    fn change(&self, change: &PolicyChange) {
        self.plane.apply(change).expect("the maps take it");
    }

    fn police(&mut self, isolated: u32) {
        self.epoch += 1;
        let policed = Policed { table: 1, epoch: self.epoch, isolated, ifindex: LO };
        self.change(&PolicyChange::Police(vec![(addr(POD), policed)]));
    }

    fn allow(&self, direction: u8, peer: u32, protocol: u8, port: u16) -> RuleEntry {
        let key = RuleKey { table: 1, peer, direction, protocol, port_be: port.to_be() };
        let bits = if port == 0 { RuleKey::ANY_PORT } else { RuleKey::WHOLE };
        let entry = RuleEntry { bits, key };
        self.change(&PolicyChange::PutRules(vec![(entry, 1)]));
        entry
    }

    fn run(&self, program: &'static str, packet: &Wire) -> u32 {
        self.plane.test_run(program, &packet.bytes(), 1).expect("the program runs").verdict
    }

    fn counter(&self, wanted: &str) -> u64 {
        let counters = self.inspector.counters().expect("counters");
        counters.into_iter().find(|(name, _)| *name == wanted).expect("a counter").1
    }
}

fn tcp(src: &str, dst: &str, ports: (u16, u16), flags: u8) -> Wire {
    Wire::tcp(&at(src, ports.0), &at(dst, ports.1), flags, &[])
}

fn udp(src: &str, dst: &str, ports: (u16, u16)) -> Wire {
    Wire::udp(&at(src, ports.0), &at(dst, ports.1), b"data")
}

#[test]
fn what_a_pod_opens_is_asked_once_and_answers_come_back() {
    if !possible("what_a_pod_opens_is_asked_once_and_answers_come_back") {
        return;
    }
    let bench = Bench::new("pol-out", isolated::EGRESS | isolated::INGRESS);
    let (there, back) = (tcp(POD, FRIEND, (4000, 80), SYN), tcp(FRIEND, POD, (80, 4000), SYN | ACK));
    assert_eq!(bench.run(FROM, &there), SHOT, "nothing allows it");
    assert_eq!(bench.run(TO, &back), SHOT, "an answer to nothing is no answer");
    bench.allow(direction::EGRESS, FRIENDS, TCP, 80);
    assert_eq!(bench.run(FROM, &there), OK);
    assert_eq!(bench.run(TO, &back), OK, "nobody may open to the pod, yet answers come");
    assert_eq!(bench.run(FROM, &tcp(POD, FRIEND, (4000, 81), SYN)), SHOT, "another port");
    assert_eq!(bench.run(FROM, &tcp(POD, STRANGER, (4000, 80), SYN)), SHOT, "another pod");
    assert_eq!(bench.run(FROM, &udp(POD, FRIEND, (4000, 80))), SHOT, "another protocol");
    let denied = bench.inspector.denied().expect("the map");
    let told = denied.iter().find(|(key, _)| key.peer == addr(STRANGER)).expect("the stranger is named");
    assert_eq!(
        (told.0.pod, told.0.table, told.0.direction, told.0.protocol),
        (addr(POD), 1, direction::EGRESS, TCP)
    );
    assert_eq!((u16::from_be(told.0.port_be), told.1.packets), (80, 1));
    assert_eq!(bench.counter("drop_policy"), 5);
}

#[test]
fn what_others_open_is_asked_wherever_it_comes_from() {
    if !possible("what_others_open_is_asked_wherever_it_comes_from") {
        return;
    }
    let bench = Bench::new("pol-in", isolated::INGRESS);
    let there = |port| tcp(FRIEND, POD, (4000, port), SYN);
    assert_eq!(bench.run(TO, &there(80)), SHOT, "through the stack");
    assert_eq!(bench.run("skep_tunnel_in", &there(80)), SHOT, "through the tunnel");
    bench.allow(direction::INGRESS, FRIENDS, TCP, 80);
    assert_eq!(bench.run(TO, &there(80)), OK);
    assert_eq!(bench.run("skep_tunnel_in", &there(80)), REDIRECT);
    assert_eq!(bench.run(FROM, &tcp(POD, FRIEND, (80, 4000), SYN | ACK)), OK, "the pod answers");
    assert_eq!(bench.run(FROM, &tcp(POD, STRANGER, (4000, 80), SYN)), OK, "what it opens is not isolated");
    assert_eq!(bench.run(TO, &tcp(STRANGER, POD, (80, 4000), SYN | ACK)), OK, "and is answered");
    assert_eq!(bench.run(TO, &tcp(NODE, POD, (4000, 8080), SYN)), OK, "the pod's own node probes it");
    assert_eq!(bench.run(TO, &tcp("198.51.100.1", POD, (4000, 80), SYN)), SHOT, "the world");
}

#[test]
fn a_change_asks_again_in_the_direction_in_which_the_flow_was_opened() {
    if !possible("a_change_asks_again_in_the_direction_in_which_the_flow_was_opened") {
        return;
    }
    let mut bench = Bench::new("pol-epoch", isolated::EGRESS | isolated::INGRESS);
    let out = bench.allow(direction::EGRESS, FRIENDS, TCP, 80);
    let (there, back) = (tcp(POD, FRIEND, (4000, 80), SYN), tcp(FRIEND, POD, (80, 4000), ACK));
    let into = tcp(FRIEND, POD, (5000, 443), SYN);
    bench.allow(direction::INGRESS, FRIENDS, TCP, 443);
    assert_eq!((bench.run(FROM, &there), bench.run(TO, &into)), (OK, OK));
    bench.change(&PolicyChange::RemoveRules(vec![out]));
    assert_eq!(bench.run(FROM, &there), OK, "decided before, and no new epoch");
    bench.police(isolated::EGRESS | isolated::INGRESS);
    assert_eq!(bench.run(TO, &back), SHOT, "cut, also seen from the other side");
    assert_eq!(bench.run(FROM, &there), SHOT);
    assert_eq!(bench.run(FROM, &tcp(POD, FRIEND, (443, 5000), ACK)), OK, "still allowed, answers too");
    // Isolated in the other direction only: what the pod opened goes on, what others opened is asked about.
    bench.police(isolated::EGRESS);
    assert_eq!(bench.run(TO, &into), OK);
    // Not selected at all any more.
    bench.change(&PolicyChange::Release(vec![addr(POD)]));
    assert_eq!(bench.run(TO, &tcp(STRANGER, POD, (1, 2), SYN)), OK);
    assert_eq!(bench.run(FROM_OTHERS, &tcp(POD, STRANGER, (1, 2), SYN)), OK);
}

#[test]
fn a_new_connection_over_an_old_ones_ports_is_asked_about() {
    if !possible("a_new_connection_over_an_old_ones_ports_is_asked_about") {
        return;
    }
    let bench = Bench::new("pol-reuse", isolated::INGRESS);
    let rule = bench.allow(direction::INGRESS, FRIENDS, TCP, 80);
    let syn = tcp(FRIEND, POD, (4000, 80), SYN);
    assert_eq!(bench.run(TO, &syn), OK);
    assert_eq!(bench.run(FROM, &tcp(POD, FRIEND, (80, 4000), RST)), OK);
    bench.change(&PolicyChange::RemoveRules(vec![rule]));
    assert_eq!(bench.run(TO, &tcp(FRIEND, POD, (4000, 80), ACK)), OK, "the old one's last words");
    assert_eq!(bench.run(TO, &syn), SHOT);
    // The other side of a connection that the pod opened cannot open one in its place.
    assert_eq!(bench.run(FROM, &tcp(POD, FRIEND, (6000, 90), SYN)), OK);
    assert_eq!(bench.run(TO, &tcp(FRIEND, POD, (90, 6000), SYN)), SHOT);
}

#[test]
fn ranges_blocks_and_every_protocol_count() {
    if !possible("ranges_blocks_and_every_protocol_count") {
        return;
    }
    let bench = Bench::new("pol-kinds", isolated::INGRESS);
    let block = |net: &str, length: u8, class: u32| {
        let bits = Addr::from(net.parse::<IpAddr>().expect("an address")).prefix_bits(length);
        let key = BlockKey { table: 1, direction: 0, addr: masked(addr(net), bits) };
        (BlockEntry { bits: BlockKey::FIXED + bits, key }, class)
    };
    let (wide, hole) = (peer::CLASS | 1, peer::CLASS | 2);
    bench.change(&PolicyChange::PutBlocks(vec![
        block("198.51.100.0", 24, wide),
        block("198.51.100.128", 25, hole),
    ]));
    bench.allow(direction::INGRESS, wide, UDP, 53);
    bench.allow(direction::INGRESS, peer::ANY_POD, SCTP, 0);
    let range = RuleKey {
        table: 1,
        peer: peer::ANYONE,
        direction: direction::INGRESS,
        protocol: TCP,
        port_be: 8192_u16.to_be(),
    };
    bench.change(&PolicyChange::PutRules(vec![(RuleEntry { bits: RuleKey::WHOLE - 3, key: range }, 3)]));
    let ask = |src: &str, protocol, port| {
        let packet = match protocol {
            TCP => tcp(src, POD, (4000, port), SYN),
            UDP => udp(src, POD, (4000, port)),
            _ => Wire::sctp(&at(src, 4000), &at(POD, port), b"data"),
        };
        bench.run(TO, &packet)
    };
    assert_eq!(ask("198.51.100.1", UDP, 53), OK);
    assert_eq!(ask("198.51.100.129", UDP, 53), SHOT, "an exception");
    assert_eq!(ask("198.51.101.1", UDP, 53), SHOT, "outside");
    assert_eq!(ask(STRANGER, SCTP, 9), OK, "every pod, every port");
    assert_eq!(ask("198.51.100.1", SCTP, 9), SHOT);
    for (port, want) in [(8191, SHOT), (8192, OK), (8199, OK), (8200, SHOT)] {
        assert_eq!(ask("203.0.113.1", TCP, port), want, "{port}");
    }
    let echo = |identifier| Wire::echo("198.51.100.1", POD, identifier);
    assert_eq!(bench.run(TO, &echo(1)), SHOT, "rules with protocols allow no echo");
    let all = RuleKey { table: 1, peer: wide, direction: direction::INGRESS, protocol: 0, port_be: 0 };
    bench.change(&PolicyChange::PutRules(vec![(RuleEntry { bits: RuleKey::ANY_PROTOCOL, key: all }, 4)]));
    assert_eq!(bench.run(TO, &echo(9)), OK, "a rule without ports allows everything");
}

#[test]
fn nobody_borrows_an_address() {
    if !possible("nobody_borrows_an_address") {
        return;
    }
    let bench = Bench::new("pol-spoof", isolated::EGRESS | isolated::INGRESS);
    bench.allow(direction::EGRESS, peer::ANYONE, TCP, 0);
    bench.allow(direction::INGRESS, peer::ANYONE, TCP, 0);
    assert_eq!(bench.run(FROM, &tcp("10.244.9.6", FRIEND, (4000, 80), SYN)), SHOT, "a pod that is not there");
    // Another pod of this node, on an interface that is not the one of the hook.
    let other = Endpoint { ifindex: 77, pod_mac: [4; 6], host_mac: [6; 6] };
    bench.plane.set_endpoint("10.244.9.7".parse().expect("an address"), &other).expect("the endpoint");
    assert_eq!(bench.run(FROM_OTHERS, &tcp("10.244.9.7", POD, (4000, 80), SYN)), SHOT);
    assert_eq!(bench.run(FROM_OTHERS, &tcp(FRIEND, POD, (4000, 80), SYN)), SHOT, "a pod of another node");
    for from in [FROM_OTHERS, "skep_tunnel_in"] {
        assert_eq!(bench.run(from, &tcp(NODE, POD, (4000, 80), SYN)), SHOT, "the node, by {from}");
    }
    assert_eq!(bench.counter("drop_spoofed"), 5);
    assert_eq!(bench.run("skep_tunnel_in", &tcp(FRIEND, POD, (4000, 80), SYN)), REDIRECT, "it has sent that");
}

#[test]
fn fragments_and_errors_follow_the_flows_they_belong_to() {
    if !possible("fragments_and_errors_follow_the_flows_they_belong_to") {
        return;
    }
    let bench = Bench::new("pol-parts", isolated::EGRESS | isolated::INGRESS);
    let question = udp(POD, FRIEND, (4000, 53));
    let parts = |from: &str, to: &str, ports: (u16, u16), id| {
        let whole = Wire { id, ..Wire::udp(&at(from, ports.0), &at(to, ports.1), &[b'd'; 64]) };
        let [first, later] = <[Wire; 2]>::try_from(whole.fragments(40)).expect("two parts");
        (first, later)
    };
    let (first, later) = parts(POD, FRIEND, (4000, 53), 1);
    assert_eq!(bench.run(FROM, &later), SHOT, "held");
    assert_eq!(bench.counter("fragment_held"), 1);
    assert_eq!(bench.run(FROM, &first), SHOT, "nothing is allowed between the two");
    assert_eq!(bench.run(FROM, &later), SHOT);
    assert_eq!(bench.counter("fragment_held"), 1);
    bench.allow(direction::EGRESS, FRIENDS, UDP, 53);
    assert_eq!(bench.run(FROM, &first), OK);
    assert_eq!(bench.run(FROM, &later), OK);
    assert_eq!(bench.run(FROM, &question), OK);
    let (first, later) = parts(FRIEND, POD, (53, 4000), 2);
    assert_eq!(bench.run(TO, &later), OK, "answers come in parts too, in any order");
    assert_eq!(bench.run(TO, &first), OK);
    let (_, later) = parts(STRANGER, POD, (53, 4000), 3);
    assert_eq!(bench.run(TO, &later), SHOT);
    // An error about the question, from a router; and the pod's own error about an answer.
    let error = |src: &str, dst: &str, about: &Wire| Wire::error(src, dst, [3, 3], 0, &about.bytes());
    assert_eq!(bench.run(TO, &error("203.0.113.9", POD, &question)), OK);
    let foreign = udp(FRIEND, STRANGER, (1, 2));
    assert_eq!(bench.run(TO, &error("203.0.113.9", POD, &foreign)), SHOT, "about what the pod never sent");
    let answer = udp(FRIEND, POD, (53, 4000));
    assert_eq!(bench.run(FROM, &error(POD, FRIEND, &answer)), OK);
    let other = udp(STRANGER, POD, (53, 4000));
    assert_eq!(bench.run(FROM, &error(POD, STRANGER, &other)), SHOT, "a way around the rules");
    let mut short = question;
    short.payload.truncate(2);
    assert_eq!(bench.run(FROM, &short), SHOT, "cut before its ports");
}

#[test]
fn verdicts_that_are_over_are_collected() {
    if !possible("verdicts_that_are_over_are_collected") {
        return;
    }
    let bench = Bench::new("pol-gc", isolated::INGRESS);
    assert_eq!(bench.run(FROM, &tcp(POD, FRIEND, (4000, 80), SYN)), OK);
    let timeouts = skep_ebpf_abi::conntrack::Timeouts { tcp_opening: 0, ..Default::default() };
    bench.plane.collect_verdicts().expect("collects");
    assert_eq!(bench.run(TO, &tcp(FRIEND, POD, (80, 4000), SYN | ACK)), OK, "a live one stays");
    bench.plane.set_timeouts(timeouts).expect("the node");
    // Times are counted in ticks of a second.
    std::thread::sleep(std::time::Duration::from_millis(2300));
    bench.plane.collect_verdicts().expect("collects");
    assert_eq!(bench.run(TO, &tcp(FRIEND, POD, (80, 4000), ACK)), SHOT, "nothing is known of it any more");
}

#[test]
fn a_pod_stays_policed_through_a_reload_and_a_new_interface() {
    if !possible("a_pod_stays_policed_through_a_reload_and_a_new_interface") {
        return;
    }
    let bench = Bench::new("pol-stay", isolated::INGRESS);
    drop(bench.plane);
    let plane = DataPlane::load(bench._place.options()).expect("loads again");
    let policed = |plane: &DataPlane| plane.read().expect("the maps").policed[&addr(POD)];
    assert_eq!(policed(&plane).ifindex, LO);
    let moved = Endpoint { ifindex: 55, pod_mac: [4; 6], host_mac: [6; 6] };
    plane.set_endpoint(POD.parse().expect("an address"), &moved).expect("the endpoint");
    assert_eq!(policed(&plane).ifindex, 55);
    let endpoints = bench.inspector.endpoints().expect("endpoints");
    let place = endpoints.iter().find(|(own, _)| *own == addr(POD)).expect("the pod").1;
    assert_eq!(place.flags, skep_ebpf_abi::node::endpoint::POLICED);
}
