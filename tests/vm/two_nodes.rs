//! Two machines as nodes: one runs `skep up`, the other joins it with a token.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use crate::cluster::{Cluster, Place, REGISTRY, eventually};
use crate::lab::Lab;

const PLACES: [Place; 2] = [Place::new("node-1", 0, 11), Place::new("node-2", 0, 12)];

/// The whole of it.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    let cluster = Cluster::boot(lab, &PLACES)?;
    cluster.up("node-1")?;
    cluster.join("node-2", "node-1")?;
    deploy(&cluster)?;
    services_answer(&cluster)
}

/// A web server and a shell on every node, and a service with a node port.
pub(crate) fn deploy(cluster: &Cluster) -> Result<()> {
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
pub(crate) fn servers(cluster: &Cluster) -> BTreeSet<String> {
    cluster.names().iter().map(|node| format!("web-{node}")).collect()
}

/// The service by its virtual address from a pod of every node, and by every node's port from outside.
pub(crate) fn services_answer(cluster: &Cluster) -> Result<()> {
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
