//! What happens when things go wrong between two nodes: each fault with what is expected of the cluster.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use skep_tests::eventually;

use crate::cluster::{Cluster, Place};
use crate::lab::Lab;
use crate::two_nodes::{deploy, services_answer};

const PLACES: [Place; 2] = [Place::new("node-1", 0, 11), Place::new("node-2", 0, 12)];

/// Requests of a series that may fail under a fault that TCP repairs: none.
const REQUESTS: usize = 20;

/// A fault: what is done, and what must be so.
type Fault = fn(&mut Cluster<'_>) -> Result<()>;

const FAULTS: [(&str, Fault); 9] = [
    ("every tenth packet is lost", loss),
    ("packets come twice and out of order", disorder),
    ("a link flaps", flapping),
    ("the nodes do not see each other", partition),
    ("the API server is away", without_server),
    ("containerd is killed", without_containerd),
    ("the kernel's table of connections is full", conntrack_full),
    ("a clock jumps", clock),
    ("a node loses its power", power),
];

/// All of them, one after the other, on one cluster; the table is in the README beside this file.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    let mut cluster = Cluster::boot(lab, &PLACES)?;
    cluster.up("node-1")?;
    cluster.join("node-2", "node-1")?;
    deploy(&cluster)?;
    services_answer(&cluster)?;
    let mut failures = Vec::new();
    for (name, fault) in FAULTS {
        let began = Instant::now();
        let outcome = fault(&mut cluster);
        let word = if outcome.is_ok() { "held" } else { "FAILED" };
        println!("{word}: {name} ({:.1} s)", began.elapsed().as_secs_f64());
        if let Err(error) = outcome {
            failures.push(format!("{name}: {error:#}"));
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// Requests from the outside to a node's port, answered by pods of both nodes; how many failed.
fn failed(cluster: &Cluster<'_>, node: &str) -> usize {
    let url = format!("http://{}:30080/", cluster.node(node).place.address());
    (0..REQUESTS).filter(|_| cluster.curl(&url).is_err()).count()
}

/// Runs with a queueing discipline on the uplinks of both nodes.
fn with_netem(cluster: &Cluster<'_>, options: &str) -> Result<()> {
    for node in ["node-1", "node-2"] {
        cluster.node(node).machine.sh(&format!("tc qdisc add dev eth0 root netem {options}"))?;
    }
    let failed = failed(cluster, "node-1");
    for node in ["node-1", "node-2"] {
        cluster.node(node).machine.sh("tc qdisc del dev eth0 root")?;
    }
    ensure!(failed == 0, "{failed} of {REQUESTS} requests failed");
    services_answer(cluster)
}

/// Expected: TCP repairs it, no request fails.
fn loss(cluster: &mut Cluster<'_>) -> Result<()> {
    with_netem(cluster, "loss 10%")
}

/// Expected: no request fails; translation of a packet does not depend on those before it.
fn disorder(cluster: &mut Cluster<'_>) -> Result<()> {
    with_netem(cluster, "delay 5ms duplicate 20% reorder 30% 50%")
}

/// Expected: requests wait while the link is down, and both nodes stay Ready.
fn flapping(cluster: &mut Cluster<'_>) -> Result<()> {
    let port = cluster.node("node-2").port.clone();
    for _ in 0..5 {
        cluster.segment(0).switch().ip(&format!("link set {port} down"))?;
        sleep(Duration::from_millis(500));
        cluster.segment(0).switch().ip(&format!("link set {port} up"))?;
        sleep(Duration::from_millis(500));
    }
    eventually("the service answers again", 30, || services_answer(cluster))?;
    cluster.ready("node-2", 5)
}

/// Expected: each node's own pods are reached at once, the other's time out; when the partition ends everything is
/// as before, without anything being restarted.
fn partition(cluster: &mut Cluster<'_>) -> Result<()> {
    let isolate = |cluster: &Cluster<'_>, word: &str| -> Result<()> {
        for node in ["node-1", "node-2"] {
            let port = &cluster.node(node).port;
            cluster.segment(0).switch().ip(&format!("link set {port} type bridge_slave isolated {word}"))?;
        }
        Ok(())
    };
    isolate(cluster, "on")?;
    let address = cluster.kubectl("get pod web-node-2 -o jsonpath={.status.podIP}")?;
    let crossed = cluster.kubectl(&format!("exec shell-node-1 -- timeout 3 wget -q -O - http://{address}/"));
    isolate(cluster, "off")?;
    ensure!(crossed.is_err(), "a partitioned node was reached");
    cluster.ready("node-2", 120)?;
    eventually("the service answers again", 60, || services_answer(cluster)).map(drop)
}

/// Expected: services go on while the API server is stopped for a minute; nothing is restarted by its return.
fn without_server(cluster: &mut Cluster<'_>) -> Result<()> {
    let machine = &cluster.node("node-1").machine;
    machine.sh("pkill -STOP -f '^[^ ]*/skep up'")?;
    let began = Instant::now();
    let mut failures = 0;
    while began.elapsed() < Duration::from_secs(60) {
        failures += failed(cluster, "node-2");
    }
    machine.sh("pkill -CONT -f '^[^ ]*/skep up'")?;
    ensure!(failures == 0, "{failures} requests failed while the server was away");
    cluster.ready("node-2", 120)?;
    unrestarted(cluster)
}

/// Expected: containers run on, the agent starts containerd again, and new containers start.
fn without_containerd(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.node("node-2").machine.sh("pkill -KILL -x containerd")?;
    ensure!(failed(cluster, "node-2") == 0, "requests failed while containerd was away");
    eventually("exec works again", 60, || cluster.kubectl("exec shell-node-2 -- true").map(drop))?;
    unrestarted(cluster)
}

/// Somebody's firewall follows connections, and the kernel's table of them is full. Expected: services of pods go on,
/// their packets do not pass the kernel's packet filter; and the node is Ready when there is room again.
///
/// Our own table of flows when it is full: `a_full_table_of_flows_refuses_new_ones_and_keeps_those_that_are` in
/// `proxy-ebpf/loader/tests/kernel`.
fn conntrack_full(cluster: &mut Cluster<'_>) -> Result<()> {
    let machine = &cluster.node("node-2").machine;
    machine.sh(
        "nft 'add table inet firewall; add chain inet firewall in { type filter hook prerouting priority 0; }; \
         add rule inet firewall in ct state established accept'; sysctl -w net.netfilter.nf_conntrack_max=1",
    )?;
    let failed = failed(cluster, "node-2");
    let full = machine.sh("dmesg | grep -c 'nf_conntrack: table full' || true")?;
    machine.sh("nft delete table inet firewall; sysctl -w net.netfilter.nf_conntrack_max=65536")?;
    ensure!(full.trim() != "0", "the table was not full");
    ensure!(failed == 0, "{failed} of {REQUESTS} requests failed");
    cluster.ready("node-2", 120)?;
    eventually("the service answers again", 60, || services_answer(cluster))?;
    unrestarted(cluster)
}

/// Expected: a clock that is an hour ahead, and one that goes back, cost nothing: what ends after a time is measured
/// by clocks that do not jump, and a lease is fresh when it changes, whatever it says.
fn clock(cluster: &mut Cluster<'_>) -> Result<()> {
    for (jump, back) in [("+3600", "-3600"), ("-3600", "+3600")] {
        let set = |seconds: &str| {
            let line = format!("date -s @$(( $(date +%s) {seconds} ))");
            cluster.node("node-2").machine.sh(&line).map(drop)
        };
        set(jump)?;
        // Longer than a lease is good for.
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(50) {
            let failed = failed(cluster, "node-2");
            ensure!(failed == 0, "{failed} of {REQUESTS} requests failed after {jump} s");
            cluster.ready("node-2", 0)?;
        }
        cluster.kubectl("exec shell-node-2 -- true")?;
        set(back)?;
    }
    cluster.ready("node-2", 60)?;
    services_answer(cluster)?;
    unrestarted(cluster)
}

/// Expected: the node is known to be lost, its endpoints leave the service, and a machine that comes back with an
/// empty disk joins again under its name.
fn power(cluster: &mut Cluster<'_>) -> Result<()> {
    let place = cluster.power_off("node-2")?;
    cluster.lost("node-2", 120)?;
    eventually("only the pods that are left are asked", 60, || {
        let failed = failed(cluster, "node-1");
        if failed == 0 { Ok(()) } else { bail!("{failed} of {REQUESTS} requests failed") }
    })?;
    cluster.power_on(place)?;
    cluster.join("node-2", "node-1")?;
    eventually("the service answers again", 180, || services_answer(cluster)).map(drop)
}

fn unrestarted(cluster: &Cluster<'_>) -> Result<()> {
    let restarts =
        cluster.kubectl("get pods -o jsonpath={.items[*].status.containerStatuses[*].restartCount}")?;
    ensure!(restarts.split(' ').all(|count| count == "0"), "containers were restarted: {restarts}");
    Ok(())
}
