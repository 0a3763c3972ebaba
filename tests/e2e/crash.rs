//! kill -9 of the cluster's process in the middle of 1,000 writes: it comes back by itself, and
//! everything it acknowledged is there.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};

use crate::cluster::{Cluster, Store};
use crate::tools::eventually;

const WRITES: usize = 1000;

/// The test.
pub(crate) fn run() -> Result<()> {
    let mut cluster = Cluster::bare(Store::Embedded)?;
    cluster.up()?;
    let acknowledged = AtomicUsize::new(0);
    let mut known = BTreeSet::new();
    let pid = cluster.cluster_pid()?;
    std::thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            while acknowledged.load(Ordering::Relaxed) < WRITES / 4 {
                std::thread::sleep(Duration::from_millis(5));
            }
            if let Err(error) = kill(pid, Signal::SIGKILL) {
                eprintln!("killing the cluster's process: {error}");
            }
        });
        // One curl, 1,000 requests over one connection; the body of each answer is one line.
        for batch in 0..10 {
            for name in write_batch(&cluster, batch)? {
                known.insert(name);
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            if known.is_empty() {
                acknowledged.store(WRITES, Ordering::Relaxed);
                bail!("no write was acknowledged");
            }
        }
        acknowledged.store(WRITES, Ordering::Relaxed);
        Ok(())
    })?;
    if cluster.cluster_pid()? == pid {
        bail!("the cluster's process was not killed");
    }
    let mut missing = Vec::new();
    eventually("the cluster is back by itself", 30, || {
        let stored = cluster.kubectl("get configmaps -o name")?;
        let stored: BTreeSet<&str> =
            stored.lines().filter_map(|line| line.strip_prefix("configmap/")).collect();
        missing = known.iter().filter(|name| !stored.contains(name.as_str())).cloned().collect();
        Ok(())
    })?;
    if !missing.is_empty() {
        bail!("{} of {} acknowledged writes are lost: {missing:?}", missing.len(), known.len());
    }
    eprintln!("  ok: all of {} acknowledged writes are there", known.len());
    cluster.stop()
}

/// Writes 100 ConfigMaps; the names of those whose creation was answered by 201. Writes that meet the
/// crash fail or are tried again, as a client would.
fn write_batch(cluster: &Cluster, batch: usize) -> Result<Vec<String>> {
    let names: Vec<String> = (0..WRITES / 10).map(|n| format!("write-{batch}-{n}")).collect();
    let documents: Vec<String> = names
        .iter()
        .map(|name| {
            format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{of: \"{batch}\"}}\n"
            )
        })
        .collect();
    let path = cluster.manifest(&format!("writes-{batch}.yaml"), &documents.join("---\n"))?;
    let output =
        cluster.inside("kubectl").arg("create").arg("-f").arg(&path).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    Ok(said
        .lines()
        .filter_map(|line| line.strip_prefix("configmap/")?.strip_suffix(" created"))
        .map(str::to_owned)
        .collect())
}
