//! What an object costs in memory: the server's growth by the pods it caches.

use anyhow::Result;

use crate::Arguments;
use crate::report::Report;
use crate::world::{World, pod, runtime};

fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() * 1024.0
}

/// Runs first: afterwards the allocator holds memory that is nobody's.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn measure(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    runtime(2)?.block_on(async {
        let world = World::embedded(folder.path()).await?;
        let before = resident();
        world.fill(arguments.pods).await?;
        // What filling left behind.
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let parsed = (resident() - before) / arguments.pods as f64;
        world.get("/api/v1/pods", "application/json").await?;
        let encoded = (resident() - before) / arguments.pods as f64;
        report.add("a pod on the wire, JSON", "bytes", pod(0).to_string().len() as f64);
        report.add("a pod in memory", "bytes", parsed);
        report.add("a pod in memory, listed once", "bytes", encoded);
        Ok(())
    })
}
