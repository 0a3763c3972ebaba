//! Names: what the cluster's DNS says to real resolvers (dig, the C library) in real pods, what is in the files that
//! resolvers read, and that all of it goes on while name servers and the agent come and go.

pub(crate) mod faults;
mod files;
mod records;
mod types;

use std::fs::File;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cluster::{Cluster, Store};
use crate::tools::eventually;

/// The address of the cluster's DNS.
const DNS: &str = "10.96.0.10";
/// The pod that asks.
const CLIENT: &str = "client";

/// One cluster for all of it: a cluster is what costs time.
pub(crate) fn run() -> Result<()> {
    let mut cluster = Cluster::bare(Store::Embedded)?;
    let upstream = Upstream::start(&cluster)?;
    cluster.resolver(&format!("search corp.test\nnameserver {}\n", cluster.outside_ip()))?;
    cluster.start_registry()?;
    cluster.push("dnsutils")?;
    cluster.up()?;
    pods(&cluster)?;
    records::run(&cluster)?;
    files::run(&cluster)?;
    types::run(&cluster)?;
    faults::run(&mut cluster, upstream)?;
    cluster.stop()
}

/// A name server of the world outside, which knows `upstream.test`.
struct Upstream {
    child: Child,
    log: std::path::PathBuf,
}

impl Upstream {
    fn start(cluster: &Cluster) -> Result<Self> {
        let log = cluster.path("dnsmasq.log");
        let child = cluster
            .outside("dnsmasq")
            .args([
                "--keep-in-foreground",
                "--no-resolv",
                "--no-hosts",
                "--pid-file=",
                "--user=root",
                "--conf-file=",
            ])
            .args([
                "--log-queries",
                "--log-facility=-",
                "--bind-interfaces",
                "--local-ttl=600",
                "--neg-ttl=60",
            ])
            .arg(format!("--listen-address={}", cluster.outside_ip()))
            .args(["--local=/upstream.test/", "--local=/corp.test/"])
            .args([
                "--host-record=www.upstream.test,192.0.2.80,2001:db8::80",
                "--host-record=www.corp.test,192.0.2.81",
            ])
            .args(["--host-record=soon.upstream.test,192.0.2.82,2"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("starting dnsmasq")?;
        let upstream = Self { child, log };
        eventually("the name server outside answers", 10, || {
            if !upstream.log()?.contains("started") {
                bail!("{}", upstream.log()?);
            }
            Ok(())
        })?;
        Ok(upstream)
    }

    fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// How often it was asked about a name.
    fn asked(&self, name: &str) -> Result<usize> {
        Ok(self
            .log()?
            .lines()
            .filter(|line| line.contains("query[") && line.contains(&format!("] {name} ")))
            .count())
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("stopping the name server outside: {error}");
        }
    }
}

/// The pods and services that are asked about.
fn pods(cluster: &Cluster) -> Result<()> {
    let manifest = cluster.manifest("names.yaml", MANIFEST)?;
    cluster.kubectl(&format!("apply -f {}", manifest.display()))?;
    cluster.kubectl("wait --for=condition=Ready pod --all --timeout=90s")?;
    // The node's DNS follows the API a moment later.
    soon("the headless service has its names", || {
        let found = dig(cluster, "+short db.default.svc.cluster.local")?;
        if found.lines().count() == 2 { Ok(()) } else { bail!("{found:?}") }
    })
    .map(drop)
}

const MANIFEST: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 0
  hostAliases: [{ip: 192.0.2.7, hostnames: [alias.test, other.test]}]
  containers: [{name: c, image: "127.0.0.1:5000/dnsutils:1", command: [sleep, "36000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "127.0.0.1:5000/web:1"}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80}, {name: media, port: 5004, protocol: UDP}]
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, labels: {app: db}}
spec:
  terminationGracePeriodSeconds: 0
  hostname: db-0
  subdomain: db
  containers: [{name: c, image: "127.0.0.1:5000/dnsutils:1", command: [sleep, "36000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: db-unnamed, labels: {app: db}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "127.0.0.1:5000/busybox:1", command: [sleep, "36000"]}]
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec:
  clusterIP: None
  selector: {app: db}
  ports: [{name: pg, port: 5432}]
---
apiVersion: v1
kind: Pod
metadata: {name: none}
spec:
  terminationGracePeriodSeconds: 0
  dnsPolicy: None
  dnsConfig:
    nameservers: [198.18.0.2]
    searches: [upstream.test]
    options: [{name: ndots, value: "2"}, {name: edns0}]
  containers: [{name: c, image: "127.0.0.1:5000/dnsutils:1", command: [sleep, "36000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: added}
spec:
  terminationGracePeriodSeconds: 0
  dnsConfig: {nameservers: [198.18.0.2], searches: [upstream.test], options: [{name: ndots, value: "1"}]}
  containers: [{name: c, image: "127.0.0.1:5000/busybox:1", command: [sleep, "36000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: as-node}
spec:
  terminationGracePeriodSeconds: 0
  dnsPolicy: Default
  containers: [{name: c, image: "127.0.0.1:5000/dnsutils:1", command: [sleep, "36000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: on-host}
spec:
  terminationGracePeriodSeconds: 0
  hostNetwork: true
  hostAliases: [{ip: 192.0.2.7, hostnames: [alias.test]}]
  containers: [{name: c, image: "127.0.0.1:5000/dnsutils:1", command: [sleep, "36000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: on-host-first}
spec:
  terminationGracePeriodSeconds: 0
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  containers: [{name: c, image: "127.0.0.1:5000/dnsutils:1", command: [sleep, "36000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: whole-name}
spec:
  terminationGracePeriodSeconds: 0
  hostname: whole
  subdomain: db
  setHostnameAsFQDN: true
  containers: [{name: c, image: "127.0.0.1:5000/busybox:1", command: [sleep, "36000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: own-hosts}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: "127.0.0.1:5000/busybox:1"
    command: [sleep, "36000"]
    volumeMounts: [{name: files, mountPath: /etc/hosts, subPath: hosts}]
  - {name: managed, image: "127.0.0.1:5000/busybox:1", command: [sleep, "36000"]}
  volumes: [{name: files, configMap: {name: own-hosts}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: own-hosts}
data: {hosts: "192.0.2.9 mine.test\n"}
"#;

/// A command in a pod.
fn exec(cluster: &Cluster, pod: &str, command: &str) -> Result<String> {
    cluster.kubectl(&format!("exec {pod} -- {command}"))
}

/// dig in the client's pod.
fn dig(cluster: &Cluster, arguments: &str) -> Result<String> {
    exec(cluster, CLIENT, &format!("dig +tries=1 +time=3 {arguments}"))
}

/// What dig says in short, in order.
fn short(cluster: &Cluster, arguments: &str) -> Result<Vec<String>> {
    let said = dig(cluster, &format!("+short {arguments}"))?;
    let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

#[expect(clippy::needless_pass_by_value, reason = "called with what was just made")]
fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, want: T) -> Result<()> {
    if got != want {
        bail!("{what}: {got:?}, not {want:?}");
    }
    Ok(())
}

/// A field of an object.
fn field(cluster: &Cluster, object: &str, path: &str) -> Result<String> {
    cluster.kubectl(&format!("get {object} -o jsonpath={{{path}}}"))
}

/// Tries until it is so; a change takes a moment to come through.
fn soon(what: &str, attempt: impl FnMut() -> Result<()>) -> Result<Duration> {
    eventually(what, 30, attempt)
}
