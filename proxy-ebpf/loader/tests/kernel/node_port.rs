//! The tc programs between real namespaces: a client's, the node's, and those of two pods.
//!
//! ```text
//! client 192.0.2.2 (+ .3, a backend elsewhere) -- veth -- node 192.0.2.1 -- veth -- pod 10.244.9.5, 10.244.9.6
//! ```

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto};
use skep_ebpf_abi::service::{Frontend, FrontendKey, frontend};
use skep_ebpf_abi::{TCP, UDP};
use skep_ebpf_loader::inspect::Inspector;
use skep_ebpf_loader::tables::Change;
use skep_ebpf_loader::{DataPlane, Endpoint};

use crate::support::{TestBox, addr, inside, possible, put_service, run, serve};
use crate::wire::Wire;

const POD_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x50];
const HOST_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x51];

pub(crate) struct Net {
    pub(crate) place: TestBox,
    pub(crate) plane: DataPlane,
    extra: Vec<String>,
}

fn path(namespace: &str) -> PathBuf {
    Path::new("/run/netns").join(namespace)
}

fn sysctl(namespace: &Path, key: &'static str, value: &'static str) {
    inside(namespace, move || fs::write(Path::new("/proc/sys").join(key), value).expect("the sysctl"));
}

fn text(mac: [u8; 6], last: u8) -> String {
    let [a, b, c, d, e, _] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{last:02x}")
}

pub(crate) fn ifindex(namespace: &Path, interface: &'static str) -> u32 {
    inside(namespace, move || nix::net::if_::if_nametoindex(interface).expect("the interface"))
}

impl Net {
    pub(crate) fn new(test: &str) -> Self {
        Self::with(test, TestBox::load)
    }

    /// With a data plane of one's own.
    pub(crate) fn with(test: &str, load: impl FnOnce(&TestBox) -> DataPlane) -> Self {
        let place = TestBox::new(test);
        let name = place.name.clone();
        let (client, pods) = (format!("{name}-c"), [format!("{name}-p5"), format!("{name}-p6")]);
        let mut extra = vec![client.clone()];
        extra.extend(pods.iter().cloned());
        for namespace in &extra {
            run(&format!("ip netns add {namespace}"));
            run(&format!("ip -n {namespace} link set lo up"));
        }
        place.ip(&format!("link add up0 type veth peer name eth0 netns {client}"));
        place.ip("addr add 192.0.2.1/24 dev up0");
        place.ip("addr add 2001:db8::1/64 dev up0 nodad");
        place.ip("link set up0 up");
        for address in ["192.0.2.2/24", "192.0.2.3/24", "2001:db8::2/64", "2001:db8::3/64"] {
            let nodad = if address.contains("::") { "nodad" } else { "" };
            run(&format!("ip -n {client} addr add {address} dev eth0 {nodad}"));
        }
        run(&format!("ip -n {client} link set eth0 up"));
        sysctl(&place.namespace(), "net/ipv4/ip_forward", "1");
        sysctl(&place.namespace(), "net/ipv6/conf/all/forwarding", "1");
        sysctl(&place.namespace(), "net/ipv4/conf/all/rp_filter", "0");
        let mut net = Self { plane: load(&place), place, extra };
        for (last, namespace) in [5, 6].into_iter().zip(pods) {
            net.add_pod(last, &namespace);
        }
        net.attach_uplink();
        net
    }

    fn add_pod(&mut self, last: u8, namespace: &str) {
        let (pod_mac, host_mac) = (text(POD_MAC, last), text(HOST_MAC, last + 0x10));
        let host = if last == 5 { "pod5" } else { "pod6" };
        self.place
            .ip(&format!("link add {host} address {host_mac} type veth peer name eth0 netns {namespace}"));
        self.place.ip(&format!("link set {host} up"));
        let inner = |arguments: &str| run(&format!("ip -n {namespace} {arguments}"));
        inner(&format!("link set eth0 address {pod_mac}"));
        inner("link set eth0 up");
        inner(&format!("addr add 10.244.9.{last}/32 dev eth0"));
        inner(&format!("addr add fd00:9::{last}/128 dev eth0 nodad"));
        inner("route add 169.254.1.1 dev eth0");
        inner("route add default via 169.254.1.1 dev eth0");
        inner("-6 route add default via fe80::1 dev eth0");
        inner(&format!("neigh add 169.254.1.1 lladdr {host_mac} dev eth0 nud permanent"));
        inner(&format!("neigh add fe80::1 lladdr {host_mac} dev eth0 nud permanent"));
        self.place.ip(&format!("route add 10.244.9.{last} dev {host}"));
        self.place.ip(&format!("-6 route add fd00:9::{last} dev {host}"));
        self.place.ip(&format!("neigh add 10.244.9.{last} lladdr {pod_mac} dev {host} nud permanent"));
        self.place.ip(&format!("neigh add fd00:9::{last} lladdr {pod_mac} dev {host} nud permanent"));
        let index = ifindex(&self.place.namespace(), host);
        let mac = |mac: [u8; 6], last| [mac[0], mac[1], mac[2], mac[3], mac[4], last];
        let endpoint =
            Endpoint { ifindex: index, pod_mac: mac(POD_MAC, last), host_mac: mac(HOST_MAC, last + 0x10) };
        for ip in [format!("10.244.9.{last}"), format!("fd00:9::{last}")] {
            self.plane.set_endpoint(ip.parse().expect("an address"), &endpoint).expect("the endpoint");
        }
        // A link is made in the namespace of the thread that asks for it.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                self.enter();
                self.plane.attach_pod(index).expect("the pod's program");
                self.plane.attach_pod(index).expect("again");
            });
        });
    }

    pub(crate) fn attach_uplink(&self) {
        let index = ifindex(&self.place.namespace(), "up0");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                self.enter();
                self.plane.attach_uplink(index).expect("the uplink's programs");
            });
        });
        let addresses: Vec<IpAddr> = ["192.0.2.1", "2001:db8::1", "127.0.0.1"]
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect();
        self.plane.set_node_addresses(&addresses).expect("the node's addresses");
    }

    pub(crate) fn enter(&self) {
        let file = fs::File::open(self.place.namespace()).expect("the namespace");
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("entering");
    }

    pub(crate) fn client(&self) -> PathBuf {
        path(&self.extra[0])
    }

    pub(crate) fn pod(&self, last: u8) -> PathBuf {
        path(&self.extra[usize::from(last) - 4])
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        let counters = Inspector::new(&self.place.pin_dir).counters().expect("the counters");
        counters.into_iter().find(|(known, _)| *known == name).expect("a counter").1
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for namespace in &self.extra {
            if let Err(error) = Command::new("ip").args(["netns", "del", namespace]).status() {
                eprintln!("deleting {namespace}: {error}");
            }
        }
    }
}

/// One request over TCP from inside a namespace.
pub(crate) fn tcp(namespace: &Path, to: &'static str) -> String {
    inside(namespace, move || {
        let to = to.parse().expect("an address");
        let mut stream = match TcpStream::connect_timeout(&to, Duration::from_secs(3)) {
            Ok(stream) => stream,
            Err(error) => return format!("connect: {}", error.kind()),
        };
        stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
        stream.write_all(b"x").expect("sent");
        let mut buffer = [0; 64];
        match stream.read(&mut buffer) {
            Ok(length) => String::from_utf8_lossy(&buffer[..length]).trim().to_owned(),
            Err(error) => format!("read: {}", error.kind()),
        }
    })
}

/// One datagram and its answer, on a connected socket, so that only the right peer is heard.
pub(crate) fn udp(namespace: &Path, to: &'static str) -> String {
    inside(namespace, move || {
        let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
        socket.connect(to).expect("connected");
        socket.send(b"x").expect("sent");
        let mut buffer = [0; 64];
        match socket.recv(&mut buffer) {
            Ok(length) => String::from_utf8_lossy(&buffer[..length]).into_owned(),
            Err(error) => error.kind().to_string(),
        }
    })
}

pub(crate) fn mark_node_port(net: &Net, set: u32, address: &str, port: u16, protocol: u8, flags: u32) {
    let key = FrontendKey::new(addr(address), port.to_be(), protocol);
    let value = Frontend { external_set: set, internal_set: set, flags: frontend::NODE_PORT | flags };
    net.plane.services().apply(&Change::PutFrontend(key, value)).expect("the map accepts");
}

#[test]
fn a_node_port_reaches_pods_of_the_node_over_both_families_and_protocols() {
    if !possible("a_node_port_reaches_pods_of_the_node_over_both_families_and_protocols") {
        return;
    }
    let net = Net::new("np");
    serve(&net.pod(5), "10.244.9.5:8080", "pod5");
    serve(&net.pod(6), "10.244.9.6:8080", "pod6");
    serve(&net.pod(5), "[fd00:9::5]:8080", "six");
    let services = net.plane.services();
    put_service(services, 1, "192.0.2.1:30080", TCP, &["10.244.9.5:8080", "10.244.9.6:8080"], 0);
    put_service(services, 2, "192.0.2.1:30053", UDP, &["10.244.9.5:8080"], 0);
    put_service(services, 3, "[2001:db8::1]:30080", TCP, &["[fd00:9::5]:8080"], 0);
    put_service(services, 4, "[2001:db8::1]:30053", UDP, &["[fd00:9::5]:8080"], 0);
    let answers: std::collections::BTreeSet<String> =
        (0..20).map(|_| tcp(&net.client(), "192.0.2.1:30080")).collect();
    assert_eq!(answers, ["pod5".to_owned(), "pod6".to_owned()].into());
    assert_eq!(udp(&net.client(), "192.0.2.1:30053"), "pod5");
    assert_eq!(tcp(&net.client(), "[2001:db8::1]:30080"), "six");
    assert_eq!(udp(&net.client(), "[2001:db8::1]:30053"), "six");
    let flows = Inspector::new(&net.place.pin_dir).flows().expect("flows");
    assert!(flows.iter().all(|(_, flow)| flow.inner.src == flow.outer.src), "pods see who asks");
}

#[test]
fn a_node_port_reaches_a_backend_of_the_host_and_one_elsewhere() {
    if !possible("a_node_port_reaches_a_backend_of_the_host_and_one_elsewhere") {
        return;
    }
    let net = Net::new("far");
    net.place.serve("192.0.2.1:8080", "host");
    serve(&net.client(), "192.0.2.3:8080", "far");
    serve(&net.client(), "[2001:db8::3]:8080", "far6");
    let services = net.plane.services();
    put_service(services, 1, "192.0.2.1:30080", TCP, &["192.0.2.1:8080"], 0);
    put_service(services, 2, "192.0.2.1:30081", TCP, &["192.0.2.3:8080"], 0);
    put_service(services, 3, "192.0.2.1:30082", UDP, &["192.0.2.3:8080"], 0);
    put_service(services, 4, "[2001:db8::1]:30081", TCP, &["[2001:db8::3]:8080"], 0);
    assert_eq!(tcp(&net.client(), "192.0.2.1:30080"), "host");
    assert_eq!(tcp(&net.client(), "192.0.2.1:30081"), "far");
    assert_eq!(udp(&net.client(), "192.0.2.1:30082"), "far");
    assert_eq!(tcp(&net.client(), "[2001:db8::1]:30081"), "far6");
    let flows = Inspector::new(&net.place.pin_dir).flows().expect("flows");
    let far = flows.iter().find(|(_, flow)| flow.inner.dst == addr("192.0.2.3")).expect("the flow");
    assert_eq!(far.1.inner.src, addr("192.0.2.1"), "answers come back through the node");
}

#[test]
fn a_node_port_without_backends_is_refused() {
    if !possible("a_node_port_without_backends_is_refused") {
        return;
    }
    let net = Net::new("none");
    put_service(net.plane.services(), 1, "192.0.2.1:30080", TCP, &[], 0);
    mark_node_port(&net, 1, "192.0.2.1", 30080, TCP, 0);
    assert_eq!(tcp(&net.client(), "192.0.2.1:30080"), "connect: connection refused");
    assert_eq!(net.counter("rejected"), 1);
}

#[test]
fn a_pod_without_socket_balancing_reaches_services_by_packets() {
    if !possible("a_pod_without_socket_balancing_reaches_services_by_packets") {
        return;
    }
    // The threads of this test are not in the cgroup, so only the packet path can translate.
    let net = Net::new("pkt");
    serve(&net.pod(5), "10.244.9.5:8080", "pod5");
    serve(&net.pod(6), "10.244.9.6:8080", "pod6");
    net.place.serve("192.0.2.1:8080", "host");
    serve(&net.client(), "192.0.2.3:8080", "far");
    let services = net.plane.services();
    put_service(services, 1, "10.96.9.1:80", TCP, &["10.244.9.6:8080"], 0);
    put_service(services, 2, "10.96.9.2:80", TCP, &["10.244.9.5:8080"], 0);
    put_service(services, 3, "10.96.9.3:53", UDP, &["10.244.9.6:8080"], 0);
    put_service(services, 4, "10.96.9.4:80", TCP, &["192.0.2.1:8080"], 0);
    assert_eq!(tcp(&net.pod(5), "10.96.9.1:80"), "pod6");
    assert_eq!(udp(&net.pod(5), "10.96.9.3:53"), "pod6");
    assert_eq!(tcp(&net.pod(5), "10.244.9.6:8080"), "pod6", "pod to pod, without a service");
    assert_eq!(tcp(&net.pod(5), "10.96.9.2:80"), "pod5", "a pod meets itself through the service");
    assert_eq!(tcp(&net.pod(5), "10.96.9.4:80"), "host");
}

#[test]
fn pods_leave_the_cluster_under_the_nodes_address() {
    if !possible("pods_leave_the_cluster_under_the_nodes_address") {
        return;
    }
    let net = Net::new("masq");
    serve(&net.client(), "192.0.2.3:8080", "world");
    serve(&net.client(), "[2001:db8::3]:8080", "world6");
    let networks = ["10.244.0.0", "fd00:9::"].map(|text| text.parse().expect("an address"));
    net.plane.set_masquerade(&[(networks[0], 16), (networks[1], 64)]).expect("masquerade");
    // The client has no route to pods: only the node's address can be answered.
    assert_eq!(tcp(&net.pod(5), "192.0.2.3:8080"), "world");
    assert_eq!(udp(&net.pod(5), "192.0.2.3:8080"), "world");
    assert_eq!(tcp(&net.pod(5), "[2001:db8::3]:8080"), "world6");
    assert_eq!(net.counter("masqueraded"), 3);
}

#[test]
fn icmp_errors_come_back_through_a_service_in_both_families() {
    if !possible("icmp_errors_come_back_through_a_service_in_both_families") {
        return;
    }
    let net = Net::new("icmp");
    let services = net.plane.services();
    // Nobody listens: the pod answers "port unreachable", which a connected UDP socket reports as refused, but only
    // if the error quotes exactly what the client sent.
    put_service(services, 1, "192.0.2.1:30053", UDP, &["10.244.9.5:9"], 0);
    put_service(services, 2, "[2001:db8::1]:30053", UDP, &["[fd00:9::5]:9"], 0);
    put_service(services, 3, "192.0.2.1:30054", UDP, &["192.0.2.3:9"], 0);
    put_service(services, 4, "192.0.2.1:30055", UDP, &["192.0.2.1:9"], 0);
    assert_eq!(udp(&net.client(), "192.0.2.1:30053"), "connection refused", "from a pod");
    assert_eq!(udp(&net.client(), "[2001:db8::1]:30053"), "connection refused", "from a pod, IPv6");
    assert_eq!(udp(&net.client(), "192.0.2.1:30054"), "connection refused", "from elsewhere");
    assert_eq!(udp(&net.client(), "192.0.2.1:30055"), "connection refused", "from the host");
    assert!(net.counter("icmp_translated") >= 4);
}

#[test]
fn flows_that_are_over_are_collected_and_live_ones_stay() {
    if !possible("flows_that_are_over_are_collected_and_live_ones_stay") {
        return;
    }
    let net = Net::new("gc");
    serve(&net.pod(5), "10.244.9.5:8080", "pod5");
    put_service(net.plane.services(), 1, "192.0.2.1:30053", UDP, &["10.244.9.5:8080"], 0);
    assert_eq!(udp(&net.client(), "192.0.2.1:30053"), "pod5");
    net.plane.collect_flows().expect("collecting");
    let flows = || Inspector::new(&net.place.pin_dir).flows().expect("flows").len();
    assert_eq!(flows(), 1, "it is young");
    net.plane
        .set_timeouts(skep_ebpf_abi::conntrack::Timeouts { udp_replied: 0, ..Default::default() })
        .expect("set");
    // Two units of time later it is older than no time at all.
    std::thread::sleep(Duration::from_millis(2200));
    net.plane.collect_flows().expect("collecting");
    assert_eq!(flows(), 0);
    assert_eq!(net.counter("flows_collected"), 1);
}

#[test]
fn a_connection_lives_through_an_upgrade_of_the_programs() {
    if !possible("a_connection_lives_through_an_upgrade_of_the_programs") {
        return;
    }
    let net = Net::new("up");
    serve(&net.pod(5), "10.244.9.5:8080", "pod5");
    put_service(net.plane.services(), 1, "192.0.2.1:30080", TCP, &["10.244.9.5:8080"], 0);
    let mut stream = inside(&net.client(), || {
        let stream = TcpStream::connect("192.0.2.1:30080").expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
        stream
    });
    let mut ask = || {
        stream.write_all(b"x").expect("sent");
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"pod5\n");
    };
    ask();
    let links = || Inspector::new(&net.place.pin_dir).links().expect("links");
    let before = links();
    std::thread::scope(|scope| {
        let swap = scope.spawn(|| {
            net.enter();
            net.place.load()
        });
        let mut rounds = 0;
        while !swap.is_finished() {
            ask();
            rounds += 1;
        }
        eprintln!("{rounds} requests on one connection while the programs were swapped");
        drop(swap.join().expect("the loader"));
    });
    ask();
    let after = links();
    assert_eq!(before.len(), after.len());
    assert!(before.iter().zip(&after).all(|(old, new)| old.name == new.name && old.program != new.program));
    assert_eq!(tcp(&net.client(), "192.0.2.1:30080"), "pod5", "and new ones are made");
}

/// Sends packets as they are from inside a namespace, and says what a socket at `from` hears then.
fn send_raw(namespace: &Path, from: &'static str, packets: Vec<Wire>) -> String {
    inside(namespace, move || {
        let socket = UdpSocket::bind(from).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(1500))).expect("a timeout");
        let family = if from.starts_with('[') { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let raw = nix::sys::socket::socket(family, SockType::Raw, SockFlag::empty(), SockProtocol::Raw)
            .expect("a raw socket");
        for packet in packets {
            let to = SockaddrStorage::from(std::net::SocketAddr::new(packet.dst, 0));
            sendto(raw.as_raw_fd(), &packet.bytes()[14..], &to, MsgFlags::empty()).expect("sent");
        }
        let mut buffer = [0; 64];
        match socket.recv(&mut buffer) {
            Ok(length) => String::from_utf8_lossy(&buffer[..length]).into_owned(),
            Err(error) => error.kind().to_string(),
        }
    })
}

#[test]
fn fragments_reach_their_backend_in_any_order() {
    if !possible("fragments_reach_their_backend_in_any_order") {
        return;
    }
    let net = Net::new("frag");
    serve(&net.pod(5), "10.244.9.5:8080", "pod5");
    serve(&net.pod(5), "[fd00:9::5]:8080", "six");
    serve(&net.client(), "192.0.2.3:8080", "far");
    let services = net.plane.services();
    put_service(services, 1, "192.0.2.1:30053", UDP, &["10.244.9.5:8080"], 0);
    put_service(services, 2, "[2001:db8::1]:30053", UDP, &["[fd00:9::5]:8080"], 0);
    put_service(services, 3, "192.0.2.1:30054", UDP, &["192.0.2.3:8080"], 0);
    let cases = [
        ("192.0.2.2:4000", "192.0.2.1:30053", "pod5"),
        ("[2001:db8::2]:4000", "[2001:db8::1]:30053", "six"),
        ("192.0.2.2:4001", "192.0.2.1:30054", "far"),
    ];
    let orders: [&[usize]; 6] =
        [&[0, 1, 2, 3], &[3, 2, 1, 0], &[1, 0, 2, 3], &[2, 3, 0, 1], &[3, 3, 0, 1, 2], &[1, 2, 3, 0]];
    let mut id = 100;
    for (from, to, answer) in cases {
        for order in orders {
            id += 1;
            let whole = Wire { id, ..Wire::udp(from, to, &[7; 3000]) };
            let fragments = whole.fragments(800);
            let packets = order.iter().map(|index| fragments[*index].clone()).collect();
            assert_eq!(send_raw(&net.client(), from, packets), answer, "{from} {order:?}");
        }
    }
    assert!(net.counter("fragment_held") > 10);

    // Two datagrams, their fragments mixed; the last of one comes first.
    let (from, to, _) = cases[0];
    let [a, b] = [201, 202].map(|id| Wire { id, ..Wire::udp(from, to, &[7; 2000]) }.fragments(1400));
    let mixed = vec![a[1].clone(), b[1].clone(), b[0].clone(), a[0].clone()];
    assert_eq!(send_raw(&net.client(), from, mixed), "pod5");
    // So many before the first are not held: the datagram is lost, and nothing else. From another port, at which no
    // late answer to the other of those two comes.
    let from = "192.0.2.2:4002";
    let many = Wire { id: 203, ..Wire::udp(from, to, &[7; 3000]) }.fragments(64);
    let backwards = many.iter().rev().cloned().collect();
    assert_ne!(send_raw(&net.client(), from, backwards), "pod5");
    assert_eq!(udp(&net.client(), "192.0.2.1:30053"), "pod5");
}
