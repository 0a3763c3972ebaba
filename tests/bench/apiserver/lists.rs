//! Lists of many pods out of the cache, on one core: whole in several forms, and few of them by a selector.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use http::header::ACCEPT_ENCODING;

use crate::Arguments;
use crate::report::Part;
use crate::world::{World, runtime};

/// Name, `Accept`, `Accept-Encoding`, goal in megabytes a second.
const FORMS: [(&str, &str, &str, Option<f64>); 4] = [
    ("JSON", "application/json", "identity", Some(500.0)),
    ("protobuf", "application/vnd.kubernetes.protobuf", "identity", None),
    ("Table", "application/json;as=Table;v=v1;g=meta.k8s.io", "identity", None),
    ("JSON in gzip", "application/json", "gzip", None),
];

/// Selectors that few pods match.
const SELECTORS: [(&str, &str); 2] =
    [("by label", "labelSelector=ring=r7"), ("of a node", "fieldSelector=spec.nodeName=node-0007")];

/// Asks over and over; bytes and lists a second.
#[allow(clippy::cast_precision_loss)]
async fn repeat(
    arguments: &Arguments,
    world: &World,
    path: &str,
    accept: &str,
    coding: &str,
) -> Result<(f64, f64)> {
    let (mut bytes, mut lists) = (0, 0);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs_f64(arguments.seconds) {
        bytes += world.ask(path, accept, &[(ACCEPT_ENCODING, coding)]).await?;
        lists += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok((bytes as f64 / seconds, f64::from(lists) / seconds))
}

pub(crate) fn measure(arguments: &Arguments, part: &mut Part) -> Result<()> {
    let folder = tempfile::tempdir()?;
    // One thread: the answers are made on it.
    runtime(1)?.block_on(async {
        let world = World::embedded(folder.path()).await?;
        world.fill(arguments.pods).await?;
        let pods = arguments.pods;
        for (name, accept, coding, goal) in FORMS {
            let begun = Instant::now();
            world.ask("/api/v1/pods", accept, &[(ACCEPT_ENCODING, coding)]).await?;
            let first = begun.elapsed();
            part.add(&format!("first list of {pods} pods, {name}"), "ms", first.as_secs_f64() * 1e3);
            for _ in 0..arguments.repetitions {
                let path = "/api/v1/pods?resourceVersion=0";
                let (bytes, lists) = repeat(arguments, &world, path, accept, coding).await?;
                part.add(&format!("list of {pods} pods, {name}"), "MB/s", bytes / 1e6).goal = goal;
                part.add(&format!("lists of {pods} pods a second, {name}"), "/s", lists);
            }
        }
        for (name, selector) in SELECTORS {
            let path = format!("/api/v1/pods?resourceVersion=0&{selector}");
            let few = world.get(&path, "application/json").await?;
            ensure!(few > 1000 && few < 2_000_000, "{path}: {few} bytes");
            for _ in 0..arguments.repetitions {
                let (_, lists) = repeat(arguments, &world, &path, "application/json", "identity").await?;
                part.add(&format!("lists a second of few of {pods} pods, {name}"), "/s", lists);
            }
        }
        Ok(())
    })
}
