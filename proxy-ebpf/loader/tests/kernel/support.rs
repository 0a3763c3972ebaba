//! A box for one test: network namespace, cgroup, pins, data plane; all of it gone again afterwards, also on failure.

use std::fs;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use nix::sched::{CloneFlags, setns};
use skep_ebpf_abi::Addr;
use skep_ebpf_abi::service::{Backend, Frontend, FrontendKey, Set, SlotKey};
use skep_ebpf_loader::tables::{Change, ServiceMaps};
use skep_ebpf_loader::{DataPlane, LoadOptions};

/// Whether the test can run here; says why not.
pub(crate) fn possible(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("SKEP_TEST_REQUIRE_ALL").is_none(), "{test} needs root");
        eprintln!("SKIPPED {test}: needs root");
    }
    root
}

pub(crate) fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output =
        Command::new(words.next().expect("a program")).args(words).output().expect("the program starts");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The box.
pub(crate) struct TestBox {
    pub(crate) name: String,
    pub(crate) pin_dir: PathBuf,
    pub(crate) cgroup: PathBuf,
}

impl TestBox {
    pub(crate) fn new(test: &str) -> Self {
        let name = format!("skt-{test}-{}", std::process::id());
        let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .into_iter()
            .map(Path::new)
            .find(|path| path.join("cgroup.procs").exists() && path.join("cgroup.controllers").exists())
            .expect("a cgroup v2 hierarchy");
        let this = Self {
            pin_dir: PathBuf::from("/sys/fs/bpf").join(&name),
            cgroup: root.join(&name),
            name: name.clone(),
        };
        run(&format!("ip netns add {name}"));
        run(&format!("ip -n {name} link set lo up"));
        fs::create_dir(&this.cgroup).expect("a child cgroup");
        this
    }

    pub(crate) fn ip(&self, arguments: &str) {
        run(&format!("ip -n {} {arguments}", self.name));
    }

    pub(crate) fn options(&self) -> LoadOptions {
        LoadOptions {
            pin_dir: self.pin_dir.clone(),
            cgroup: Some(self.cgroup.clone()),
            map_memory: None,
            object: None,
            map_sizes: ["affinity", "reverse"].map(|name| (name.to_owned(), 4096)).into(),
            ..LoadOptions::default()
        }
    }

    pub(crate) fn load(&self) -> DataPlane {
        DataPlane::load(self.options()).expect("the data plane loads")
    }

    /// As a node loads it: from inside its network namespace, which the programs then know as the node's.
    pub(crate) fn load_inside(&self, options: LoadOptions) -> DataPlane {
        inside(&self.namespace(), move || DataPlane::load(options).expect("the data plane loads"))
    }

    pub(crate) fn namespace(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Answers on TCP and UDP with `name` until the test process ends.
    pub(crate) fn serve(&self, address: &str, name: &str) {
        serve(&self.namespace(), address, name);
    }

    /// Starts the process whose sockets are balanced.
    pub(crate) fn client(&self) -> Client {
        let mut process = Command::new(std::env::current_exe().expect("this test's path"))
            .args(["--exact", "helper::process", "--nocapture", "--test-threads=1"])
            .env("SKEP_TEST_HELPER_NETNS", self.namespace())
            .env("SKEP_TEST_HELPER_CGROUP", &self.cgroup)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the helper starts");
        let input = process.stdin.take().expect("its input");
        let output = BufReader::new(process.stdout.take().expect("its output"));
        Client { process, input, output }
    }
}

/// Answers on TCP and UDP inside `namespace` with `name` until the test process ends.
pub(crate) fn serve(namespace: &Path, address: &str, name: &str) {
    let (address, name) = (address.parse::<SocketAddr>().expect("an address"), name.to_owned());
    let (ready, is_ready) = mpsc::channel();
    enter_on_thread(namespace, move || {
        let tcp = TcpListener::bind(address).expect("a TCP port");
        let udp = UdpSocket::bind(address).expect("a UDP port");
        ready.send(()).expect("the test waits");
        let udp_name = name.clone();
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = udp.recv_from(&mut buffer) {
                udp.send_to(udp_name.as_bytes(), from).expect("an answer");
            }
        });
        for stream in tcp.incoming() {
            let (mut stream, name) = (stream.expect("a connection"), name.clone());
            thread::spawn(move || {
                let mut byte = [0; 1];
                // One answer a byte, so that a connection can be kept and used again.
                while matches!(stream.read(&mut byte), Ok(1)) {
                    if stream.write_all(format!("{name}\n").as_bytes()).is_err() {
                        break;
                    }
                }
            });
        }
    });
    is_ready.recv().expect("the server starts");
}

/// Runs `work` on a thread inside `namespace`.
pub(crate) fn inside<T: Send + 'static>(namespace: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    enter_on_thread(namespace, work).join().expect("the work inside the namespace")
}

fn enter_on_thread<T: Send + 'static>(
    namespace: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let namespace = namespace.to_owned();
    thread::spawn(move || {
        let file = File::open(&namespace).expect("the namespace");
        setns(file, CloneFlags::CLONE_NEWNET).expect("entering the namespace");
        work()
    })
}

impl Drop for TestBox {
    fn drop(&mut self) {
        // All of it is tried whatever fails, and nothing here may panic while a test's panic unwinds.
        if let Err(error) = DataPlane::purge(&self.pin_dir) {
            eprintln!("purging {}: {error}", self.pin_dir.display());
        }
        if let Err(error) = Command::new("ip").args(["netns", "del", &self.name]).status() {
            eprintln!("deleting the namespace: {error}");
        }
        for _ in 0..100 {
            if fs::remove_dir(&self.cgroup).is_ok() {
                break;
            }
            thread::yield_now();
        }
    }
}

/// The helper process; ended with the value.
pub(crate) struct Client {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    /// Sends a command and returns its answer.
    pub(crate) fn ask(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").expect("the helper listens");
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.output.read_line(&mut line).expect("the helper's answer") > 0, "the helper ended");
            if let Some((_, answer)) = line.split_once('@') {
                return answer.trim().to_owned();
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.process.kill().is_ok() {
            let _ = self.process.wait();
        }
    }
}

pub(crate) fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().expect("an address").into()
}

/// Writes a service the way the proxy does: backends, slots, set, frontend.
pub(crate) fn put_service(
    maps: &dyn ServiceMaps,
    set: u32,
    vip: &str,
    protocol: u8,
    backends: &[&str],
    affinity_seconds: u32,
) {
    let vip: SocketAddr = vip.parse().expect("an address");
    for (index, backend) in backends.iter().enumerate() {
        let backend: SocketAddr = backend.parse().expect("an address");
        let id = set * 100 + index as u32;
        let value =
            Backend { addr: backend.ip().into(), port_be: backend.port().to_be(), protocol, state: 0 };
        let slot = SlotKey { set, slot: index as u32 + 1 };
        let matching = skep_ebpf_abi::service::AffinityMatch { set, backend: id };
        for change in
            [Change::PutBackend(id, value), Change::PutAffinity(matching), Change::PutSlot(slot, id)]
        {
            maps.apply(&change).expect("the map accepts");
        }
    }
    let value = Set { count: backends.len() as u32, flags: 0, affinity_seconds };
    maps.apply(&Change::PutSet(set, value)).expect("the map accepts");
    let key = FrontendKey::new(vip.ip().into(), vip.port().to_be(), protocol);
    let frontend = Frontend { external_set: set, internal_set: set, flags: 0 };
    maps.apply(&Change::PutFrontend(key, frontend)).expect("the map accepts");
}
