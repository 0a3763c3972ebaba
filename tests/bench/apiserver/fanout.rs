//! Events to many watchers: how many a second, how late, and what each costs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::ServiceExt;

use crate::Arguments;
use crate::report::Part;
use crate::world::{World, admin, map, maps, options, processor_time, runtime};
use skep_tests::histogram::Histogram;

/// Reads one watch to the last event; notes how late each came.
async fn watch(
    world: Arc<World>,
    accept: &'static str,
    events: usize,
    begun: Instant,
    ready: Arc<Barrier>,
) -> Result<(Histogram, usize)> {
    let path = "/api/v1/configmaps?watch=1&resourceVersion=0";
    let mut request = Request::get(path).header("accept", accept).body(Body::empty())?;
    request.extensions_mut().insert(admin());
    let answer = world.router.clone().oneshot(request).await.context("infallible")?;
    ensure!(answer.status().is_success(), "{}", answer.status());
    let mut body = answer.into_body();
    ready.wait().await;
    let (mut histogram, mut seen, mut bytes) = (Histogram::default(), 0, 0);
    while seen < events {
        let frame = body.frame().await.context("the watch ended")??;
        let data = frame.into_data().unwrap_or_default();
        bytes += data.len();
        let now = begun.elapsed();
        // Each event says when it was sent; several may come in one frame.
        let mark = b"sent-at-";
        for at in data.windows(mark.len()).enumerate().filter(|(_, part)| part == mark).map(|(at, _)| at) {
            let digits = &data[at + mark.len()..at + mark.len() + 12];
            let sent = std::str::from_utf8(digits)?.parse::<u64>()?;
            let late = now.saturating_sub(Duration::from_micros(sent));
            histogram.record(u64::try_from(late.as_nanos())?);
            seen += 1;
        }
    }
    Ok((histogram, bytes))
}

#[allow(clippy::cast_precision_loss)]
pub(crate) fn measure(arguments: &Arguments, part: &mut Part) -> Result<()> {
    for (form, accept) in [
        ("JSON", "application/json"),
        ("protobuf", "application/vnd.kubernetes.protobuf;stream=watch,application/vnd.kubernetes.protobuf"),
    ] {
        for _ in 0..arguments.repetitions {
            let folder = tempfile::tempdir()?;
            runtime(2)?.block_on(once(arguments, form, accept, folder.path(), part))?;
        }
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
async fn once(
    arguments: &Arguments,
    form: &str,
    accept: &'static str,
    folder: &std::path::Path,
    part: &mut Part,
) -> Result<()> {
    let world = Arc::new(World::embedded(folder).await?);
    let begun = Instant::now();
    let ready = Arc::new(Barrier::new(arguments.watchers + 1));
    let mut watchers = JoinSet::new();
    for _ in 0..arguments.watchers {
        watchers.spawn(watch(world.clone(), accept, arguments.events, begun, ready.clone()));
    }
    ready.wait().await;
    let (start, processor) = (Instant::now(), processor_time());
    // Sixteen at a time: the store commits them together.
    for from in (0..arguments.events).step_by(16) {
        let mut writes = JoinSet::new();
        for index in from..arguments.events.min(from + 16) {
            let world = world.clone();
            writes.spawn(async move {
                let mut object = map(&format!("event-{index:05}"));
                object["metadata"]["annotations"] =
                    json!({"bench": format!("sent-at-{:012}", begun.elapsed().as_micros())});
                world.registry().create(&maps(), object, &options()).await
            });
        }
        for written in writes.join_all().await {
            written?;
        }
    }
    let mut histogram = Histogram::default();
    while let Some(seen) = watchers.join_next().await {
        histogram.merge(&seen??.0);
    }
    let (seconds, used) = (start.elapsed().as_secs_f64(), processor_time() - processor);
    let delivered = (arguments.events * arguments.watchers) as f64;
    let name = |what: &str| format!("{what}, {} watchers, {form}", arguments.watchers);
    part.add(&name("events delivered"), "/s", delivered / seconds);
    let late = histogram.percentiles();
    part.add(&name("event late by, p50 (the write included)"), "ms", late.p50_us / 1e3);
    part.add(&name("event late by, p99 (the write included)"), "ms", late.p99_us / 1e3);
    part.add(&name("processor time per event and watcher"), "µs", used.as_secs_f64() * 1e6 / delivered);
    Ok(())
}
