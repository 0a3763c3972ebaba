//! Lists of many pods out of the cache, in three forms, on one core.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Arguments;
use crate::report::Report;
use crate::world::{World, runtime};

const FORMS: [(&str, &str, Option<f64>); 3] = [
    ("JSON", "application/json", Some(500.0)),
    ("protobuf", "application/vnd.kubernetes.protobuf", None),
    ("Table", "application/json;as=Table;v=v1;g=meta.k8s.io", None),
];

#[allow(clippy::cast_precision_loss)]
pub(crate) fn measure(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    // One thread: the answers are made on it.
    runtime(1)?.block_on(async {
        let world = World::embedded(folder.path()).await?;
        world.fill(arguments.pods).await?;
        for (name, accept, goal) in FORMS {
            let begun = Instant::now();
            world.get("/api/v1/pods", accept).await?;
            let first = begun.elapsed();
            let what = format!("first list of {} pods, {name}", arguments.pods);
            report.add(&what, "ms", first.as_secs_f64() * 1e3);
            for _ in 0..arguments.repetitions {
                let (mut bytes, mut lists) = (0, 0);
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_secs_f64(arguments.seconds) {
                    bytes += world.get("/api/v1/pods?resourceVersion=0", accept).await?;
                    lists += 1;
                }
                let seconds = begun.elapsed().as_secs_f64();
                let what = format!("list of {} pods, {name}", arguments.pods);
                report.add(&what, "MB/s", bytes as f64 / seconds / 1e6).goal = goal;
                report.add(
                    &format!("lists of {} pods a second, {name}", arguments.pods),
                    "/s",
                    f64::from(lists) / seconds,
                );
            }
        }
        Ok(())
    })
}
