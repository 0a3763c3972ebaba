//! Writes a second through the API server's registry, against the same bytes put into the store directly,
//! and for the embedded store against the disk alone.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use skep_storage::{Compare, Etcd, EtcdConfig, Op, Range, Storage, Target, TxnRequest};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Arguments;
use crate::report::Part;
use crate::world::{World, map, maps, options, runtime};

pub(crate) fn measure(arguments: &Arguments, part: &mut Part) -> Result<()> {
    for round in 0..arguments.repetitions {
        let folder = tempfile::tempdir_in(".").or_else(|_| tempfile::tempdir())?;
        let syncs = syncs(folder.path(), arguments.seconds)?;
        part.add("fdatasync of 4 KiB, the disk alone", "/s", syncs);
        runtime(2)?.block_on(async {
            let world = World::embedded(folder.path()).await?;
            pair(arguments, &Arc::new(world), "embedded", round, part).await
        })?;
    }
    let Some(etcd) = Server::start() else {
        eprintln!("no etcd here: writes on etcd are not measured");
        return Ok(());
    };
    for round in 0..arguments.repetitions {
        runtime(2)?.block_on(async {
            let world = World::over(etcd.connect().await?).await?;
            pair(arguments, &Arc::new(world), "etcd", round, part).await
        })?;
    }
    Ok(())
}

/// The store alone and the registry over it, one after the other.
async fn pair(
    arguments: &Arguments,
    world: &Arc<World>,
    store: &str,
    round: usize,
    part: &mut Part,
) -> Result<()> {
    let limit = format!("conditional puts, {store} alone, {} at once", arguments.writers);
    let raw = many(arguments, |writer, index| {
        let storage = world.storage.clone();
        let key = format!("/raw/{round}/{writer}/{index}");
        async move { put(&*storage, key).await }
    });
    part.add(&limit, "/s", raw.await?);
    let ours = many(arguments, |writer, index| {
        let world = world.clone();
        async move {
            let object = map(&format!("r{round}-{writer}-{index}"));
            world.registry().create(&maps(), object, &options()).await?;
            Ok(())
        }
    });
    let figure = part.add(&format!("creates, {store}, {} at once", arguments.writers), "/s", ours.await?);
    figure.of = Some(limit);
    Ok(())
}

/// What the registry asks of a store for a create.
async fn put(storage: &dyn Storage, key: String) -> Result<()> {
    let request = TxnRequest {
        compare: vec![Compare { key: key.clone(), target: Target::ModRevision(0) }],
        failure: vec![Op::Range(Range { keys_only: true, ..Range::key(key.clone()) })],
        success: vec![Op::Put { key, value: map("raw").to_string().into(), lease: 0 }],
    };
    storage.txn(request).await?;
    Ok(())
}

/// Runs writers side by side; returns writes a second.
#[allow(clippy::cast_precision_loss)]
async fn many<F, W>(arguments: &Arguments, write: W) -> Result<f64>
where
    F: Future<Output = Result<()>> + Send + 'static,
    W: Fn(usize, usize) -> F,
{
    let until = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let begun = Instant::now();
    let mut running = JoinSet::new();
    let mut next = vec![0; arguments.writers];
    let mut done = 0;
    let mut start = |running: &mut JoinSet<(usize, Result<()>)>, writer: usize| {
        let work = write(writer, next[writer]);
        next[writer] += 1;
        running.spawn(async move { (writer, work.await) });
    };
    for writer in 0..arguments.writers {
        start(&mut running, writer);
    }
    while let Some(ended) = running.join_next().await {
        let (writer, outcome) = ended?;
        outcome?;
        done += 1;
        if Instant::now() < until {
            start(&mut running, writer);
        }
    }
    Ok(f64::from(done) / begun.elapsed().as_secs_f64())
}

/// How often a second a page can be made durable.
fn syncs(folder: &std::path::Path, seconds: f64) -> Result<f64> {
    let mut file = File::create(folder.join("sync"))?;
    file.write_all(&vec![0; 1 << 20])?;
    file.sync_all()?;
    let (begun, mut count) = (std::time::Instant::now(), 0u32);
    while begun.elapsed().as_secs_f64() < seconds {
        file.write_all_at(&[count.to_le_bytes()[0]; 4096], u64::from(count % 256) * 4096)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

/// An etcd on loopback.
struct Server {
    child: Child,
    port: u16,
    _data: tempfile::TempDir,
}

impl Server {
    fn start() -> Option<Self> {
        let data = tempfile::tempdir_in(".").or_else(|_| tempfile::tempdir()).ok()?;
        let port = || Some(std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port());
        let (port, peer) = (port()?, port()?);
        let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
        let child = Command::new("etcd")
            .args(["--name", "bench", "--log-level", "error"])
            .arg("--data-dir")
            .arg(data.path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("bench={peer}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Self { child, port, _data: data })
    }

    async fn connect(&self) -> Result<Arc<Etcd>> {
        let config = EtcdConfig {
            endpoints: vec![format!("http://127.0.0.1:{}", self.port)],
            ..EtcdConfig::default()
        };
        for _ in 0..100 {
            if let Ok(etcd) = Etcd::connect(config.clone()).await {
                return Ok(etcd);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Etcd::connect(config).await.context("etcd does not come up")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("etcd can't be ended: {error}");
        }
    }
}
