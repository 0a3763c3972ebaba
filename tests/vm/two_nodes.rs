//! Two machines as nodes: one runs `skep up`, the other joins it with a token.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use skep_tests::eventually;

use crate::cluster::{Cluster, Place, REGISTRY};
use crate::lab::Lab;

const PLACES: [Place; 2] = [Place::new("node-1", 0, 11), Place::new("node-2", 0, 12)];

/// The whole of it.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    let cluster = Cluster::boot(lab, &PLACES)?;
    cluster.up("node-1")?;
    cluster.join("node-2", "node-1")?;
    deploy(&cluster)?;
    services_answer(&cluster)?;
    names_resolve(&cluster)?;
    whole_packets_cross(&cluster)?;
    groups_are_pure(&cluster)?;
    an_agent_is_killed(&cluster)
}

/// The cluster's DNS answers pods of every node.
fn names_resolve(cluster: &Cluster<'_>) -> Result<()> {
    let vip = cluster.kubectl("get service web -o jsonpath={.spec.clusterIP}")?;
    for node in cluster.names() {
        let answer =
            cluster.kubectl(&format!("exec shell-{node} -- nslookup web.default.svc.cluster.local"))?;
        if !answer.contains(&vip) {
            bail!("a pod on {node} is told:\n{answer}");
        }
    }
    println!("  ok: names resolve");
    Ok(())
}

/// Packets of the segment's whole MTU reach the pods of other nodes.
fn whole_packets_cross(cluster: &Cluster<'_>) -> Result<()> {
    let address = cluster.kubectl("get pod web-node-2 -o jsonpath={.status.podIP}")?;
    // 1500 bytes less the headers of IP and ICMP.
    cluster.kubectl(&format!("exec shell-node-1 -- ping -c 2 -W 5 -s 1472 {address}"))?;
    println!("  ok: packets of 1500 bytes cross");
    Ok(())
}

/// The machines have control groups of the second version only, and the pods' are there.
fn groups_are_pure(cluster: &Cluster<'_>) -> Result<()> {
    for node in cluster.names() {
        let groups = cluster.kubectl(&format!("exec shell-{node} -- cat /proc/1/cgroup"))?;
        if groups.lines().count() != 1 || !groups.starts_with("0::") {
            bail!("a container on {node} is in these groups:\n{groups}");
        }
    }
    println!("  ok: containers are in groups of the second version only");
    Ok(())
}

/// Traffic goes on while the agent is away, and the next agent takes over what runs.
fn an_agent_is_killed(cluster: &Cluster<'_>) -> Result<()> {
    cluster.kill_agent("node-2")?;
    let url = format!("http://{}:30080/", cluster.node("node-2").place.address());
    reaches_all("node port of node-2 without an agent", &servers(cluster), || cluster.curl(&url))?;
    cluster.start_agent("node-2", "node-1")?;
    let lease = "get lease -n kube-node-lease node-2 -o jsonpath={.spec.renewTime}";
    let before = cluster.kubectl(lease)?;
    eventually("the next agent renews the lease", 120, || {
        if cluster.kubectl(lease)? == before {
            bail!("renewed last at {before}");
        }
        Ok(())
    })?;
    services_answer(cluster)?;
    let restarts =
        cluster.kubectl("get pods -o jsonpath={.items[*].status.containerStatuses[*].restartCount}")?;
    if restarts.split(' ').any(|count| count != "0") {
        bail!("containers were restarted: {restarts}");
    }
    println!("  ok: no container was restarted");
    Ok(())
}

/// A web server and a shell on every node, and a service with a node port.
pub(crate) fn deploy(cluster: &Cluster<'_>) -> Result<()> {
    let mut text = String::new();
    for node in cluster.names() {
        for (name, image, command) in
            [("web", "web", ""), ("shell", "busybox", ", command: [sleep, \"100000\"]")]
        {
            text += &format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}-{node}, labels: {{app: {name}}}}}\nspec:\n  \
                 nodeName: {node}\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: c, image: \
                 \"{REGISTRY}/{image}:1\"{command}}}\n---\n"
            );
        }
    }
    text += "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  type: NodePort\n  selector: {app: web}\n  \
             ports: [{port: 80, nodePort: 30080}]\n";
    cluster.apply("web.yaml", &text)?;
    eventually("all pods are Ready", 240, || {
        cluster
            .kubectl("wait --for=condition=Ready pod --all --timeout=5s")
            .map(drop)
            .or_else(|error| Err(error.context(cluster.kubectl("get pods -o wide")?)))
    })
    .map(drop)
}

/// The names of the web servers' pods.
pub(crate) fn servers(cluster: &Cluster<'_>) -> BTreeSet<String> {
    cluster.names().iter().map(|node| format!("web-{node}")).collect()
}

/// The service by its virtual address from a pod of every node, and by every node's port from outside.
pub(crate) fn services_answer(cluster: &Cluster<'_>) -> Result<()> {
    let servers = servers(cluster);
    let vip = cluster.kubectl("get service web -o jsonpath={.spec.clusterIP}")?;
    for node in cluster.names() {
        let ask = || cluster.kubectl(&format!("exec shell-{node} -- timeout 5 wget -q -O - http://{vip}/"));
        eventually(&format!("the service answers a pod on {node}"), 60, || ask().map(drop))?;
        reaches_all(&format!("ClusterIP from a pod on {node}"), &servers, ask)?;
        let url = format!("http://{}:30080/", cluster.node(node).place.address());
        reaches_all(&format!("node port of {node} from outside"), &servers, || cluster.curl(&url))?;
    }
    Ok(())
}

/// Every server answers within a bounded number of requests, and nobody else does.
pub(crate) fn reaches_all(
    what: &str,
    servers: &BTreeSet<String>,
    mut ask: impl FnMut() -> Result<String>,
) -> Result<()> {
    let mut seen = BTreeSet::new();
    for _ in 0..60 {
        let answer = ask()?;
        if !servers.contains(&answer) {
            bail!("{what}: {answer:?} answered, which is none of {servers:?}");
        }
        seen.insert(answer);
        if seen.len() == servers.len() {
            println!("  ok: {what} reaches all {} servers", servers.len());
            return Ok(());
        }
    }
    bail!("{what}: 60 requests reached only {seen:?} of {servers:?}")
}
