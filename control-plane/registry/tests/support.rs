//! A registry over an embedded store whose watches can be made to break.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use serde_json::Value;
use skep_api::resource::GroupVersionResource;
use skep_registry::{Options, Registry, Target, WriteOptions};
use skep_storage::embedded::{self, Embedded};
use skep_storage::{
    Error, LeaseId, Range, RangeResult, Result, Revision, Storage, TxnRequest, TxnResult, WatchStream,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The embedded store; every watch breaks after so many messages.
pub(crate) struct Breaking {
    inner: Arc<Embedded>,
    after: usize,
    pub(crate) broken: AtomicUsize,
}

#[async_trait]
impl Storage for Breaking {
    async fn range(&self, range: Range) -> Result<RangeResult> {
        self.inner.range(range).await
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResult> {
        self.inner.txn(request).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        self.broken.fetch_add(1, Ordering::Relaxed);
        let stream = self.inner.watch(prefix, after).await?;
        let end = futures::stream::once(async { Err(Error::Unavailable("the test broke it".to_owned())) });
        Ok(stream.take(self.after).chain(end).boxed())
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.inner.current_revision().await
    }

    async fn request_progress(&self) -> Result<()> {
        self.inner.request_progress().await
    }

    fn exact_progress(&self) -> bool {
        self.inner.exact_progress()
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.inner.compact(revision).await
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId> {
        self.inner.lease_grant(ttl).await
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<()> {
        self.inner.lease_keep_alive(lease).await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<()> {
        self.inner.lease_revoke(lease).await
    }
}

pub(crate) struct World {
    pub(crate) registry: Arc<Registry>,
    pub(crate) storage: Arc<Breaking>,
    pub(crate) cancel: CancellationToken,
    pub(crate) tasks: TaskTracker,
    _dir: tempfile::TempDir,
}

impl World {
    /// A registry whose storage watch breaks after so many messages.
    pub(crate) async fn new(break_after: usize) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let inner =
            Embedded::open(dir.path().join("store"), embedded::Options::default()).await.expect("a store");
        let storage = Arc::new(Breaking { inner, after: break_after, broken: AtomicUsize::new(0) });
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let registry = start(storage.clone(), &tasks, cancel.clone()).await;
        Self { registry, storage, cancel, tasks, _dir: dir }
    }

    /// A second registry over the same store.
    pub(crate) async fn another(&self) -> Arc<Registry> {
        start(self.storage.clone(), &self.tasks, self.cancel.clone()).await
    }

    pub(crate) async fn create(&self, target: &Target, object: Value) -> Value {
        let written = self.registry.create(target, object, &options()).await;
        written.expect("created").object
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// A registry over a store.
pub(crate) async fn start(
    storage: Arc<dyn Storage>,
    tasks: &TaskTracker,
    cancel: CancellationToken,
) -> Arc<Registry> {
    let options = Options {
        service_ranges: vec!["10.96.0.0/28".parse().expect("a range")],
        node_ports: 30000..=30007,
        ..Options::default()
    };
    Registry::start(storage, options, tasks, cancel).await.expect("a registry")
}

pub(crate) fn options() -> WriteOptions {
    WriteOptions { field_manager: "test".to_owned(), ..WriteOptions::default() }
}

/// A collection or an object of the core group.
pub(crate) fn core(resource: &str, namespace: &str, name: &str) -> Target {
    Target::new(GroupVersionResource::new("", "v1", resource), namespace, name)
}
