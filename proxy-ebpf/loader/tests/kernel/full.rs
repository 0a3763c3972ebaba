//! The table of flows when it is full.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use skep_ebpf_abi::conntrack::Timeouts;
use skep_ebpf_abi::{TCP, UDP};
use skep_ebpf_loader::DataPlane;
use skep_ebpf_loader::inspect::Inspector;

use crate::node_port::{Net, tcp};
use crate::support::{inside, possible, put_service, serve};

/// So many flows are remembered here.
const ROOM: u32 = 64;

#[test]
fn a_full_table_of_flows_refuses_new_ones_and_keeps_those_that_are() {
    if !possible("a_full_table_of_flows_refuses_new_ones_and_keeps_those_that_are") {
        return;
    }
    // Nobody is here to let it grow.
    let net = Net::with("ffull", |place| {
        let mut options = place.options();
        options.map_sizes.extend(["flows", "flow_index"].map(|map| (map.to_owned(), ROOM)));
        DataPlane::load(options).expect("the data plane loads")
    });
    serve(&net.pod(5), "10.244.9.5:8080", "pod5");
    put_service(net.plane.services(), 1, "192.0.2.1:30080", TCP, &["10.244.9.5:8080"], 0);
    put_service(net.plane.services(), 2, "192.0.2.1:30053", UDP, &["10.244.9.5:8080"], 0);
    let mut stream = inside(&net.client(), || {
        let stream = TcpStream::connect("192.0.2.1:30080").expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream
    });
    let mut ask = || {
        stream.write_all(b"x").expect("sent");
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"pod5\n");
    };
    ask();
    // More flows than there is room for; nobody waits for their answers.
    let sockets = inside(&net.client(), || {
        let open = |_| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.connect("192.0.2.1:30053").expect("connected");
            socket.send(b"x").expect("sent");
            socket
        };
        (0..2 * ROOM).map(open).collect::<Vec<_>>()
    });
    let flows = || Inspector::new(&net.place.pin_dir).flows().expect("flows").len();
    assert_eq!(flows(), ROOM as usize, "as many as there is room for");
    let dropped = net.counter("drop_flows_full");
    assert_eq!(dropped, u64::from(ROOM) + 1, "the others are counted");
    assert_eq!(tcp(&net.client(), "192.0.2.1:30080"), "connect: timed out");
    ask();
    assert_eq!(flows(), ROOM as usize, "none was evicted");

    // What is over makes room.
    drop(sockets);
    let timeouts = Timeouts { udp: 0, udp_replied: 0, ..Default::default() };
    net.plane.set_timeouts(timeouts).expect("set");
    std::thread::sleep(Duration::from_millis(2200));
    net.plane.collect_flows().expect("collecting");
    assert_eq!(flows(), 1, "the connection stays");
    ask();
    assert_eq!(tcp(&net.client(), "192.0.2.1:30080"), "pod5");
}
