//! Name servers and the agent come and go.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use skep_tests::NetBox;
use skep_tests::netbox::command_in;

use super::{CLIENT, DNS, Upstream, dig, exec, field, same, short, soon};
use crate::cluster::Cluster;
use crate::tools::{eventually, expect_in};

pub(super) fn run(cluster: &mut Cluster, upstream: Upstream) -> Result<()> {
    limits(cluster)?;
    kept_answers(cluster, &upstream)?;
    name_servers_change(cluster, upstream)?;
    metrics(cluster)?;
    agent_killed(cluster)
}

/// An answer that is too long for a datagram is cut, and whole by stream.
fn limits(cluster: &Cluster) -> Result<()> {
    let slices: String = (0..3)
        .map(|slice| {
            let endpoints: String =
                (0..80).map(|n| format!("- {{addresses: [10.20.{slice}.{n}]}}\n")).collect();
            format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: long-{slice}\n  \
                 labels: {{kubernetes.io/service-name: long}}\naddressType: IPv4\nports: [{{port: 80}}]\n\
                 endpoints:\n{endpoints}---\n"
            )
        })
        .collect();
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: long}\nspec: {clusterIP: None}\n";
    let manifest = cluster.manifest("long.yaml", &format!("{slices}{service}"))?;
    cluster.kubectl(&format!("apply -f {}", manifest.display()))?;
    let name = "long.default.svc.cluster.local";
    soon("all slices are in the answer", || {
        // dig asks again by stream when it is told that something is missing.
        let found = short(cluster, name)?.len();
        if found == 240 { Ok(()) } else { bail!("{found} addresses") }
    })?;
    for (option, most) in [("+noedns", 512), ("+bufsize=4096", 1232)] {
        let said = dig(cluster, &format!("+ignore {option} {name}"))?;
        expect_in(&said, "flags: qr aa tc rd ra")?;
        let size = said.lines().find_map(|line| line.strip_prefix(";; MSG SIZE  rcvd: "));
        let size: usize = size.context("no size")?.trim().parse()?;
        if size > most || size + 16 <= most {
            bail!("{option}: {size} bytes");
        }
    }
    Ok(())
}

/// Names from outside are asked for once.
fn kept_answers(cluster: &Cluster, upstream: &Upstream) -> Result<()> {
    let name = "www.upstream.test";
    let before = upstream.asked(name)?;
    for transport in ["+notcp", "+tcp"] {
        same("the name", short(cluster, &format!("{transport} {name}"))?, vec!["192.0.2.80".to_owned()])?;
        let said = dig(cluster, &format!("{transport} gone.upstream.test"))?;
        expect_in(&said, "status: NXDOMAIN")?;
    }
    same("asked again", upstream.asked(name)?, before)?;
    // dnsmasq does not say for how long a name is not there: such an answer may not be kept (RFC 2308).
    same("what is not there", upstream.asked("gone.upstream.test")?, 2)?;
    // Nothing of the cluster's was asked outside.
    if upstream.log()?.contains("cluster.local from") {
        bail!("names of the cluster have left the node:\n{}", upstream.log()?);
    }
    Ok(())
}

/// The name server goes: what was known is still said. The node's file names another: it is asked.
fn name_servers_change(cluster: &Cluster, upstream: Upstream) -> Result<()> {
    same("it is known", short(cluster, "soon.upstream.test")?, vec!["192.0.2.82".to_owned()])?;
    drop(upstream);
    // Its time is two seconds.
    std::thread::sleep(Duration::from_secs(3));
    same("an old answer", short(cluster, "soon.upstream.test")?, vec!["192.0.2.82".to_owned()])?;
    let said = dig(cluster, "+time=6 new.upstream.test")?;
    expect_in(&said, "status: SERVFAIL")?;
    same(
        "the cluster's own",
        short(cluster, "kubernetes.default.svc.cluster.local")?,
        vec!["10.96.0.1".into()],
    )?;
    let _upstream = Upstream::start(cluster)?;
    cluster.resolver(&format!("nameserver 198.18.0.99\nnameserver {}\n", cluster.outside_ip()))?;
    soon("the name server that is left is asked", || {
        let name = format!("x{}.upstream.test", std::process::id());
        expect_in(&dig(cluster, &format!("+time=2 {name}"))?, "status: NXDOMAIN")
    })
    .map(drop)
}

fn metrics(cluster: &Cluster) -> Result<()> {
    let text = cluster.kubectl("get --raw /api/v1/nodes/node-1/proxy/metrics")?;
    for name in [
        "coredns_dns_requests_total{proto=\"udp\",type=\"A\"}",
        "coredns_dns_responses_total{rcode=\"NXDOMAIN\"}",
        "coredns_cache_hits_total{type=\"success\"}",
        "coredns_cache_served_stale_total",
        "coredns_proxy_request_duration_seconds_count{to=\"198.18.0.2:53\",rcode=\"NOERROR\"}",
    ] {
        let line = text.lines().find(|line| line.starts_with(name)).context(name)?;
        if line.ends_with(" 0") {
            bail!("{line}");
        }
    }
    Ok(())
}

/// The cluster's process dies: DNS is away for as long as it takes to start, and no socket stays with the dead.
fn agent_killed(cluster: &Cluster) -> Result<()> {
    exec(cluster, CLIENT, "true")?;
    let pod = Place::of(cluster, CLIENT, &cluster.path("run"), cluster.node())?;
    let before = cluster.cluster_pid()?;
    // A build for tests on a busy machine takes seconds to start; an optimized one on an idle machine a fraction.
    pod.never_longer_without_answers_than(8000, || Ok(kill(before, Signal::SIGKILL)?))?;
    eventually("the cluster is back", 30, || {
        let same = cluster.cluster_pid()? == before;
        if same {
            bail!("the process was not killed")
        }
        cluster.kubectl("get nodes").map(drop)
    })
    .map(drop)
}

/// Where a pod's processes are, as its node sees it.
pub(crate) struct Place<'a> {
    netns: PathBuf,
    node: &'a NetBox,
}

impl<'a> Place<'a> {
    /// Finds a pod on a node, given the node's folder of what runs.
    pub(crate) fn of(cluster: &Cluster, pod: &str, run: &Path, node: &'a NetBox) -> Result<Self> {
        let uid = field(cluster, &format!("pod {pod}"), ".metadata.uid")?;
        let netns = run.join("netns").join(uid);
        if netns.exists() { Ok(Self { netns, node }) } else { bail!("no {}", netns.display()) }
    }

    /// Asks the cluster's DNS again and again for a few seconds, over fresh sockets and over one that is kept, as
    /// processes of the pod would; meanwhile something happens.
    pub(crate) fn never_longer_without_answers_than(
        &self,
        most: u64,
        happens: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let kinds = ["fresh", "kept"];
        let watches = kinds.map(|socket| self.watch("kubernetes.default.svc.cluster.local", socket));
        std::thread::sleep(Duration::from_secs(1));
        let happened = happens();
        for (kind, watch) in kinds.into_iter().zip(watches) {
            let output = watch?.wait_with_output()?;
            let gap = Gap::of(&String::from_utf8(output.stdout)?)?;
            eprintln!(
                "  ok: {kind} sockets had no answer for {} ms, {} questions",
                gap.milliseconds, gap.lost
            );
            if gap.milliseconds > most || gap.wrong > 0 {
                bail!("{kind} sockets: no answer for {} ms, {} wrong answers", gap.milliseconds, gap.wrong);
            }
        }
        happened
    }

    fn watch(&self, name: &str, socket: &str) -> Result<Child> {
        let target = SocketAddr::new(DNS.parse()?, 53).to_string();
        let mut command = command_in(&self.netns, self.node.cgroup(), env!("CARGO_BIN_EXE_dnsload"));
        command.args(["watch", &target, name, "--socket", socket, "--gap", "10", "--seconds", "12"]);
        Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?)
    }
}

/// The time without answers, in what a watch has said.
struct Gap {
    milliseconds: u64,
    lost: usize,
    /// Answers that are not one: the name does not exist, say.
    wrong: usize,
}

impl Gap {
    fn of(text: &str) -> Result<Self> {
        let mut gap = Self { milliseconds: 0, lost: 0, wrong: 0 };
        let mut last = 0;
        for line in text.lines() {
            let (at, word) = line.split_once(' ').context("not a line of a watch")?;
            let at: u64 = at.parse()?;
            match word {
                "answer" => {
                    gap.milliseconds = gap.milliseconds.max(at - last);
                    last = at;
                }
                word if word.starts_with("code") && word != "code 2" => gap.wrong += 1,
                _ => gap.lost += 1,
            }
        }
        // It must have come back, too.
        if last + 1500
            < text.lines().last().and_then(|line| line.split(' ').next()?.parse().ok()).unwrap_or(0)
        {
            bail!("no answer in the end:\n{text}");
        }
        Ok(gap)
    }
}
