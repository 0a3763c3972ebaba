//! A cluster of one node in a box: a network namespace and a cgroup of its own, with a second
//! namespace beside it that plays the outside. Everything is removed when it is dropped, also by a panic.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skep_tests::{NetBox, Segment};

use crate::tools::{eventually, images, read, read_failure, skep, workspace};

/// What the API server stores in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// The embedded store.
    Embedded,
    /// A real etcd.
    Etcd,
}

/// The address where a node's registry listens, inside its box.
const REGISTRY: &str = "127.0.0.1:5000";

/// The node's address on the wire, of RFC 2544's range for tests.
const NODE_IP: &str = "198.18.0.1";

/// The other end's.
const OUTSIDE_IP: &str = "198.18.0.2";

/// The node's resolver settings where the test makes them.
const RESOLV_CONF: &str = "resolv.conf";

/// A running cluster.
pub(crate) struct Cluster {
    node: NetBox,
    outside: NetBox,
    interface: String,
    // Dropped after the boxes that are plugged into it.
    segment: Segment,
    dir: tempfile::TempDir,
    store: Store,
    skep: Option<Child>,
    helpers: Vec<Child>,
    /// How much of skep's log has been read.
    said: usize,
}

impl Cluster {
    /// Makes the box, a registry with the images, etcd if asked for, and starts `skep up`.
    pub(crate) fn start(store: Store) -> Result<Self> {
        let mut cluster = Self::bare(store)?;
        cluster.start_registry()?;
        if store == Store::Etcd {
            cluster.start_etcd()?;
        }
        cluster.up()?;
        Ok(cluster)
    }

    /// The box alone.
    pub(crate) fn bare(store: Store) -> Result<Self> {
        let segment = Segment::new("e2eseg")?;
        let (node, outside) = (NetBox::with_cgroup("e2e")?, NetBox::new("e2eout")?);
        let interface = segment.plug(&node, &[format!("{NODE_IP}/24").parse()?])?;
        segment.plug(&outside, &[format!("{OUTSIDE_IP}/24").parse()?])?;
        node.ip(&format!("route add default via {OUTSIDE_IP}"))?;
        let dir = tempfile::Builder::new().prefix("skep-e2e-").tempdir()?;
        fs::create_dir_all(dir.path().join("home"))?;
        Ok(Self { node, outside, interface, segment, dir, store, skep: None, helpers: Vec::new(), said: 0 })
    }

    /// The cluster's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The node's address on the segment it shares with the outside.
    pub(crate) fn node_ip(&self) -> &'static str {
        NODE_IP
    }

    /// The box.
    pub(crate) fn node(&self) -> &NetBox {
        &self.node
    }

    /// The device that leads outside.
    pub(crate) fn interface(&self) -> &str {
        &self.interface
    }

    /// The address on the other side of the wire.
    pub(crate) fn outside_ip(&self) -> &'static str {
        OUTSIDE_IP
    }

    /// What the box is plugged into.
    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// A program inside the box, with the cluster's environment.
    pub(crate) fn inside(&self, program: impl AsRef<Path>) -> Command {
        let mut command = self.node.command(program.as_ref());
        self.environment(&mut command);
        command
    }

    /// A program on the other side of the wire.
    pub(crate) fn outside(&self, program: &str) -> Command {
        self.outside.command(program)
    }

    /// What makes the README's commands work unchanged in a box: options by environment.
    pub(crate) fn environment(&self, command: &mut Command) {
        command
            .current_dir(workspace())
            .env("HOME", self.path("home"))
            .env("KUBECONFIG", self.kubeconfig())
            .env("SKEP_NETNS", self.node.name())
            .env("SKEP_CGROUP", self.node.name())
            .env("SKEP_STATE_DIR", self.path("state"))
            .env("SKEP_RUN_DIR", self.path("run"))
            .env("SKEP_LOG_DIR", self.path("logs"))
            .env("SKEP_PIN_DIR", format!("/sys/fs/bpf/skep-{}", self.node.name()))
            .env("SKEP_NODE_IP", self.node_ip())
            .env("SKEP_NODE_NAME", "node-1")
            .env("SKEP_LOG", "warn,skep=info");
        let resolver = self.path(RESOLV_CONF);
        if resolver.exists() {
            command.env("SKEP_RESOLV_CONF", resolver);
        }
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.path("state/kubeconfig/admin.conf")
    }

    /// Starts a registry inside the box and fills it.
    pub(crate) fn start_registry(&mut self) -> Result<()> {
        let config = self.path("registry.yml");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {REGISTRY}\n",
                self.path("registry").display()
            ),
        )?;
        let mut registry = self.inside("docker-registry");
        registry
            .arg("serve")
            .arg(&config)
            .stdout(self.log("registry.log")?)
            .stderr(self.log("registry.err")?);
        self.helpers.push(registry.spawn()?);
        ["web", "busybox"].iter().try_for_each(|image| self.push(image))
    }

    /// Puts an image into the registry.
    pub(crate) fn push(&self, image: &str) -> Result<()> {
        eventually(&format!("image {image} in the registry"), 20, || {
            read(
                self.inside("skopeo")
                    .args(["copy", "-q", "--insecure-policy", "--dest-tls-verify=false"])
                    .arg(format!("oci:{}:1", images().join(image).display()))
                    .arg(format!("docker://{REGISTRY}/{image}:1")),
            )
            .map(drop)
        })
        .map(drop)
    }

    /// The node's resolver settings, in place of the machine's; they may be changed while it runs.
    pub(crate) fn resolver(&self, text: &str) -> Result<()> {
        Ok(fs::write(self.path(RESOLV_CONF), text)?)
    }

    fn start_etcd(&mut self) -> Result<()> {
        let mut etcd = self.inside("etcd");
        etcd.args(["--name", "one", "--data-dir"])
            .arg(self.path("etcd"))
            .args([
                "--listen-client-urls",
                "http://127.0.0.1:2379",
                "--advertise-client-urls",
                "http://127.0.0.1:2379",
            ])
            .args(["--listen-peer-urls", "http://127.0.0.1:2380"])
            .stdout(self.log("etcd.log")?)
            .stderr(self.log("etcd.err")?);
        self.helpers.push(etcd.spawn()?);
        Ok(())
    }

    /// Starts `skep up` and waits until the node is Ready; how long that took.
    pub(crate) fn up(&mut self) -> Result<Duration> {
        self.spawn_up()?;
        self.wait_ready()
    }

    /// Starts `skep up`.
    pub(crate) fn spawn_up(&mut self) -> Result<()> {
        self.said = fs::read(self.path("skep.err")).map_or(0, |log| log.len());
        let mut command = self.inside(skep());
        command.arg("up");
        if self.store == Store::Etcd {
            command.args(["--etcd-endpoints", "http://127.0.0.1:2379"]);
        }
        command.stdin(Stdio::null()).stdout(self.log("skep.log")?).stderr(self.log("skep.err")?);
        self.skep = Some(command.spawn()?);
        Ok(())
    }

    /// Waits until `skep up` says that its node is Ready (the API may tell of an earlier run's agent),
    /// and kubectl agrees; how long the start took by its own count.
    pub(crate) fn wait_ready(&mut self) -> Result<Duration> {
        let from = self.said;
        let mut seconds = 0.0;
        let outcome = eventually("node Ready", 60, || {
            let skep = self.skep.as_mut().context("skep is not running")?;
            if let Some(status) = skep.try_wait()? {
                self.skep = None;
                bail!("skep up ended: {status}\n{}", self.tail("skep.err"));
            }
            let log = fs::read_to_string(self.path("skep.err"))?;
            let (_, line) =
                log[from..].split_once(" is Ready after ").context("skep up does not say Ready")?;
            seconds = line.split(' ').next().unwrap_or_default().parse()?;
            self.said = log.len();
            Ok(())
        });
        outcome.with_context(|| self.tail("skep.err"))?;
        let status =
            self.kubectl("get node node-1 -o jsonpath={.status.conditions[?(@.type==\"Ready\")].status}")?;
        if status != "True" {
            bail!("the node's Ready is {status:?}");
        }
        Ok(Duration::from_secs_f64(seconds))
    }

    /// Ctrl-C; waits for the end.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let Some(mut skep) = self.skep.take() else { return Ok(()) };
        kill(Pid::from_raw(i32::try_from(skep.id())?), Signal::SIGINT)?;
        let status = skep.wait()?;
        if !status.success() {
            bail!("skep up ended by Ctrl-C with {status}\n{}", self.tail("skep.err"));
        }
        Ok(())
    }

    /// The process id of the process that holds the cluster (the supervised one).
    pub(crate) fn cluster_pid(&self) -> Result<Pid> {
        let supervisor = self.skep.as_ref().context("skep is not running")?.id();
        let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children"))?;
        let first = children.split_whitespace().next().context("the supervisor has no child")?;
        Ok(Pid::from_raw(first.parse()?))
    }

    /// Real kubectl with the administrator's certificate. Arguments are split at spaces.
    pub(crate) fn kubectl(&self, arguments: &str) -> Result<String> {
        read(self.inside("kubectl").args(arguments.split(' ')))
    }

    /// A kubectl that must fail; its standard error.
    pub(crate) fn kubectl_fails(&self, arguments: &str) -> Result<String> {
        read_failure(self.inside("kubectl").args(arguments.split(' ')))
    }

    /// Writes a manifest into the cluster's folder; its path.
    pub(crate) fn manifest(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    /// The body that a URL answers, asked from the node's host.
    pub(crate) fn curl(&self, url: &str) -> Result<String> {
        read(self.inside("curl").args(["-sS", "--fail", "--max-time", "3", url]))
    }

    /// The same from the outside.
    pub(crate) fn curl_outside(&self, url: &str) -> Result<String> {
        read(self.outside("curl").args(["-sS", "--fail", "--max-time", "3", url]))
    }

    /// The last lines of a log.
    pub(crate) fn tail(&self, log: &str) -> String {
        let text = fs::read_to_string(self.path(log)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    fn log(&self, name: &str) -> Result<fs::File> {
        Ok(fs::File::options().create(true).append(true).open(self.path(name))?)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of skep's log ---\n{}", self.tail("skep.err"));
        }
        if let Some(mut skep) = self.skep.take() {
            report(
                "stopping skep",
                i32::try_from(skep.id())
                    .map_err(Into::into)
                    .and_then(|pid| Ok(kill(Pid::from_raw(pid), Signal::SIGTERM)?)),
            );
            report("waiting for skep", skep.wait().map(|_| ()).map_err(Into::into));
        }
        let purged = read(self.inside(skep()).args(["down", "--purge"])).map(|_| ());
        report("purging", purged);
        for mut helper in self.helpers.drain(..) {
            report(
                "stopping a helper",
                helper.kill().and_then(|()| helper.wait()).map(|_| ()).map_err(Into::into),
            );
        }
    }
}

/// Cleaning up goes on after an error, but never silently.
fn report(what: &str, result: Result<()>) {
    if let Err(error) = result {
        eprintln!("{what}: {error:#}");
    }
}
