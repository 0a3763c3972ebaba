//! Older and newer kubectls: they differ in what they send (JSON or protobuf) and in what they ask
//! (discovery, OpenAPI, watch lists, WebSockets).

use anyhow::Result;

use crate::cluster::Cluster;
use crate::tools::{cache, expect_in, read};

/// The minor releases beside the one that the other steps use.
const MINORS: [u32; 3] = [31, 34, 37];

/// The daily commands with each of them.
pub(crate) fn run(cluster: &Cluster) -> Result<()> {
    for minor in MINORS {
        daily(cluster, minor).map_err(|error| error.context(format!("kubectl 1.{minor}")))?;
        eprintln!("  ok: kubectl 1.{minor}");
    }
    Ok(())
}

fn daily(cluster: &Cluster, minor: u32) -> Result<()> {
    let program = cache(&format!("kubectl-1.{minor}/kubectl"))?;
    let kubectl = |arguments: &str| {
        let namespace = format!("--namespace=kubectl-{minor}");
        read(cluster.inside(&program).arg(namespace).args(arguments.split(' ')))
    };
    kubectl(&format!("create namespace kubectl-{minor}"))?;
    kubectl("create deployment shell --image=127.0.0.1:5000/busybox:1 -- sh -c while:;do:date;sleep:1;done")
        .and_then(|_| kubectl("delete deployment shell"))?;
    kubectl("apply -f examples/rc.yaml")?;
    kubectl("apply --server-side --force-conflicts -f examples/rc.yaml")?;
    kubectl("wait --for=jsonpath={.status.readyReplicas}=2 rc/shell --timeout=60s")?;
    expect_in(&kubectl("get rc")?, "DESIRED")?;
    expect_in(&kubectl("get pods -o wide")?, "node-1")?;
    expect_in(&kubectl("get pods -o yaml")?, "kind: List")?;
    expect_in(&kubectl("describe rc shell")?, "SuccessfulCreate")?;
    let pod = kubectl("get pods -o jsonpath={.items[0].metadata.name}")?;
    expect_in(&kubectl(&format!("exec {pod} -- hostname"))?, &pod)?;
    expect_in(&kubectl(&format!("logs {pod} --tail=1"))?, ":")?;
    expect_in(&kubectl("explain pod.spec.containers")?, "FIELDS")?;
    expect_in(&kubectl("auth can-i create pods")?, "yes")?;
    kubectl("scale rc shell --replicas=1")?;
    kubectl("label rc shell touched=yes")?;
    kubectl("annotate rc shell note-")?;
    kubectl("api-resources")?;
    kubectl("delete -f examples/rc.yaml --timeout=60s")?;
    kubectl(&format!("delete namespace kubectl-{minor} --timeout=60s")).map(|_| ())
}
