//! Setup, teardown, restart, crash and purge.

use std::sync::Arc;

use anyhow::{Result, ensure};
use skep_network::PodNetwork;

use super::{TestNode, fake, pod};

#[test]
fn setup_and_teardown_are_idempotent_and_leave_nothing() -> Result<()> {
    if !skep_tests::require("setup_and_teardown_are_idempotent_and_leave_nothing") {
        return Ok(());
    }
    let mut node = TestNode::new("lifecycle")?;
    let data_path = fake();
    node.config.data_plane = Some(Arc::clone(&data_path) as _);
    let before = (node.ip("link")?, node.ip("route show table all")?, node.ip("-6 route")?);
    node.test(|network| {
        let (node, data_path) = (&node, &data_path);
        async move {
            let first = network.setup(&pod("a")).await?;
            ensure!(first.ips.len() == 2, "one address of each family: {first:?}");
            ensure!(network.setup(&pod("a")).await? == first, "a second setup changes nothing");
            let state = data_path.state();
            ensure!(state.attached.len() == 1 && state.endpoints.len() == 2, "{state:?}");
            let addresses = node.in_pod(&first.netns, "-br address show dev eth0")?;
            ensure!(first.ips.iter().all(|ip| addresses.contains(&ip.to_string())), "{addresses}");
            let other = network.setup(&pod("b")).await?;
            ensure!(other.ips != first.ips && other.host_interface != first.host_interface);
            for _ in 0..2 {
                network.teardown("a").await?;
                network.teardown("b").await?;
            }
            network.teardown("never-there").await?;
            ensure!(network.setup(&pod("../etc")).await.is_err(), "a uid that is no file name");
            ensure!(!first.netns.exists());
            ensure!(data_path.state() == super::FakeState::default(), "{:?}", data_path.state());
            let again = network.setup(&pod("c")).await?;
            ensure!(again.ips != first.ips && again.ips != other.ips, "addresses rest: {again:?}");
            Ok(())
        }
    })?;
    let after = (node.ip("link")?, node.ip("route show table all")?, node.ip("-6 route")?);
    ensure!(after == before, "purge left something:\n{after:?}\n{before:?}");
    let left =
        std::fs::read_dir(node.dir.join("run"))?.count() + std::fs::read_dir(node.dir.join("state"))?.count();
    ensure!(left == 0, "purge left files");
    Ok(())
}

#[test]
fn a_restart_adopts_known_pods_and_removes_orphans() -> Result<()> {
    if !skep_tests::require("a_restart_adopts_known_pods_and_removes_orphans") {
        return Ok(());
    }
    let node = TestNode::new("restart")?;
    node.test(|network| {
        let node = &node;
        async move {
            let keep = network.setup(&pod("keep")).await?;
            let orphan = network.setup(&pod("orphan")).await?;
            drop(network);
            // While no agent runs, someone tears a known pod's link down and a crash leaves an empty file.
            node.ip(&format!("link set {} down", keep.host_interface))?;
            std::fs::write(node.config.netns_dir().join("half-made"), "")?;
            let network = PodNetwork::new(node.config.clone()).await?;
            ensure!(node.ip("link")?.contains(&orphan.host_interface), "nothing goes before reconcile");
            let done = network.reconcile(&["keep".into(), "known-but-never-set-up".into()]).await?;
            ensure!(done.adopted == ["keep"], "{done:?}");
            ensure!(done.removed == ["orphan", "half-made"], "{done:?}");
            ensure!(!orphan.netns.exists() && !node.ip("link")?.contains(&orphan.host_interface));
            ensure!(network.setup(&pod("keep")).await? == keep, "the same addresses");
            ensure!(node.ip("route")?.contains(&keep.ips[0].to_string()), "its route is back");
            Ok(())
        }
    })
}

#[test]
fn lost_records_are_rebuilt_from_the_devices() -> Result<()> {
    if !skep_tests::require("lost_records_are_rebuilt_from_the_devices") {
        return Ok(());
    }
    let node = TestNode::new("lost")?;
    node.test(|network| {
        let node = &node;
        async move {
            let before = network.setup(&pod("a")).await?;
            drop(network);
            std::fs::write(node.config.state_dir.join("network/pods.json"), "garbage")?;
            let network = PodNetwork::new(node.config.clone()).await?;
            network.reconcile(&["a".into()]).await?;
            ensure!(network.setup(&pod("a")).await? == before);
            ensure!(network.setup(&pod("b")).await?.ips != before.ips, "the address is not given twice");
            Ok(())
        }
    })
}

#[test]
fn many_pods_at_once_get_different_networks() -> Result<()> {
    if !skep_tests::require("many_pods_at_once_get_different_networks") {
        return Ok(());
    }
    let node = TestNode::new("many")?;
    node.test(|network| async move {
        let uids: Vec<String> = (0..30).map(|n| format!("pod-{n}")).collect();
        let requests: Vec<_> = uids.iter().map(|uid| pod(uid)).collect();
        let start = tokio::time::Instant::now();
        let made =
            futures::future::try_join_all(requests.iter().map(|request| network.setup(request))).await?;
        println!("30 pods at once: {:?}", start.elapsed());
        let mut ips: Vec<_> = made.iter().flat_map(|attachment| attachment.ips.clone()).collect();
        ips.sort();
        ips.dedup();
        ensure!(ips.len() == 60, "{}", ips.len());
        ensure!(network.attachments().await.len() == 30);
        futures::future::try_join_all(uids.iter().map(|uid| network.teardown(uid))).await?;
        ensure!(network.attachments().await.is_empty());
        Ok(())
    })
}

#[test]
fn a_sysctl_changed_by_us_is_put_back_and_one_changed_by_others_is_not() -> Result<()> {
    if !skep_tests::require("a_sysctl_changed_by_us_is_put_back_and_one_changed_by_others_is_not") {
        return Ok(());
    }
    let node = TestNode::new("sysctl")?;
    let (forward, forward6) = ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding");
    let read = |path: &'static str| node.netbox.run(move || std::fs::read_to_string(path));
    node.netbox.run(|| std::fs::write(forward, "0").and_then(|()| std::fs::write(forward6, "0")))??;
    node.test(|network| async move {
        ensure!(std::fs::read_to_string(forward)? == "1\n" && std::fs::read_to_string(forward6)? == "1\n");
        drop(network);
        Ok(std::fs::write(forward6, "0")?)
    })?;
    ensure!(read(forward)?? == "0\n" && read(forward6)?? == "0\n");
    Ok(())
}
