//! The embedded engine: conformance, and what only it promises.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use skep_storage::embedded::{Embedded, Options};
use skep_storage::{Error, Storage};

use crate::conformance::{self, Factory, commit, get, put, read_at};

struct InFolder {
    path: PathBuf,
}

#[async_trait]
impl Factory for InFolder {
    async fn open(&self) -> Arc<dyn Storage> {
        Embedded::open(&self.path, Options::default()).await.expect("opens")
    }

    async fn restart(&self, store: Arc<dyn Storage>) -> Arc<dyn Storage> {
        drop(store);
        self.open().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_conforms() {
    let folder = tempfile::tempdir().expect("a folder");
    conformance::run(&InFolder { path: folder.path().join("store.redb") }).await;
}

#[tokio::test]
async fn a_second_opener_is_told_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let first = Embedded::open(&path, Options::default()).await.expect("opens");
    let second = Embedded::open(&path, Options::default()).await;
    assert!(matches!(second, Err(Error::InUse(_))), "{:?}", second.err());
    drop(first);
    Embedded::open(&path, Options::default()).await.expect("opens once the first is gone");
}

#[tokio::test]
async fn what_is_not_a_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let text = "not a store, but long enough to look like a page of something ".repeat(200);
    std::fs::write(&path, &text).expect("writes");
    let opened = Embedded::open(&path, Options::default()).await;
    assert!(matches!(opened, Err(Error::Corrupt(_))), "{:?}", opened.err());
    assert_eq!(std::fs::read_to_string(&path).ok(), Some(text));
}

#[tokio::test]
async fn another_format_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    drop(Embedded::open(&path, Options::default()).await.expect("opens"));
    {
        let database = redb::Database::open(&path).expect("opens");
        let write = database.begin_write().expect("begins");
        {
            let table: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
            write.open_table(table).expect("opens").insert("format", 99).expect("inserts");
        }
        write.commit().expect("commits");
    }
    let opened = Embedded::open(&path, Options::default()).await;
    assert!(matches!(opened, Err(Error::Format { found: 99, .. })), "{:?}", opened.err());
}

#[tokio::test]
async fn history_is_bounded_by_count_and_swept_from_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options { history_revisions: 50, ..Options::default() };
    let store = Embedded::open(folder.path().join("store.redb"), options).await.expect("opens");
    let first = commit(&*store, vec![put("/k", "0")]).await.revision;
    for round in 0..200 {
        commit(&*store, vec![put("/k", &round.to_string())]).await;
    }
    let old = read_at(&*store, "/k", first).await;
    assert!(matches!(old, Err(Error::Compacted { .. })), "{old:?}");
    let now = store.current_revision().await.expect("reads");
    assert!(read_at(&*store, "/k", now - 40).await.is_ok());
}

#[tokio::test]
async fn history_is_bounded_by_age() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options { history_age: Duration::from_millis(1500), ..Options::default() };
    let store = Embedded::open(folder.path().join("store.redb"), options).await.expect("opens");
    let first = commit(&*store, vec![put("/k", "0")]).await.revision;
    commit(&*store, vec![put("/k", "1")]).await;
    let deadline = tokio::time::Instant::now() + conformance::PATIENCE;
    while read_at(&*store, "/k", first).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "history ages");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(get(&*store, "/k").await.map(|kv| kv.version), Some(2));
}

#[tokio::test]
async fn a_slow_watch_is_cut_off_and_can_begin_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options { watch_buffer: 4, ..Options::default() };
    let store = Embedded::open(folder.path().join("store.redb"), options).await.expect("opens");
    let mut watch = store.watch("/k", 0).await.expect("watches");
    let mut last = 0;
    for round in 0..10 {
        last = commit(&*store, vec![put("/k", &round.to_string())]).await.revision;
    }
    let mut seen = 0;
    let error = loop {
        match watch.next().await.expect("ends with an error") {
            Ok(skep_storage::WatchMessage::Batch(batch)) => seen = batch.revision,
            Ok(skep_storage::WatchMessage::Progress(_)) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    assert!(watch.next().await.is_none());
    let mut watch = store.watch("/k", seen).await.expect("watches");
    let rest = conformance::batches_until(&mut watch, last).await;
    assert_eq!(rest.first().map(|batch| batch.revision), Some(seen + 1));
}
