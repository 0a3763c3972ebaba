//! Helm 3 and Helm 4: install, upgrade, rollback and uninstall, each waiting for what it did.

use anyhow::Result;

use crate::cluster::Cluster;
use crate::tools::{cache, expect_in, read};

/// The folders of `cargo xtask setup --tests` that hold each of them, by the kubectl beside it.
const HELMS: [(&str, u32); 2] = [("helm3", 31), ("helm4", 36)];

/// A release's life with each of them.
pub(crate) fn run(cluster: &Cluster) -> Result<()> {
    for (name, minor) in HELMS {
        life(cluster, name, minor).map_err(|error| error.context(name))?;
        eprintln!("  ok: {name} installs, upgrades, rolls back and uninstalls");
    }
    Ok(())
}

fn life(cluster: &Cluster, name: &str, minor: u32) -> Result<()> {
    let program = cache(&format!("kubectl-1.{minor}/helm"))?;
    let helm = |arguments: &str| read(cluster.inside(&program).args(arguments.split(' ')));
    let replicas =
        || cluster.kubectl(&format!("get deployment {name}-web -o jsonpath={{.status.readyReplicas}}"));
    helm(&format!("install {name} tests/e2e/chart --wait --timeout 60s"))?;
    expect_in(&replicas()?, "2")?;
    helm(&format!("upgrade {name} tests/e2e/chart --set replicas=3 --wait --timeout 60s"))?;
    expect_in(&replicas()?, "3")?;
    helm(&format!("rollback {name} 1 --wait --timeout 60s"))?;
    expect_in(&cluster.kubectl(&format!("get deployment {name}-web -o jsonpath={{.spec.replicas}}"))?, "2")?;
    expect_in(&helm(&format!("history {name}"))?, "Rollback to 1")?;
    helm(&format!("uninstall {name} --wait --timeout 60s")).map(|_| ())
}
