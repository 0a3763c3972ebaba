//! What the server costs in memory: at rest, and its growth by the pods it caches.

use anyhow::Result;

use crate::Arguments;
use crate::report::Part;
use crate::world::{World, pod, runtime};

fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() * 1024.0
}

#[allow(clippy::cast_precision_loss)]
pub(crate) fn measure(arguments: &Arguments, part: &mut Part) -> Result<()> {
    let folder = tempfile::tempdir()?;
    runtime(2)?.block_on(async {
        let world = World::embedded(folder.path()).await?;
        world.get("/apis", "application/json").await?;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let before = resident();
        part.add("server at rest", "MiB", before / f64::from(1 << 20)).goal = Some(80.0);
        world.fill(arguments.pods).await?;
        // What filling left behind.
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let parsed = (resident() - before) / arguments.pods as f64;
        world.get("/api/v1/pods", "application/json").await?;
        let encoded = (resident() - before) / arguments.pods as f64;
        part.add("a pod on the wire, JSON", "bytes", pod(0).to_string().len() as f64);
        part.add("a pod in memory", "bytes", parsed);
        part.add("a pod in memory, listed once", "bytes", encoded);
        Ok(())
    })
}
