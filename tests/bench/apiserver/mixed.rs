//! Reads of one object over HTTP while others write, list and watch.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Arguments;
use crate::report::Part;
use crate::world::{World, map, maps, options, runtime};
use skep_tests::histogram::Histogram;

/// Connections that read one object after the other.
const READERS: usize = 16;

/// Pods beside the reads.
const PODS: usize = 2_000;

/// Reads as fast as answers come, on one connection.
async fn read(address: std::net::SocketAddr, until: Instant) -> Result<Histogram> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut histogram = Histogram::default();
    let mut index = 0;
    while Instant::now() < until {
        index = (index + 7919) % PODS;
        let path = format!("/api/v1/namespaces/default/pods/pod-{index:05}");
        let request = Request::get(path).header("host", "bench").body(Empty::<Bytes>::new())?;
        let begun = Instant::now();
        sender.ready().await?;
        let answer = sender.send_request(request).await?;
        ensure!(answer.status().is_success(), "{}", answer.status());
        answer.into_body().collect().await?;
        histogram.record(u64::try_from(begun.elapsed().as_nanos())?);
    }
    connection.abort();
    Ok(histogram)
}

#[allow(clippy::cast_precision_loss)]
pub(crate) fn measure(arguments: &Arguments, part: &mut Part) -> Result<()> {
    for loaded in [false, true] {
        for _ in 0..arguments.repetitions {
            let folder = tempfile::tempdir()?;
            let histogram = runtime(2)?.block_on(once(arguments, loaded, folder.path()))?;
            let under = if loaded { "under mixed load" } else { "alone" };
            let times = histogram.percentiles();
            part.add(
                &format!("GETs {under}, {READERS} connections"),
                "/s",
                histogram.count() as f64 / arguments.seconds,
            );
            part.add(&format!("GET {under}, p50"), "ms", times.p50_us / 1e3);
            part.add(&format!("GET {under}, p99"), "ms", times.p99_us / 1e3).goal = Some(1000.0);
        }
    }
    Ok(())
}

async fn once(arguments: &Arguments, loaded: bool, folder: &std::path::Path) -> Result<Histogram> {
    let world = Arc::new(World::embedded(folder).await?);
    world.fill(PODS).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let serving = tokio::spawn(world.api.clone().serve_plain(listener, stop.clone()));
    let mut others = JoinSet::new();
    if loaded {
        // Writers at a steady rate, lists of everything, and watches that see the writes.
        for writer in 0..4 {
            let world = world.clone();
            others.spawn(async move {
                for index in 0.. {
                    let object = map(&format!("w{writer}-{index}"));
                    world.registry().create(&maps(), object, &options()).await?;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                anyhow::Ok(())
            });
        }
        let lister = world.clone();
        others.spawn(async move {
            loop {
                lister.get("/api/v1/pods", "application/json").await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        for _ in 0..100 {
            let world = world.clone();
            others.spawn(async move {
                world.get("/api/v1/configmaps?watch=1&resourceVersion=0", "application/json").await?;
                anyhow::Ok(())
            });
        }
    }
    let until = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        readers.spawn(read(address, until));
    }
    let mut histogram = Histogram::default();
    while let Some(reader) = readers.join_next().await {
        histogram.merge(&reader??);
    }
    while let Some(ended) = others.try_join_next() {
        ended.context("a client of the load panicked")?.context("a client of the load failed")?;
    }
    others.abort_all();
    stop.cancel();
    serving.await??;
    Ok(histogram)
}
