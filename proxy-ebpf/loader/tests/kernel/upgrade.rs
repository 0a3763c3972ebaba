//! Upgrades from an earlier layout of the maps: its object, loaded as its build did, serves connections; then the
//! current build takes over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use aya::programs::links::FdLink;
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{CgroupAttachMode, LinkOrder, Program, TcAttachType};
use aya::{Ebpf, EbpfLoader};
use flate2::read::GzDecoder;
use skep_ebpf_abi::{TCP, UDP};
use skep_ebpf_loader::inspect::Inspector;
use skep_ebpf_loader::sockets::Gone;
use skep_ebpf_loader::tables::Tables;
use skep_ebpf_loader::{DataPlane, Error};

use crate::node_port::Net;
use crate::restart::broken_object;
use crate::support::{TestBox, addr, possible, put_service, serve};
use crate::traffic::Traffic;

const OBJECT: &[u8] = include_bytes!("../fixtures/layout-1.o.gz");
const FOLDER: &str = "maps-v1";
/// The maps that layout 1 pinned.
const MAPS: [&str; 18] = [
    "frontends",
    "sets",
    "slots",
    "backends",
    "affinity",
    "affinity_match",
    "connected",
    "reverse",
    "skip_socket",
    "flows",
    "flow_index",
    "endpoints",
    "source_ranges",
    "keep_source",
    "tunnels",
    "tunnel",
    "node",
    "counters",
];

fn object() -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(OBJECT).read_to_end(&mut bytes).expect("the object");
    bytes
}

/// Loads the object onto the maps in `folder`, and puts its programs into every link there is, as an agent of that time
/// did at its start. The links were made by the current build: a link does not tell who made it.
fn take_over(place: &TestBox, interfaces: &[(&str, &'static str, TcAttachType)]) -> Ebpf {
    let folder = place.pin_dir.join(FOLDER);
    fs::create_dir_all(&folder).expect("the folder");
    let mut loader = EbpfLoader::new();
    loader.override_global("HAS_SET_RETVAL", &1_u32, true);
    loader.override_global("NODE_NETNS", &0_u64, true);
    for name in MAPS {
        loader.map_pin_path(name, folder.join(name));
    }
    let mut object = loader.load(&object()).expect("the old object loads");
    let links = place.pin_dir.join("links");
    let pin = |link: FdLink, name: &str| {
        let path = links.join(name);
        if path.exists() {
            fs::remove_file(&path).expect("the current link goes");
        }
        link.pin(&path).expect("pinned");
    };
    let cgroup = File::open(&place.cgroup).expect("the cgroup");
    let names: Vec<String> = object.programs().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        let program = object.program_mut(&name).expect("a program");
        let short = name.trim_start_matches("skep_").to_owned();
        match program {
            Program::CgroupSockAddr(program) => {
                program.load().expect("loads");
                let id = program.attach(&cgroup, CgroupAttachMode::Single).expect("attaches");
                pin(program.take_link(id).expect("the link").try_into().expect("a descriptor"), &short);
            }
            Program::CgroupSock(program) => {
                program.load().expect("loads");
                let id = program.attach(&cgroup, CgroupAttachMode::Single).expect("attaches");
                pin(program.take_link(id).expect("the link").try_into().expect("a descriptor"), &short);
            }
            Program::SchedClassifier(program) => {
                program.load().expect("loads");
                let own = interfaces.iter().filter(|(_, of, _)| *of == name);
                for (interface, _, side) in own {
                    let index = nix::net::if_::if_nametoindex(*interface).expect("the interface");
                    let kind = match (*interface, side) {
                        ("up0", TcAttachType::Ingress) => "uplink-in",
                        ("up0", _) => "uplink-out",
                        (_, TcAttachType::Ingress) => "pod",
                        _ => "pod-out",
                    };
                    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
                    let id = program.attach_with_options(interface, *side, options).expect("attaches");
                    let link: SchedClassifierLink = program.take_link(id).expect("the link");
                    pin(link.try_into().expect("a descriptor"), &format!("{kind}-{index}"));
                }
            }
            _ => panic!("{name} is of an unknown kind"),
        }
    }
    object
}

/// Copies the maps whose layout is still the same: what the agent of that time would have written.
fn write_as_then(place: &TestBox) {
    let (from, to) = (place.pin_dir.join(skep_ebpf_loader::LAYOUT_FOLDER), place.pin_dir.join(FOLDER));
    for name in ["frontends", "sets", "slots", "backends", "affinity_match", "endpoints", "node"] {
        copy(&from.join(name), &to.join(name));
    }
    fs::remove_dir_all(&from).or_else(|_| remove_pins(&from)).expect("the current maps go");
}

fn remove_pins(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        fs::remove_file(entry?.path())?;
    }
    fs::remove_dir(folder)
}

fn copy(from: &Path, to: &Path) {
    use aya::maps::{Array, HashMap as BpfMap, Map, MapData};
    let open = |path: &Path| MapData::from_pin(path).expect("a pinned map");
    macro_rules! hash {
        ($key:expr, $value:expr) => {{
            let from: BpfMap<_, [u8; $key], [u8; $value]> =
                Map::HashMap(open(from)).try_into().expect("a hash");
            let mut to: BpfMap<_, [u8; $key], [u8; $value]> =
                Map::HashMap(open(to)).try_into().expect("a hash");
            for element in from.iter() {
                let (key, value) = element.expect("an element");
                to.insert(key, value, 0).expect("written");
            }
        }};
    }
    match from.file_name().and_then(|name| name.to_str()) {
        Some("frontends") => hash!(20, 12),
        Some("sets") => hash!(4, 12),
        Some("slots" | "affinity_match") => hash!(8, 4),
        Some("backends") => hash!(4, 20),
        Some("endpoints") => hash!(16, 20),
        _ => {
            let from: Array<_, [u8; 72]> = Map::Array(open(from)).try_into().expect("an array");
            let mut to: Array<_, [u8; 72]> = Map::Array(open(to)).try_into().expect("an array");
            to.set(0, from.get(&0, 0).expect("an element"), 0).expect("written");
        }
    }
}

/// Makes what this build has loaded what a build with layout 1 would have left.
pub(crate) fn be_layout_1(net: &Net) -> Ebpf {
    let old = std::thread::scope(|scope| {
        let loading = scope.spawn(|| {
            net.enter();
            take_over(
                &net.place,
                &[
                    ("up0", "skep_uplink_in", TcAttachType::Ingress),
                    ("up0", "skep_host_out", TcAttachType::Egress),
                    ("pod5", "skep_pod_in", TcAttachType::Ingress),
                    ("pod5", "skep_host_out", TcAttachType::Egress),
                    ("pod6", "skep_pod_in", TcAttachType::Ingress),
                    ("pod6", "skep_host_out", TcAttachType::Egress),
                ],
            )
        });
        loading.join().expect("the old programs load")
    });
    write_as_then(&net.place);
    old
}

/// A node with two pods and a process of its own, behind services at node ports and an address.
pub(crate) fn serving(name: &str) -> Net {
    let net = Net::new(name);
    serve(&net.pod(5), "10.244.9.5:8080", "pod5");
    serve(&net.pod(6), "10.244.9.6:8080", "pod6");
    net.place.serve("192.0.2.1:9090", "host");
    let services = net.plane.services();
    put_service(services, 1, "192.0.2.1:30080", TCP, &["10.244.9.5:8080", "10.244.9.6:8080"], 0);
    put_service(services, 2, "192.0.2.1:30053", UDP, &["10.244.9.5:8080"], 0);
    put_service(services, 3, "10.96.9.9:80", TCP, &["192.0.2.1:9090"], 0);
    net
}

/// Connections that the programs of layout 1 translated go on, packet by packet and by socket, when this build takes
/// over; what it then knows of them is right.
#[test]
fn an_upgrade_from_layout_1_loses_nothing() {
    if !possible("an_upgrade_from_layout_1_loses_nothing") {
        return;
    }
    let net = serving("layout");
    let services = net.plane.services();
    put_service(services, 4, "10.96.9.9:53", UDP, &["192.0.2.1:9090"], 0);
    let tables: Tables = services.read().expect("tables");
    let old = be_layout_1(&net);
    let old_programs = programs(&net.place);

    let mut client = net.place.client();
    for number in 0..10 {
        client.ask(&format!("keep-tcp s{number} 10.96.9.9:80"));
    }
    client.ask("keep-udp dns 10.96.9.9:53");
    let traffic = Traffic::start(&net.client(), "192.0.2.1:30080", "192.0.2.1:30053", 30);
    let load = |object: Option<Vec<u8>>| {
        let mut options = net.place.options();
        options.object = object;
        std::thread::scope(|scope| {
            let loading = scope.spawn(|| {
                net.enter();
                DataPlane::load(options)
            });
            loading.join().expect("the thread ends")
        })
    };
    // A build whose programs are refused changes nothing.
    assert!(matches!(load(Some(broken_object())), Err(Error::Program { .. })));
    assert_eq!(programs(&net.place), old_programs);
    let folders = names(&net.place.pin_dir);
    assert_eq!(folders, [FOLDER, "links"].map(str::to_owned).into(), "nothing is left of the try");
    assert_eq!(client.ask("many 10 10.96.9.9:80"), "host=10");
    let plane = load(None).expect("this build loads");
    let tally = traffic.stop();
    eprintln!("{tally:?}");
    tally.assert_whole();
    drop(old);

    assert_eq!(plane.services().read().expect("tables"), tables, "the tables came along");
    for number in 0..10 {
        assert_eq!(client.ask(&format!("use-tcp s{number}")), "host");
    }
    assert_eq!(client.ask("many 10 10.96.9.9:80"), "host=10");
    let folders = [skep_ebpf_loader::LAYOUT_FOLDER, "links"].map(str::to_owned);
    assert_eq!(names(&net.place.pin_dir), folders.into(), "the old maps are gone");
    for (name, program) in programs(&net.place) {
        assert_ne!(old_programs.get(&name), Some(&program), "{name} still has the old program");
    }
    // A socket of then is found by what is known of it.
    let gone = Gone { set: 4, addr: addr("192.0.2.1"), port_be: 9090u16.to_be(), protocol: UDP };
    assert_eq!(client.ask("use-udp dns"), "host");
    let destroyed = plane.destroy_sockets(&[gone], &[net.place.namespace()]).expect("a search");
    assert_eq!(destroyed.sockets, 1, "{:?}", destroyed.failures);
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("the pins");
    entries.map(|entry| entry.expect("a pin").file_name().to_string_lossy().into_owned()).collect()
}

fn programs(place: &TestBox) -> BTreeMap<String, u32> {
    let links = Inspector::new(&place.pin_dir).links().expect("links");
    links.into_iter().map(|link| (link.name, link.program)).collect()
}
