//! `skep down --purge` leaves nothing behind.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use skep_tests::cgroup::CgroupTree;

use crate::cluster::Cluster;
use crate::tools::{read, skep};

/// Purges, and looks everywhere.
pub(crate) fn leaves_nothing(cluster: &Cluster) -> Result<()> {
    read(cluster.inside(skep()).args(["down", "--purge"]))?;
    let mut left = Vec::new();
    let links = read(cluster.inside("ip").args(["-o", "link"]))?;
    for line in links.lines() {
        let name = line.split(": ").nth(1).unwrap_or_default().split('@').next().unwrap_or_default();
        if !["lo", cluster.interface()].contains(&name) {
            left.push(format!("link {name}"));
        }
    }
    for family in ["-4", "-6"] {
        let routes = read(cluster.inside("ip").args([family, "route", "show", "type", "unreachable"]))?;
        left.extend(routes.lines().map(|route| format!("route {route}")));
    }
    let routes = read(cluster.inside("ip").args(["route"]))?;
    left.extend(
        routes
            .lines()
            .filter(|route| route.contains("10.244.") || route.contains("10.96."))
            .map(|route| format!("route {route}")),
    );
    let mine = cluster.path("");
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    left.extend(
        mounts
            .lines()
            .filter(|mount| mount.contains(&*mine.to_string_lossy()))
            .map(|mount| format!("mount {mount}")),
    );
    for folder in ["state", "run", "logs"] {
        if cluster.path(folder).exists() {
            left.push(format!("folder {folder}"));
        }
    }
    let pins = format!("/sys/fs/bpf/skep-{}", cluster.node().name());
    if Path::new(&pins).exists() {
        left.push(format!("pins {pins}"));
    }
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains("containerd-shim") && line.contains(&*mine.to_string_lossy()) {
            left.push(format!("process {line}"));
        }
    }
    for procs in cluster.node().cgroup().into_iter().flat_map(CgroupTree::process_files) {
        let folder = procs.parent().context("a cgroup file without a folder")?;
        for entry in fs::read_dir(folder)?.flatten().filter(|entry| entry.path().is_dir()) {
            left.push(format!("cgroup {}", entry.path().display()));
        }
    }
    if !left.is_empty() {
        bail!("left behind:\n  {}", left.join("\n  "));
    }
    eprintln!("  ok: nothing is left");
    Ok(())
}
