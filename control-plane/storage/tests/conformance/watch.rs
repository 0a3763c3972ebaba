//! Watches: every change once, in order, from now and from the past.

use std::sync::Arc;

use futures::StreamExt;
use skep_storage::{Batch, Change, Storage, WatchMessage};

use super::{Factory, PATIENCE, batches_until, commit, delete, next_batch, put};

fn describe(batch: &Batch) -> Vec<String> {
    let value = |kv: &skep_storage::KeyValue| String::from_utf8_lossy(&kv.value).into_owned();
    let mut out: Vec<String> = batch
        .changes
        .iter()
        .map(|change| match change {
            Change::Put { kv, previous } => {
                assert_eq!(kv.mod_revision, batch.revision);
                format!("{}:{}<-{}", kv.key, value(kv), previous.as_ref().map(value).unwrap_or_default())
            }
            Change::Delete { key, previous } => {
                format!("{key}:gone<-{}", previous.as_ref().map(value).unwrap_or_default())
            }
        })
        .collect();
    out.sort();
    out
}

pub(super) async fn live_changes_come_once_and_in_order(store: &dyn Storage) {
    let mut watch = store.watch("/t/live/", 0).await.expect("watches");
    let one = commit(store, vec![put("/t/live/a", "1"), put("/t/other", "x"), put("/t/live/b", "1")]).await;
    commit(store, vec![put("/t/lively", "x")]).await;
    let two = commit(store, vec![put("/t/live/a", "2"), delete("/t/live/b")]).await;
    let batch = next_batch(&mut watch).await;
    assert_eq!(batch.revision, one.revision);
    assert_eq!(describe(&batch), ["/t/live/a:1<-", "/t/live/b:1<-"]);
    let batch = next_batch(&mut watch).await;
    assert_eq!(batch.revision, two.revision);
    assert_eq!(describe(&batch), ["/t/live/a:2<-1", "/t/live/b:gone<-1"]);
}

pub(super) async fn the_past_replays_as_it_happened(store: &dyn Storage) {
    let start = commit(store, vec![put("/t/past/a", "0")]).await.revision;
    let mut live = store.watch("/t/past/", start).await.expect("watches");
    let mut last = start;
    for round in 1..40 {
        let mut ops = vec![put("/t/past/a", &round.to_string())];
        ops.push(if round % 3 == 0 { delete("/t/past/b") } else { put("/t/past/b", &round.to_string()) });
        last = commit(store, ops).await.revision;
    }
    let seen = batches_until(&mut live, last).await;
    assert_eq!(seen.len(), 39);
    let mut replays = Vec::new();
    for from in [start, start + 1, start + 17] {
        let mut replay = store.watch("/t/past/", from).await.expect("watches");
        let replayed = batches_until(&mut replay, last).await;
        let expected: Vec<&Batch> = seen.iter().filter(|batch| batch.revision > from).collect();
        assert_eq!(replayed.len(), expected.len());
        for (left, right) in replayed.iter().zip(expected) {
            assert_eq!(left.revision, right.revision);
            assert_eq!(describe(left), describe(right));
        }
        replays.push(replay);
    }
    // And they go on with what comes.
    let next = commit(store, vec![put("/t/past/z", "z")]).await.revision;
    for watch in replays.iter_mut().chain([&mut live]) {
        assert_eq!(next_batch(watch).await.revision, next);
    }
}

/// Watches begun at any moment while writers are busy see the same.
pub(super) async fn two_watches_agree(store: &Arc<dyn Storage>) {
    let start = store.current_revision().await.expect("reads");
    let mut first = store.watch("/t/busy/", start).await.expect("watches");
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let store = Arc::clone(store);
        writers.spawn(async move {
            let mut last = 0;
            for round in 0..50 {
                let key = format!("/t/busy/{}", (writer + round) % 7);
                last = commit(&*store, vec![put(&key, &format!("{writer}.{round}"))]).await.revision;
            }
            last
        });
    }
    let mut late = Vec::new();
    for _ in 0..5 {
        tokio::task::yield_now().await;
        late.push(store.watch("/t/busy/", start).await.expect("watches"));
    }
    let last = writers.join_all().await.into_iter().max().expect("writers");
    let seen = batches_until(&mut first, last).await;
    assert_eq!(seen.len(), 200);
    assert!(seen.windows(2).all(|pair| pair[0].revision < pair[1].revision));
    for mut watch in late {
        assert_eq!(batches_until(&mut watch, last).await, seen);
    }
}

pub(super) async fn a_future_start_waits(store: &dyn Storage) {
    let now = store.current_revision().await.expect("reads");
    let mut watch = store.watch("/t/future/", now + 1).await.expect("watches");
    commit(store, vec![put("/t/future/a", "too early")]).await;
    let second = commit(store, vec![put("/t/future/a", "in time")]).await.revision;
    assert_eq!(next_batch(&mut watch).await.revision, second);
}

pub(super) async fn progress_is_told_on_request(store: &dyn Storage) {
    let mut watch = store.watch("/t/quiet/", 0).await.expect("watches");
    let revision = commit(store, vec![put("/t/loud", "x")]).await.revision;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        assert!(tokio::time::Instant::now() < deadline, "progress comes in time");
        store.request_progress().await.expect("asks");
        let wait = tokio::time::timeout(std::time::Duration::from_millis(300), watch.next()).await;
        match wait {
            Ok(Some(Ok(WatchMessage::Progress(at)))) if at >= revision => return,
            Ok(Some(Ok(WatchMessage::Progress(_)))) | Err(_) => {}
            other => panic!("nothing changed there: {other:?}"),
        }
    }
}

pub(super) async fn nothing_is_missed_across_a_restart(
    factory: &dyn Factory,
    store: Arc<dyn Storage>,
) -> Arc<dyn Storage> {
    let start = commit(&*store, vec![put("/t/restart/a", "1")]).await.revision;
    let two = commit(&*store, vec![put("/t/restart/a", "2")]).await.revision;
    let store = factory.restart(store).await;
    let three = commit(&*store, vec![delete("/t/restart/a")]).await.revision;
    assert!(three > two, "revisions go on after a restart");
    let mut watch = store.watch("/t/restart/", start).await.expect("watches");
    let seen = batches_until(&mut watch, three).await;
    assert_eq!(seen.iter().map(|batch| batch.revision).collect::<Vec<_>>(), [two, three]);
    assert_eq!(describe(&seen[0]), ["/t/restart/a:2<-1"]);
    assert_eq!(describe(&seen[1]), ["/t/restart/a:gone<-2"]);
    store
}
