//! Now and then: counts what runs, tells the node's images, and removes images nobody uses when the disk
//! fills up.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use skep_runtime::Image;
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use crate::{Error, node::Health, pods::SharedTools};

const PERIOD: Duration = Duration::from_secs(30);
/// Images are collected above this use of the disk, down to the second value.
const HIGH_PERCENT: u64 = 85;
const LOW_PERCENT: u64 = 80;
/// An image that was just pulled has no container yet.
const MIN_AGE: Duration = Duration::from_secs(120);

/// Runs until dropped.
pub(crate) async fn run(tools: SharedTools, health: watch::Sender<Health>) {
    let mut ticks = time::interval(PERIOD);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut unused = HashMap::new();
    loop {
        ticks.tick().await;
        if let Err(error) = round(&tools, &health, &mut unused).await {
            tracing::warn!(%error, "housekeeping");
        }
    }
}

async fn round(
    tools: &SharedTools,
    health: &watch::Sender<Health>,
    unused: &mut HashMap<String, Instant>,
) -> Result<(), Error> {
    let records = tools.runtime.containers().await?;
    let running: Vec<_> = records.iter().filter(|r| r.pid().is_some()).collect();
    let pods: HashSet<_> = running.iter().map(|r| r.pod.uid.as_str()).collect();
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    tools.metrics.running_containers.set(count(running.len()));
    tools.metrics.running_pods.set(count(pods.len()));

    let mut images = tools.runtime.images().await?;
    let in_use: HashSet<_> = records.iter().map(|r| r.image.as_str()).collect();
    unused.retain(|name, _| images.iter().any(|i| i.name == *name) && !in_use.contains(name.as_str()));
    for image in images.iter().filter(|i| !in_use.contains(i.name.as_str())) {
        unused.entry(image.name.clone()).or_insert_with(Instant::now);
    }
    if used_percent(tools)? > HIGH_PERCENT {
        collect(tools, &mut images, unused).await?;
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

async fn collect(
    tools: &SharedTools,
    images: &mut Vec<Image>,
    unused: &HashMap<String, Instant>,
) -> Result<(), Error> {
    let mut kept = Vec::new();
    for image in std::mem::take(images) {
        let old = unused.get(&image.name).is_some_and(|since| since.elapsed() >= MIN_AGE);
        if !old || used_percent(tools)? <= LOW_PERCENT {
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
    // As df counts: blocks reserved for root are neither used nor available.
    let (used, free) = (stat.blocks().saturating_sub(stat.blocks_free()), stat.blocks_available());
    Ok(used * 100 / (used + free).max(1))
}
