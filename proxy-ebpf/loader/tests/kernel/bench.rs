//! A loaded data plane and its programs run on crafted packets: no device, no socket, no time.
//!
//! The node 192.0.2.1 (2001:db8::1) has the pod 10.244.9.5 (fd00:9::5). A TCP service at port 30080, a UDP one at 30053
//! and an SCTP one at 30036 of the node lead to its ports 8080, 53 and 36. The services at port 30099 have nobody.

use std::net::IpAddr;

use skep_ebpf_abi::service::{Frontend, FrontendKey, frontend};
use skep_ebpf_abi::{SCTP, TCP, UDP};
use skep_ebpf_loader::inspect::Inspector;
use skep_ebpf_loader::tables::Change;
use skep_ebpf_loader::{DataPlane, Endpoint};

use crate::support::{TestBox, addr, put_service};
use crate::wire::Wire;

pub(crate) const OK: u32 = 0;
pub(crate) const SHOT: u32 = 2;
pub(crate) const REDIRECT: u32 = 7;
pub(crate) const UPLINK: &str = "skep_uplink_in";
pub(crate) const POD: &str = "skep_pod_in";
pub(crate) const HOST: &str = "skep_host_out";

/// The addresses of a family.
pub(crate) struct Family {
    pub(crate) client: &'static str,
    pub(crate) node: &'static str,
    pub(crate) pod: &'static str,
}

pub(crate) const FAMILIES: [Family; 2] = [
    Family { client: "198.51.100.7", node: "192.0.2.1", pod: "10.244.9.5" },
    Family { client: "2001:db8:77::7", node: "2001:db8::1", pod: "fd00:9::5" },
];

/// `address:port`, with brackets where the family needs them.
pub(crate) fn at(address: &str, port: u16) -> String {
    std::net::SocketAddr::new(address.parse().expect("an address"), port).to_string()
}

pub(crate) struct Bench {
    _place: TestBox,
    pub(crate) plane: DataPlane,
    pub(crate) inspector: Inspector,
}

impl Bench {
    pub(crate) fn new(test: &str) -> Self {
        let place = TestBox::new(test);
        let plane = place.load();
        let bench = Self { inspector: Inspector::new(&place.pin_dir), _place: place, plane };
        let nodes: Vec<IpAddr> =
            FAMILIES.iter().map(|family| family.node.parse().expect("an address")).collect();
        bench.plane.set_node_addresses(&nodes).expect("the node");
        for (family, base) in FAMILIES.iter().zip([0, 10]) {
            bench.add_pod(family.pod);
            let ports = [(1, 30080, TCP, 8080), (2, 30053, UDP, 53), (3, 30036, SCTP, 36)];
            for (set, port, protocol, to) in ports {
                bench.serve(base + set, &at(family.node, port), protocol, &[&at(family.pod, to)]);
            }
            for (set, protocol) in [(4, TCP), (5, UDP), (6, SCTP)] {
                bench.serve(base + set, &at(family.node, 30099), protocol, &[]);
            }
        }
        bench
    }

    /// Tells the programs of a pod.
    pub(crate) fn add_pod(&self, address: &str) {
        let pod = Endpoint { ifindex: 1, pod_mac: [4; 6], host_mac: [6; 6] };
        self.plane.set_endpoint(address.parse().expect("an address"), &pod).expect("the endpoint");
    }

    /// A node port and its backends.
    pub(crate) fn serve(&self, set: u32, at: &str, protocol: u8, backends: &[&str]) {
        put_service(self.plane.services(), set, at, protocol, backends, 0);
        self.mark(set, at, protocol, frontend::NODE_PORT);
    }

    /// Gives a frontend flags.
    pub(crate) fn mark(&self, set: u32, at: &str, protocol: u8, flags: u32) {
        let at: std::net::SocketAddr = at.parse().expect("an address");
        let key = FrontendKey::new(at.ip().into(), at.port().to_be(), protocol);
        let value = Frontend { external_set: set, internal_set: set, flags };
        self.plane.services().apply(&Change::PutFrontend(key, value)).expect("the map accepts");
    }

    /// Runs a program on a frame.
    pub(crate) fn run(&self, program: &'static str, packet: &[u8]) -> (u32, Vec<u8>) {
        let ran = self.plane.test_run(program, packet, 1).expect("the program runs");
        (ran.verdict, ran.packet)
    }

    /// Runs a program on a packet that must become another, and reads it.
    #[track_caller]
    pub(crate) fn through(&self, program: &'static str, packet: &Wire) -> Wire {
        let (verdict, out) = self.run(program, &packet.bytes());
        assert_eq!(verdict, REDIRECT, "{packet:x?}");
        Wire::read(&out)
    }

    /// Runs a program on a packet that must pass as it is.
    #[track_caller]
    pub(crate) fn untouched(&self, program: &'static str, packet: &[u8]) {
        let (verdict, out) = self.run(program, packet);
        assert_eq!((verdict, out.as_slice()), (OK, packet), "{packet:x?}");
    }

    pub(crate) fn flows(&self) -> usize {
        self.inspector.flows().expect("flows").len()
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        let counters = self.inspector.counters().expect("the counters");
        counters.into_iter().find(|(known, _)| *known == name).expect("a counter").1
    }

    /// The flow, when there is just one.
    pub(crate) fn only_flow(&self) -> skep_ebpf_abi::flow::Flow {
        let flows = self.inspector.flows().expect("flows");
        assert_eq!(flows.len(), 1, "{flows:?}");
        flows[0].1
    }

    /// A range of allowed sources of a set.
    pub(crate) fn allow(&self, set: u32, network: &str, length: u8) {
        let range = skep_ebpf_abi::service::SourceRange { set, addr: addr(network) };
        let key = skep_ebpf_loader::tables::RangeKey { bits: range.prefix_bits(length), range };
        self.plane.services().apply(&Change::PutRange(key)).expect("the map accepts");
    }
}
