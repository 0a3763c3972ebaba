//! Now and then: counts what runs, tells the node's images, and removes images nobody uses when the disk
//! fills up.

use std::{collections::HashSet, time::Duration};

use skep_runtime::Image;
use tokio::{sync::watch, time};

use crate::{Error, node::Health, pods::SharedTools};

const PERIOD: Duration = Duration::from_secs(30);
/// Images are collected above this use of the disk, down to the second value.
const HIGH_PERCENT: u64 = 85;
const LOW_PERCENT: u64 = 80;

/// Runs until dropped.
pub(crate) async fn run(tools: SharedTools, health: watch::Sender<Health>) {
    let mut ticks = time::interval(PERIOD);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = round(&tools, &health).await {
            tracing::warn!(%error, "housekeeping");
        }
    }
}

async fn round(tools: &SharedTools, health: &watch::Sender<Health>) -> Result<(), Error> {
    let records = tools.runtime.containers().await?;
    let running: Vec<_> = records.iter().filter(|r| r.pid().is_some()).collect();
    let pods: HashSet<_> = running.iter().map(|r| r.pod.uid.as_str()).collect();
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    tools.metrics.running_containers.set(count(running.len()));
    tools.metrics.running_pods.set(count(pods.len()));

    let mut images = tools.runtime.images().await?;
    if used_percent(tools)? > HIGH_PERCENT {
        let in_use: HashSet<_> = records.iter().map(|r| r.image.as_str()).collect();
        collect(tools, &mut images, &in_use).await?;
    }
    images.sort_by_key(|i| std::cmp::Reverse(i.size));
    let told: Vec<_> = images
        .iter()
        .map(|i| (vec![i.repo_digest(), i.name.clone()], i64::try_from(i.size).unwrap_or(i64::MAX)))
        .collect();
    health.send_if_modified(|health| {
        let changed = health.images != told;
        health.images = told;
        changed
    });
    Ok(())
}

async fn collect(tools: &SharedTools, images: &mut Vec<Image>, in_use: &HashSet<&str>) -> Result<(), Error> {
    let mut kept = Vec::new();
    for image in std::mem::take(images) {
        if in_use.contains(image.name.as_str()) || used_percent(tools)? <= LOW_PERCENT {
            kept.push(image);
            continue;
        }
        tracing::info!(
            image = image.name,
            size = image.size,
            "removing an unused image: the disk is nearly full"
        );
        tools.runtime.remove_image(&image.name).await?;
    }
    *images = kept;
    Ok(())
}

fn used_percent(tools: &SharedTools) -> Result<u64, Error> {
    let root = &tools.runtime.config().root;
    // With a foreign containerd its disk is not ours to watch.
    if !root.exists() {
        return Ok(0);
    }
    let stat = nix::sys::statvfs::statvfs(root).map_err(|errno| Error::io(root)(errno.into()))?;
    let (all, free) = (stat.blocks().max(1), stat.blocks_available());
    Ok(all.saturating_sub(free) * 100 / all)
}
