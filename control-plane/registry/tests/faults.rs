//! Faults of the store: etcd restarted, cut off, its leader lost, history compacted under a watch; the
//! embedded store closed and opened. Whoever watches sees each change once and in order.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use rand::Rng;
use serde_json::json;
use skep_api::error::{ApiError, Reason};
use skep_registry::cache::{EventType, WatchItem, WatchOptions};
use skep_registry::{DeleteOptions, Registry};
use skep_storage::embedded::{self, Embedded};
use skep_storage::{Change, Storage, WatchMessage};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::etcd_process::{Cluster, Cutter, config, connect};
use crate::past::Happened;
use crate::support::{core, options, start};

const LAST: &str = "last";

/// What the store itself says has happened, up to the object that ends a test.
async fn truth(storage: &dyn Storage, after: u64) -> Vec<Happened> {
    let prefix = "/registry/configmaps/";
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let (mut happened, mut at, mut watch) = (Vec::new(), after, None);
    loop {
        assert!(tokio::time::Instant::now() < deadline, "the store does not tell its history");
        let open = match &mut watch {
            Some(open) => open,
            None => match storage.watch(prefix, at).await {
                Ok(open) => watch.insert(open),
                // It may still be choosing a leader.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let message = tokio::time::timeout(Duration::from_secs(30), open.next()).await.expect("in time");
        let batch = match message {
            Some(Ok(WatchMessage::Batch(batch))) => batch,
            Some(Ok(WatchMessage::Progress(_))) => continue,
            Some(Err(_)) | None => {
                watch = None;
                continue;
            }
        };
        at = batch.revision;
        for change in &batch.changes {
            let (key, kind) = match change {
                Change::Put { kv, previous: None } => (&kv.key, EventType::Added),
                Change::Put { kv, previous: Some(_) } => (&kv.key, EventType::Modified),
                Change::Delete { key, .. } => (key, EventType::Deleted),
            };
            let name = key.rsplit('/').next().expect("a name").to_owned();
            happened.push((batch.revision, name.clone(), kind));
            if name == LAST {
                return happened;
            }
        }
    }
}

/// A client that watches from `after`, comes again whenever its watch ends, and notes what it sees.
async fn follow(registry: Arc<Registry>, after: u64) -> Vec<Happened> {
    let mut seen: Vec<Happened> = Vec::new();
    let mut at = after;
    loop {
        let options = WatchOptions { resource_version: Some(at), bookmarks: true, ..WatchOptions::default() };
        let mut watch = match registry.watch(&core("configmaps", "n", ""), &options).await {
            Ok(watch) => watch,
            Err(error) => {
                assert_ne!(error.reason, Reason::Expired, "nothing was compacted: {error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        while let Some(item) = watch.next().await {
            match item {
                WatchItem::Event(event) => {
                    at = event.revision();
                    seen.push((at, event.object.name.clone(), event.kind));
                    if event.object.name == LAST {
                        return seen;
                    }
                }
                WatchItem::Bookmark { revision, .. } => at = at.max(revision),
                WatchItem::Failed(error) => panic!("{error}"),
            }
        }
    }
}

/// One random write; what a client may be told in bad weather is fine.
async fn write(registry: &Registry) -> Result<(), ApiError> {
    let (name, delete, value) = {
        let mut random = rand::rng();
        (format!("c{}", random.random_range(0..6)), random.random_bool(0.3), random.random::<u32>())
    };
    let all = core("configmaps", "n", "");
    let target = all.named("n", &name);
    let object = json!({"metadata": {"name": name}, "data": {"v": value.to_string()}});
    let outcome = if delete {
        registry.delete(&target, &DeleteOptions::default(), &options()).await.map(drop)
    } else {
        match registry.update(&target, object.clone(), &options()).await {
            Err(error) if error.is_not_found() => registry.create(&all, object, &options()).await.map(drop),
            other => other.map(drop),
        }
    };
    match outcome {
        Err(error) if error.is_not_found() || error.is_conflict() || error.is_already_exists() => Ok(()),
        other => other,
    }
}

/// Writes until cancelled; returns how many writes were answered well.
async fn writer(registry: Arc<Registry>, cancel: CancellationToken) -> usize {
    let mut done = 0;
    while !cancel.is_cancelled() {
        match write(&registry).await {
            Ok(()) => done += 1,
            Err(error) => {
                assert!(matches!(error.code, 500 | 503 | 504), "{error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    done
}

/// Writes the object that ends a test.
async fn finish(registry: &Registry) {
    for _ in 0..500 {
        let object = json!({"metadata": {"name": LAST}});
        match registry.create(&core("configmaps", "n", ""), object, &options()).await {
            Ok(_) => return,
            Err(error) if error.is_already_exists() => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    panic!("the store does not come back");
}

/// Registries over storages, writers and watchers at each, while `weather` happens.
async fn survive(storages: Vec<Arc<dyn Storage>>, witness: &dyn Storage, weather: impl Future<Output = ()>) {
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let mut registries = Vec::new();
    for storage in storages {
        registries.push(start(storage, &tasks, cancel.clone()).await);
    }
    let begin = witness.current_revision().await.expect("a revision");
    let (mut watchers, mut writers, stop) = (JoinSet::new(), JoinSet::new(), CancellationToken::new());
    for registry in &registries {
        watchers.spawn(follow(registry.clone(), begin));
        watchers.spawn(follow(registry.clone(), begin));
        writers.spawn(writer(registry.clone(), stop.clone()));
    }
    weather.await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    stop.cancel();
    let written: usize = writers.join_all().await.into_iter().sum();
    finish(&registries[0]).await;
    let expected = truth(witness, begin).await;
    assert!(expected.len() > 20 && written > 20, "too little happened: {} of {written}", expected.len());
    while let Some(seen) =
        tokio::time::timeout(Duration::from_secs(60), watchers.join_next()).await.expect("watchers end")
    {
        let seen = seen.expect("no panic");
        let differs = seen.iter().zip(&expected).position(|(seen, expected)| seen != expected);
        assert_eq!(differs, None, "{:?}", differs.map(|at| (&seen[at], &expected[at])));
        assert_eq!(seen.len(), expected.len());
    }
    // Caches converge: every server lists the same.
    let mut lists = Vec::new();
    for registry in &registries {
        let list =
            registry.list_all(&core("configmaps", "n", ""), &Default::default()).await.expect("a list");
        lists.push(list.iter().map(|object| (object.name.clone(), object.revision)).collect::<Vec<_>>());
    }
    assert!(lists.windows(2).all(|pair| pair[0] == pair[1]), "{lists:?}");
    cancel.cancel();
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_lose_and_double_nothing() {
    let Some(cluster) = Cluster::start(1) else { return };
    let witness = connect(cluster.config("")).await;
    let cutter = Cutter::before(cluster.ports()[0]).await;
    let cut_off = connect(config(&[cutter.port()], "")).await;
    let direct = connect(cluster.config("")).await;
    let storages: Vec<Arc<dyn Storage>> = vec![cut_off, direct];
    survive(storages, &*witness, async {
        for _ in 0..5 {
            pause(150).await;
            cutter.cut();
        }
        cutter.close(true);
        pause(700).await;
        cutter.close(false);
        pause(500).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_etcd_loses_and_doubles_nothing() {
    let Some(cluster) = Cluster::start(1) else { return };
    let witness = connect(cluster.config("")).await;
    let storage = connect(cluster.config("")).await;
    survive(vec![storage], &*witness, async {
        for _ in 0..2 {
            pause(400).await;
            cluster.restart();
            pause(1500).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_loses_and_doubles_nothing() {
    let Some(cluster) = Cluster::start(3) else { return };
    let witness = connect(cluster.config("")).await;
    let (first, second) = (connect(cluster.config("")).await, connect(cluster.config("")).await);
    let storages: Vec<Arc<dyn Storage>> = vec![first, second];
    survive(storages, &*witness, async {
        // One after the other: one of them leads.
        for member in 0..3 {
            pause(300).await;
            cluster.kill(member);
            pause(1500).await;
            cluster.revive(member);
            pause(1000).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_under_a_watch_is_not_felt() {
    let Some(cluster) = Cluster::start(1) else { return };
    let witness = connect(cluster.config("")).await;
    // Keeps its own history of what is compacted.
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let registry = start(connect(cluster.config("")).await, &tasks, cancel.clone()).await;
    let begin = witness.current_revision().await.expect("a revision");
    let watcher = tokio::spawn(follow(registry.clone(), begin));
    pause(100).await;
    let mut written = Vec::new();
    for index in 0..40 {
        let object = json!({"metadata": {"name": format!("c{index}")}});
        let made = registry.create(&core("configmaps", "n", ""), object, &options()).await.expect("created");
        let revision =
            made.object["metadata"]["resourceVersion"].as_str().expect("one").parse().expect("one");
        written.push((revision, format!("c{index}"), EventType::Added));
        if index % 10 == 9 {
            let now = witness.current_revision().await.expect("a revision");
            witness.compact(now).await.expect("compacted");
        }
    }
    finish(&registry).await;
    let seen =
        tokio::time::timeout(Duration::from_secs(10), watcher).await.expect("in time").expect("no panic");
    assert_eq!(&seen[..40], &written[..]);
    cancel.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_store_that_is_opened_again_loses_and_doubles_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("store");
    let mut at = None;
    let mut seen: Vec<Happened> = Vec::new();
    let mut begin = 0;
    for round in 0..4 {
        let storage = Embedded::open(&path, embedded::Options::default()).await.expect("a store");
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let registry = start(storage.clone(), &tasks, cancel.clone()).await;
        if round == 0 {
            begin = storage.current_revision().await.expect("a revision");
        }
        let from = *at.get_or_insert(begin);
        let options = WatchOptions { resource_version: Some(from), ..WatchOptions::default() };
        let mut watch = registry.watch(&core("configmaps", "n", ""), &options).await.expect("a watch");
        for _ in 0..30 {
            write(&registry).await.expect("written");
        }
        // The client stops somewhere in the middle of what there is.
        for _ in 0..rand::rng().random_range(1..15) {
            let item = tokio::time::timeout(Duration::from_secs(5), watch.next()).await.expect("in time");
            if let Some(WatchItem::Event(event)) = item {
                seen.push((event.revision(), event.object.name.clone(), event.kind));
                at = Some(event.revision());
            }
        }
        drop(watch);
        cancel.cancel();
        tasks.close();
        tasks.wait().await;
        drop(registry);
        assert_eq!(Arc::strong_count(&storage), 1, "the store is let go");
    }
    let storage = Embedded::open(&path, embedded::Options::default()).await.expect("a store");
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let registry = start(storage.clone(), &tasks, cancel.clone()).await;
    finish(&registry).await;
    seen.extend(follow(registry, at.expect("one")).await);
    assert_eq!(seen, truth(&*storage, begin).await);
    cancel.cancel();
}
