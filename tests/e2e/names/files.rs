//! `/etc/resolv.conf`, `/etc/hosts` and the host name, as policies and fields of the pod want them.

use anyhow::{Context, Result, bail};

use super::{CLIENT, DNS, exec, field, same};
use crate::cluster::Cluster;
use crate::tools::expect_in;

pub(super) fn run(cluster: &Cluster) -> Result<()> {
    resolvers(cluster)?;
    hosts(cluster)?;
    host_names(cluster)?;
    eprintln!("  ok: resolv.conf, hosts and host names of pods");
    Ok(())
}

fn resolvers(cluster: &Cluster) -> Result<()> {
    let of = |pod: &str| exec(cluster, pod, "cat /etc/resolv.conf");
    let outside = cluster.outside_ip();
    let first = format!(
        "search default.svc.cluster.local svc.cluster.local cluster.local corp.test\nnameserver {DNS}\noptions ndots:5"
    );
    let node = format!("search corp.test\nnameserver {outside}");
    same("ClusterFirst", of(CLIENT)?, first.clone())?;
    same("ClusterFirstWithHostNet", of("on-host-first")?, first)?;
    same("Default", of("as-node")?, node.clone())?;
    same("ClusterFirst in the host's network", of("on-host")?, node)?;
    let none = format!("search upstream.test\nnameserver {outside}\noptions ndots:2 edns0");
    same("None", of("none")?, none)?;
    let added = format!(
        "search default.svc.cluster.local svc.cluster.local cluster.local corp.test upstream.test\n\
         nameserver {DNS}\nnameserver {outside}\noptions ndots:1"
    );
    same("ClusterFirst with more", of("added")?, added)?;
    // They are used: the search path of one, the cluster's DNS from the host's network of the other.
    for (pod, name, ip) in [
        ("none", "www", "192.0.2.80"),
        ("as-node", "www", "192.0.2.81"),
        ("on-host-first", "kubernetes.default", "10.96.0.1"),
    ] {
        expect_in(&exec(cluster, pod, &format!("getent ahostsv4 {name}"))?, ip)?;
    }
    Ok(())
}

fn hosts(cluster: &Cluster) -> Result<()> {
    // A pod finds itself, by its short and its whole name, in its file.
    let ip = field(cluster, "pod db-0", ".status.podIP")?;
    for name in ["db-0", "db-0.db.default.svc.cluster.local"] {
        let said = exec(cluster, "db-0", &format!("getent hosts {name}"))?;
        expect_in(&said, &ip)?;
        expect_in(&said, "db-0.db.default.svc.cluster.local")?;
    }
    let file = exec(cluster, "db-0", "cat /etc/hosts")?;
    expect_in(&file, "# Kubernetes-managed hosts file.")?;
    expect_in(&file, &format!("{ip}\tdb-0.db.default.svc.cluster.local\tdb-0"))?;
    // Aliases are added.
    for name in ["alias.test", "other.test"] {
        expect_in(&exec(cluster, CLIENT, &format!("getent hosts {name}"))?, "192.0.2.7")?;
    }
    expect_in(
        &exec(cluster, CLIENT, "cat /etc/hosts")?,
        "# Entries added by HostAliases.\n192.0.2.7\talias.test\tother.test",
    )?;
    // In the host's network it is the host's file and what the pod adds.
    let host = std::fs::read_to_string("/etc/hosts")?;
    let file = exec(cluster, "on-host", "cat /etc/hosts")?;
    expect_in(&file, host.trim_end())?;
    expect_in(&file, "192.0.2.7\talias.test")?;
    // A container that mounts its own keeps it; its neighbour does not have it.
    same(
        "an own file",
        exec(cluster, "own-hosts -c c", "cat /etc/hosts")?,
        "192.0.2.9 mine.test".to_owned(),
    )?;
    let managed = exec(cluster, "own-hosts -c managed", "cat /etc/hosts")?;
    expect_in(&managed, "# Kubernetes-managed hosts file.")?;
    if managed.contains("mine.test") {
        bail!("the neighbour's file:\n{managed}");
    }
    Ok(())
}

fn host_names(cluster: &Cluster) -> Result<()> {
    for (pod, name) in
        [(CLIENT, CLIENT), ("db-0", "db-0"), ("whole-name", "whole.db.default.svc.cluster.local")]
    {
        same("hostname", exec(cluster, pod, "hostname")?, name.to_owned())?;
        same("/etc/hostname", exec(cluster, pod, "cat /etc/hostname")?, name.to_owned())?;
        same("HOSTNAME", variable(cluster, pod)?, name.to_owned())?;
    }
    let host = exec(cluster, "on-host", "hostname")?;
    same("the host's", exec(cluster, "on-host", "cat /etc/hostname")?, host.clone())?;
    same("the host's", variable(cluster, "on-host")?, host)
}

/// HOSTNAME in the environment.
fn variable(cluster: &Cluster, pod: &str) -> Result<String> {
    let all = exec(cluster, pod, "env")?;
    let line = all.lines().find_map(|line| line.strip_prefix("HOSTNAME="));
    Ok(line.with_context(|| format!("no HOSTNAME in {all}"))?.to_owned())
}
