//! An agent that is killed at any moment leaves nothing that the next one does not put right.

use std::{
    collections::BTreeSet,
    env,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use skep_network::PodNetwork;

use super::{TestNode, pod};

const ROUNDS: u64 = 8;
/// Set in the process that is to be killed: the node's folder.
const VICTIM: &str = "SKEP_TEST_NETWORK_VICTIM";
const KEPT: [&str; 2] = ["kept-0", "kept-1"];

#[test]
fn killed_at_any_moment_nothing_leaks_and_no_address_is_given_twice() -> Result<()> {
    if let Some(dir) = env::var_os(VICTIM) {
        return be_the_victim(Path::new(&dir));
    }
    let name = "killed_at_any_moment_nothing_leaks_and_no_address_is_given_twice";
    if !skep_tests::require(name) {
        return Ok(());
    }
    let node = TestNode::new("crash")?;
    let mut removed = 0;
    for round in 0..ROUNDS {
        let mut command: Command = node.netbox.command(env::current_exe()?);
        command.args(["--exact", &format!("crash::{name}"), "--nocapture"]).env(VICTIM, &node.dir);
        let mut victim = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(60 + 37 * round));
        // `nsenter` and the shell have become the victim: it is this very process.
        victim.kill().context("kill the victim")?;
        victim.wait()?;
        removed += node.netbox.run_async(|| after_the_crash(&node))??;
    }
    ensure!(removed > 0, "the victim was never in the middle of anything");
    node.test(|_| async { Ok(()) })?;
    ensure!(!node.ip("link")?.contains("skep"), "purge leaves interfaces");
    Ok(())
}

/// Sets pods up and takes them down until killed.
fn be_the_victim(dir: &Path) -> Result<()> {
    let config = TestNode::config_in(dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let network = PodNetwork::new(config).await?;
        network.reconcile(&KEPT.map(str::to_owned)).await?;
        for uid in KEPT {
            network.setup(&pod(uid)).await?;
        }
        for number in 0_u64.. {
            network.setup(&pod(&format!("brief-{number}"))).await?;
            if let Some(old) = number.checked_sub(2) {
                network.teardown(&format!("brief-{old}")).await?;
            }
        }
        Ok(())
    })
}

/// Returns how many pods were left over.
async fn after_the_crash(node: &TestNode) -> Result<usize> {
    let network = PodNetwork::new(node.config.clone()).await?;
    let removed = network.reconcile(&KEPT.map(str::to_owned)).await?.removed.len();
    let mut ips = BTreeSet::new();
    for uid in KEPT {
        for ip in network.setup(&pod(uid)).await?.ips {
            ensure!(ips.insert(ip), "{ip} is given twice");
        }
    }
    let count = |text: String, part: &str| text.lines().filter(|line| line.contains(part)).count();
    ensure!(count(node.ip("-o link")?, "skep") == KEPT.len(), "interfaces leak: {}", node.ip("-o link")?);
    ensure!(count(node.ip("route")?, "dev skep") == KEPT.len(), "routes leak: {}", node.ip("route")?);
    let pinned = std::fs::read_dir(node.config.netns_dir())?.count();
    ensure!(pinned == KEPT.len(), "{pinned} namespaces are pinned");
    Ok(removed)
}
