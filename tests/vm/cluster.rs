//! Machines as nodes: Ethernet segments of the test's own, a router between them that is at the same time the
//! outside (clients, a registry), and a cluster whose nodes are machines.
//!
//! ```text
//! outside 198.18.0.1 --- segment 0 --- node-1 198.18.0.11, node-2 198.18.0.12, ...
//!         198.18.1.1 --- segment 1 --- node-3 198.18.1.13, ...
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use skep_tests::{NetBox, Registry, Segment, eventually, read};
use skep_vm_guest::Request;

use crate::lab::Lab;
use crate::machine::{Machine, Spec};
use crate::plan::target;

/// Where nodes pull from.
pub(crate) const REGISTRY: &str = "198.18.0.1:5000";

/// The images' names.
const IMAGES: [&str; 2] = ["web", "busybox"];

/// Where a node's `skep` says what it does.
pub(crate) const LOG: &str = "/var/log/skep.log";

/// A machine to be: its name, the segment it is on, and the last number of its address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) name: &'static str,
    pub(crate) segment: usize,
    pub(crate) number: u8,
}

impl Place {
    pub(crate) const fn new(name: &'static str, segment: usize, number: u8) -> Self {
        Self { name, segment, number }
    }

    /// Its address.
    pub(crate) fn address(self) -> String {
        format!("198.18.{}.{}", self.segment, self.number)
    }
}

/// A machine on a segment.
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) machine: Machine,
    /// Its port at the segment's switch.
    pub(crate) port: String,
}

/// A cluster of machines. Dropped in this order: machines, registry, boxes.
pub(crate) struct Cluster<'a> {
    lab: &'a Lab,
    nodes: BTreeMap<&'static str, Node>,
    _registry: Registry,
    outside: NetBox,
    segments: Vec<Segment>,
    folder: PathBuf,
}

impl<'a> Cluster<'a> {
    /// Boots machines at these places; nothing of Skep runs on them yet.
    pub(crate) fn boot(lab: &'a Lab, places: &[Place]) -> Result<Self> {
        let outside = NetBox::new("vmout")?;
        outside
            .run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?
            .context("making the outside a router")?;
        let count = places.iter().map(|place| place.segment + 1).max().context("no machines")?;
        let mut segments = Vec::new();
        for number in 0..count {
            let segment = Segment::new("vmseg")?;
            segment.plug(&outside, &[format!("198.18.{number}.1/24").parse()?])?;
            segments.push(segment);
        }
        let mut starting = Vec::new();
        for &place in places {
            starting.push(start(lab, place, &segments)?);
        }
        // The machines boot meanwhile.
        let folder = lab.folder().join("outside");
        let registry =
            Registry::start(&outside, REGISTRY, &folder.join("registry"), &target().join("images"), &IMAGES)?;
        let mut nodes = BTreeMap::new();
        for node in starting {
            node.set_up()?;
            nodes.insert(node.place.name, node);
        }
        Ok(Self { lab, nodes, _registry: registry, outside, segments, folder })
    }

    /// A machine by name.
    pub(crate) fn node(&self, name: &str) -> &Node {
        &self.nodes[name]
    }

    /// The names of all machines.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.nodes.keys().copied().collect()
    }

    /// A segment.
    pub(crate) fn segment(&self, number: usize) -> &Segment {
        &self.segments[number]
    }

    /// Switches a machine off as a power cut does.
    pub(crate) fn power_off(&mut self, name: &str) -> Result<Place> {
        let node = self.nodes.remove(name).with_context(|| format!("no machine {name}"))?;
        Ok(node.place)
    }

    /// Boots a machine that was switched off. Its disk is as new: what it had is lost.
    pub(crate) fn power_on(&mut self, place: Place) -> Result<()> {
        let node = start(self.lab, place, &self.segments)?;
        node.set_up()?;
        self.nodes.insert(place.name, node);
        Ok(())
    }

    /// Starts the control plane, with a node beside it, on a machine, and fetches the administrator's credentials.
    pub(crate) fn up(&self, name: &str) -> Result<()> {
        let node = self.node(name);
        node.skep(&["up", "--insecure-registries", REGISTRY])?;
        let path = "/var/lib/skep/kubeconfig/admin.conf";
        let mut config = String::new();
        eventually("the control plane writes its kubeconfig", 120, || {
            config = node.machine.sh(&format!("cat {path}")).with_context(|| node.log())?;
            Ok(())
        })?;
        fs::write(self.kubeconfig(), config.replace("127.0.0.1", &node.place.address()))?;
        self.ready(name, 120)
    }

    /// Joins a machine by a token of the control plane on `server`.
    pub(crate) fn join(&self, name: &str, server: &str) -> Result<()> {
        let line = self.node(server).machine.run(&[&skep()?, "token", "create"], 60)?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, arguments @ ..] = words.as_slice() else { bail!("skep token create says {line:?}") };
        let arguments: Vec<&str> =
            arguments.iter().copied().chain(["--insecure-registries", REGISTRY]).collect();
        self.node(name).skep(&arguments)?;
        self.ready(name, 120)
    }

    /// Starts the agent of a machine that has joined before: it needs no token any more.
    pub(crate) fn start_agent(&self, name: &str, server: &str) -> Result<()> {
        let url = format!("https://{}:6443", self.node(server).place.address());
        self.node(name).skep(&["agent", "--server", &url, "--insecure-registries", REGISTRY])
    }

    /// Kills the agent of a machine as the kernel does when memory is short.
    pub(crate) fn kill_agent(&self, name: &str) -> Result<()> {
        self.node(name).machine.sh("pkill -KILL -f '^[^ ]*/skep agent'").map(drop)
    }

    /// Waits until a node is not Ready any more.
    pub(crate) fn lost(&self, name: &str, seconds: u64) -> Result<()> {
        let query =
            format!("get node {name} -o jsonpath={{.status.conditions[?(@.type==\"Ready\")].status}}");
        eventually(&format!("{name} is known to be lost"), seconds, || {
            let status = self.kubectl(&query)?;
            if status == "True" {
                bail!("Ready is {status:?}");
            }
            Ok(())
        })
        .map(drop)
    }

    /// Waits until a node is Ready.
    pub(crate) fn ready(&self, name: &str, seconds: u64) -> Result<()> {
        let query =
            format!("get node {name} -o jsonpath={{.status.conditions[?(@.type==\"Ready\")].status}}");
        eventually(&format!("{name} is Ready"), seconds, || {
            let status = self.kubectl(&query)?;
            if status == "True" { Ok(()) } else { bail!("Ready is {status:?}") }
        })
        .with_context(|| self.node(name).log())
        .map(drop)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.conf")
    }

    /// Real kubectl from the outside. Arguments are split at spaces.
    pub(crate) fn kubectl(&self, arguments: &str) -> Result<String> {
        self.kubectl_words(&arguments.split(' ').collect::<Vec<_>>())
    }

    /// The same with arguments that may hold spaces.
    pub(crate) fn kubectl_words(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.outside.command("kubectl");
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", &self.folder).args(arguments);
        read(&mut command)
    }

    /// Applies manifests.
    pub(crate) fn apply(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text)?;
        self.kubectl(&format!("apply -f {}", path.display())).map(drop)
    }

    /// The body that a URL answers, asked from the outside.
    pub(crate) fn curl(&self, url: &str) -> Result<String> {
        read(self.outside.command("curl").args(["-sS", "--fail", "--max-time", "5", url]))
    }
}

fn start(lab: &Lab, place: Place, segments: &[Segment]) -> Result<Node> {
    let segment = &segments[place.segment];
    let port = segment.tap()?;
    let spec = Spec {
        memory_mib: 768,
        taps: vec![port.clone()],
        namespace: Some(segment.switch()),
        ..Spec::new(place.name)
    };
    Ok(Node { place, machine: lab.start(&spec)?, port })
}

impl Node {
    /// Waits for the machine and gives it its address.
    fn set_up(&self) -> Result<()> {
        self.machine.ready()?;
        let (address, segment) = (self.place.address(), self.place.segment);
        self.machine
            .sh(&format!(
                "ip address add {address}/24 dev eth0; ip link set eth0 up; ip route add default via 198.18.{segment}.1"
            ))
            .map(drop)
    }

    /// Starts `skep` on it, in the background.
    pub(crate) fn skep(&self, arguments: &[&str]) -> Result<()> {
        let variables = [
            ("SKEP_NODE_IP", self.place.address()),
            ("SKEP_NODE_NAME", self.place.name.to_owned()),
            ("SKEP_LOG", "warn,skep=info".to_owned()),
        ];
        let program = skep()?;
        let argv: Vec<String> =
            [program.as_str()].iter().chain(arguments).map(|&word| word.to_owned()).collect();
        let env = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let request = Request { argv, env, background: Some(LOG.to_owned()), ..Request::default() };
        self.machine.output(request).map(drop)
    }

    /// The end of what `skep` said on it.
    pub(crate) fn log(&self) -> String {
        let log = self.machine.sh(&format!("tail -n 60 {LOG}")).unwrap_or_else(|error| format!("{error:#}"));
        format!("--- the end of {}'s log ---\n{log}", self.place.name)
    }
}

/// The program under test, where machines see it.
pub(crate) fn skep() -> Result<String> {
    let path = fs::canonicalize(target().join("debug/skep")).context("finding skep")?;
    Ok(path.to_str().context("a path that is no text")?.to_owned())
}
