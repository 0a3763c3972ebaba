//! kill -9 of the agent at any moment: while it loads, carries maps over from an earlier layout, writes tables and
//! makes maps larger. Connections do not notice.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use skep_ebpf_abi::TCP;
use skep_ebpf_loader::{DataPlane, LAYOUT_FOLDER, LoadOptions};

use crate::node_port::Net;
use crate::support::{possible, put_service};
use crate::traffic::Traffic;
use crate::upgrade::{be_layout_1, serving};

const MAPS: [&str; 5] = ["frontends", "slots", "backends", "connected", "flows"];

/// Not a test: an agent, if the test below has started it. It works until it is killed.
#[test]
fn agent() {
    let (Some(namespace), Some(cgroup), Some(pin_dir)) = (
        std::env::var_os("SKEP_TEST_AGENT_NETNS"),
        std::env::var_os("SKEP_TEST_AGENT_CGROUP"),
        std::env::var_os("SKEP_TEST_AGENT_PINS"),
    ) else {
        return;
    };
    setns(File::open(namespace).expect("the namespace"), CloneFlags::CLONE_NEWNET).expect("entering");
    let options = LoadOptions {
        pin_dir: PathBuf::from(pin_dir),
        cgroup: Some(PathBuf::from(cgroup)),
        map_memory: Some(1 << 30),
        ..LoadOptions::default()
    };
    println!("@begun");
    let plane = DataPlane::load(options).expect("the data plane loads");
    println!("@loaded");
    loop {
        for backends in [["10.244.9.5:8080", "10.244.9.6:8080"], ["10.244.9.6:8080", "10.244.9.5:8080"]] {
            put_service(plane.services(), 9, "10.96.9.10:80", TCP, &backends, 0);
        }
        let limits = plane.limits().expect("the limits");
        let wanted: BTreeMap<&str, u32> = MAPS.map(|name| (name, limits[name] + 1)).into();
        // When the memory is used up there is no more to be had, and the rest goes on.
        let grown = plane.make_room(&wanted).map(|grown| grown.len());
        println!("@{grown:?}");
        if grown.is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// An agent that is killed with the value.
struct Agent {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Agent {
    fn start(net: &Net) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this test's path"))
            .args(["--exact", "crash::agent", "--nocapture", "--test-threads=1"])
            .env("SKEP_TEST_AGENT_NETNS", net.place.namespace())
            .env("SKEP_TEST_AGENT_CGROUP", &net.place.cgroup)
            .env("SKEP_TEST_AGENT_PINS", &net.place.pin_dir)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the agent starts");
        let output = BufReader::new(process.stdout.take().expect("its output"));
        Self { process, output }
    }

    /// Waits for a line that begins so.
    fn wait_for(&mut self, words: &str) {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.output.read_line(&mut line).expect("the agent's output") > 0, "the agent ended");
            if line.contains(words) {
                return;
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.process.kill().is_ok() {
            let _ = self.process.wait();
        }
    }
}

#[test]
fn kill_minus_nine_at_any_moment_loses_no_connection() {
    if !possible("kill_minus_nine_at_any_moment_loses_no_connection") {
        return;
    }
    let net = serving("crash");
    drop(be_layout_1(&net));
    let mut client = net.place.client();
    for number in 0..20 {
        client.ask(&format!("keep-tcp s{number} 10.96.9.9:80"));
    }
    let traffic = Traffic::start(&net.client(), "192.0.2.1:30080", "192.0.2.1:30053", 20);
    // The first ones die while they load, of which the end is what counts; later ones while maps grow.
    for (begun, millis) in [
        ("@begun", 300),
        ("@begun", 500),
        ("@begun", 700),
        ("@loaded", 0),
        ("@loaded", 200),
        ("@loaded", 450),
        ("@loaded", 650),
        ("@loaded", 900),
    ] {
        let mut agent = Agent::start(&net);
        agent.wait_for(begun);
        std::thread::sleep(Duration::from_millis(millis));
        drop(agent);
        // Nobody is there.
        assert_eq!(client.ask("many 5 10.96.9.9:80"), "host=5");
    }
    let plane = std::thread::scope(|scope| {
        let loading = scope.spawn(|| {
            net.enter();
            net.place.load()
        });
        loading.join().expect("the last agent loads")
    });
    let tally = traffic.stop();
    eprintln!("{tally:?}, limits {:?}", plane.limits().expect("the limits"));
    tally.assert_whole();
    for number in 0..20 {
        assert_eq!(client.ask(&format!("use-tcp s{number}")), "host");
    }
    let tables = plane.services().read().expect("tables");
    assert_eq!((tables.frontends.len(), tables.sets.len()), (4, 4), "three services, and that of the agents");
    let connected = plane.usage().expect("the usage");
    let connected = connected.iter().find(|(name, ..)| *name == "connected").expect("the map").1;
    assert_eq!(connected, 20, "sockets that ended meanwhile left nothing behind");
    let left = |folder: PathBuf| -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("the pins");
        let names = entries.map(|entry| entry.expect("a pin").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.contains('-') && name != LAYOUT_FOLDER).collect()
    };
    assert_eq!(left(net.place.pin_dir.clone()), Vec::<String>::new());
    assert_eq!(left(net.place.pin_dir.join(LAYOUT_FOLDER)), Vec::<String>::new());
}
