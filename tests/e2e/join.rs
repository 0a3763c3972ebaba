//! A second machine joins with a token: it registers, runs pods, and both nodes reach the pods of both.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use skep_tests::NetBox;

use crate::cluster::{Cluster, Store};
use crate::names::faults::Place;
use crate::tools::{eventually, reaches_all, read, skep};

/// The second machine's address.
const ADDRESS: &str = "198.18.0.3";

/// The second machine. Everything it made is removed when it is dropped.
struct Machine<'a> {
    cluster: &'a Cluster,
    netbox: NetBox,
    registry: Child,
    agent: Option<Child>,
}

impl<'a> Machine<'a> {
    /// A box on the cluster's segment, with the cluster's images in a registry of its own.
    fn new(cluster: &'a Cluster) -> Result<Self> {
        let netbox = NetBox::with_cgroup("e2eb")?;
        cluster.segment().plug(&netbox, &[format!("{ADDRESS}/24").parse()?])?;
        let mut registry = netbox.command("docker-registry");
        registry.arg("serve").arg(cluster.path("registry.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = registry.spawn()?;
        std::fs::create_dir_all(cluster.path("second"))?;
        Ok(Self { cluster, netbox, registry, agent: None })
    }

    fn log(&self) -> PathBuf {
        self.cluster.path("second/agent.err")
    }

    /// `skep` on this machine.
    fn skep(&self) -> Command {
        let mut command = self.netbox.command(skep());
        self.cluster.environment(&mut command);
        let folder = |name: &str| self.cluster.path("second").join(name);
        command
            .env("SKEP_NETNS", self.netbox.name())
            .env("SKEP_CGROUP", self.netbox.name())
            .env("SKEP_STATE_DIR", folder("state"))
            .env("SKEP_RUN_DIR", folder("run"))
            .env("SKEP_LOG_DIR", folder("logs"))
            .env("SKEP_PIN_DIR", format!("/sys/fs/bpf/skep-{}", self.netbox.name()))
            .env("SKEP_NODE_IP", ADDRESS)
            .env("SKEP_NODE_NAME", "node-2");
        command
    }

    fn start(&mut self, arguments: &[&str]) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = self.skep();
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.agent = Some(command.spawn()?);
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        stop(&mut self.agent)
    }
}

fn stop(agent: &mut Option<Child>) -> Result<()> {
    let Some(mut agent) = agent.take() else { return Ok(()) };
    kill(Pid::from_raw(i32::try_from(agent.id())?), Signal::SIGTERM)?;
    let status = agent.wait()?;
    if !status.success() {
        bail!("skep agent ended with {status}");
    }
    Ok(())
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        let told = std::fs::read_to_string(self.log()).unwrap_or_default();
        let ends = [
            self.stop(),
            read(self.skep().args(["down", "--purge"])).map(drop),
            self.registry.kill().and_then(|()| self.registry.wait()).map(drop).map_err(Into::into),
        ];
        for error in ends.into_iter().filter_map(Result::err) {
            eprintln!("the second machine: {error:#}\n{told}");
        }
    }
}

/// The whole of it.
pub(crate) fn run() -> Result<()> {
    let cluster = Cluster::start(Store::Embedded)?;
    let mut machine = Machine::new(&cluster)?;
    let line = read(cluster.inside(skep()).args(["token", "create"]))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, arguments @ ..] = words.as_slice() else { bail!("skep token create says {line:?}") };
    machine.start(arguments)?;
    ready(&cluster, 60).with_context(|| std::fs::read_to_string(machine.log()).unwrap_or_default())?;
    eventually("both nodes take pods", 30, || {
        let nodes = cluster.kubectl("get nodes -o jsonpath={.items[*].metadata.name}")?;
        let kept_off =
            cluster.kubectl("get nodes -o jsonpath={.items[*].spec.taints}{.items[*].spec.unschedulable}")?;
        if nodes == "node-1 node-2" && kept_off.is_empty() { Ok(()) } else { bail!("{nodes}: {kept_off}") }
    })?;
    pods_answer_across(&cluster)?;
    // The certificates are its own now: no token is needed any more. Meanwhile the first node's DNS answers.
    dns_is_handed_over(&cluster, &mut machine)?;
    cluster.kubectl("delete secret -n kube-system --field-selector type=bootstrap.kubernetes.io/token")?;
    let server = words.iter().position(|word| *word == "--server").and_then(|at| words.get(at + 1));
    machine.start(&["agent", "--server", server.context("no --server in the command")?])?;
    eventually("the agent renews its lease again", 30, || {
        let lease = "get lease -n kube-node-lease node-2 -o jsonpath={.spec.renewTime}";
        let before = cluster.kubectl(lease)?;
        std::thread::sleep(std::time::Duration::from_secs(2));
        if cluster.kubectl(lease)? == before {
            bail!("renewed last at {before}");
        }
        Ok(())
    })?;
    ready(&cluster, 20)
}

/// A pod of the second node has answers though its agent stops, and stays away.
fn dns_is_handed_over(cluster: &Cluster, machine: &mut Machine<'_>) -> Result<()> {
    let (netbox, agent) = (&machine.netbox, &mut machine.agent);
    let pod = Place::of(cluster, "shell-2", &cluster.path("second/run"), netbox)?;
    pod.never_longer_without_answers_than(1500, || stop(agent))
}

fn ready(cluster: &Cluster, seconds: u64) -> Result<()> {
    eventually("the second node is Ready", seconds, || {
        let query = "get node node-2 -o jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        let status = cluster.kubectl(query)?;
        if status == "True" { Ok(()) } else { bail!("Ready is {status:?}") }
    })
    .map(drop)
}

/// Two web servers and two shells, one of each on either node; each shell reaches both servers by the service.
fn pods_answer_across(cluster: &Cluster) -> Result<()> {
    let pod = |name: &str, node: &str, labels: &str, container: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {labels}}}}}\nspec:\n  nodeName: {node}\n  \
             terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: c, {container}}}\n---\n"
        )
    };
    let web = "image: \"127.0.0.1:5000/web:1\"";
    let shell = "image: \"127.0.0.1:5000/busybox:1\", command: [sleep, \"3600\"]";
    let mut text: String = [("1", "node-1"), ("2", "node-2")]
        .map(|(n, node)| {
            pod(&format!("web-{n}"), node, "across", web) + &pod(&format!("shell-{n}"), node, "shell", shell)
        })
        .concat();
    text += "apiVersion: v1\nkind: Service\nmetadata: {name: across}\nspec:\n  selector: {app: across}\n  ports: [{port: 80}]\n";
    let manifest = cluster.manifest("across.yaml", &text)?;
    cluster.kubectl(&format!("apply -f {}", manifest.display()))?;
    cluster
        .kubectl("wait --for=condition=Ready pod/web-1 pod/web-2 pod/shell-1 pod/shell-2 --timeout=60s")?;
    let vip = cluster.kubectl("get service across -o jsonpath={.spec.clusterIP}")?;
    let servers = ["web-1", "web-2"].map(str::to_owned).into();
    for shell in ["shell-1", "shell-2"] {
        let ask = || cluster.kubectl(&format!("exec {shell} -- timeout 5 wget -q -O - http://{vip}/"));
        // A node learns of a service a moment later than the API, and is reached for exec when the cluster has
        // signed its certificate.
        eventually(&format!("the service answers {shell}"), 40, || ask().map(drop))?;
        reaches_all(&format!("ClusterIP from {shell}"), &servers, ask)?;
    }
    // Through the second kubelet's own certificate.
    cluster.kubectl("logs web-2").map(drop)
}
