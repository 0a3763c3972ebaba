//! The embedded engine: an MVCC store in one redb file.
//!
//! Tasks: one writer thread (see `writer`) owns every change, the watches and the leases; commands
//! reach it over a bounded channel. Reads take a redb snapshot on the blocking pool and never wait for
//! the writer. The file is locked while a process has it open. Dropping the store stops the writer and
//! waits for it, so the file can be opened again at once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use redb::Database;
use tokio::sync::{mpsc, oneshot};

use crate::{
    Error, LeaseId, Op, Range, RangeResult, Result, Revision, Storage, TxnRequest, TxnResult, WatchStream,
};
use writer::{Command, Reply, Writer};

pub(crate) use apply::check;

mod apply;
mod lease;
mod read;
mod record;
mod tables;
mod watch;
mod writer;

/// Commands that may wait for the writer before callers do.
const QUEUE: usize = 4096;

/// How the embedded store behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// History older than this is forgotten.
    pub history_age: Duration,
    /// No more revisions of history than about this are kept.
    pub history_revisions: u64,
    /// Batches that may wait for one slow watch before it is cut off.
    pub watch_buffer: usize,
    /// The most bytes one transaction may write.
    pub max_request_bytes: usize,
    /// Memory for pages of the file.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history_age: Duration::from_secs(300),
            history_revisions: 200_000,
            watch_buffer: 4096,
            max_request_bytes: 3 << 19,
            cache_bytes: 24 << 20,
        }
    }
}

/// The embedded store.
pub struct Embedded {
    database: Option<Arc<Database>>,
    commands: Option<mpsc::Sender<Command>>,
    published: Arc<AtomicU64>,
    max_request_bytes: usize,
    writer: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Opens the store at `path`, making it when it is new. Errors: [`Error::InUse`],
    /// [`Error::Format`], [`Error::Corrupt`], [`Error::Unavailable`].
    pub async fn open(path: impl AsRef<Path>, options: Options) -> Result<Arc<Self>> {
        let path = path.as_ref().to_owned();
        // Opening checks, and after a crash repairs, the file: not for an async thread.
        blocking(move || Self::open_now(&path, options)).await.map(Arc::new)
    }

    fn open_now(path: &Path, options: Options) -> Result<Self> {
        let database = Arc::new(tables::open(path, options.cache_bytes)?);
        let (commands, queue) = mpsc::channel(QUEUE);
        let published = Arc::new(AtomicU64::new(0));
        let max_request_bytes = options.max_request_bytes;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|e| Error::Unavailable(format!("can't start the writer: {e}")))?;
        let writer = {
            // Time belongs to the writer's runtime, so its clock is read inside it.
            let _inside = runtime.enter();
            Writer::new(Arc::clone(&database), queue, options, Arc::clone(&published))?
        };
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || runtime.block_on(writer.run()))
            .map_err(|e| Error::Unavailable(format!("can't start the writer: {e}")))?;
        Ok(Self {
            database: Some(database),
            commands: Some(commands),
            published,
            max_request_bytes,
            writer: Some(writer),
        })
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let commands = self.commands.as_ref().ok_or_else(stopped)?;
        commands.send(command(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| Error::Unknown("the store's writer has stopped".into()))?
    }

    fn database(&self) -> Result<Arc<Database>> {
        self.database.clone().ok_or_else(stopped)
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.commands = None;
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the store's writer panicked");
        }
        self.database = None;
    }
}

fn stopped() -> Error {
    Error::Unavailable("the store's writer has stopped".into())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::Unavailable(format!("a read was lost: {e}")))?
}

#[async_trait]
impl Storage for Embedded {
    async fn range(&self, range: Range) -> Result<RangeResult> {
        let database = self.database()?;
        blocking(move || read::snapshot_range(&database, &range)).await
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResult> {
        check(&request, self.max_request_bytes)?;
        if request.compare.is_empty() && request.success.iter().all(|op| matches!(op, Op::Range(_))) {
            let database = self.database()?;
            return blocking(move || read::snapshot_txn(&database, &request)).await;
        }
        self.ask(|reply| Command::Txn(request, reply)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        let prefix = prefix.to_owned();
        let registration = self.ask(|reply| Command::Watch { prefix: prefix.clone(), after, reply }).await?;
        let after = if after == 0 { registration.revision } else { after };
        Ok(watch::stream(Arc::downgrade(&self.database()?), prefix, after, registration))
    }

    async fn current_revision(&self) -> Result<Revision> {
        Ok(self.published.load(Ordering::Acquire))
    }

    async fn request_progress(&self) -> Result<()> {
        self.ask(Command::Progress).await
    }

    fn exact_progress(&self) -> bool {
        true
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.ask(|reply| Command::Compact(revision, reply)).await
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId> {
        if ttl.is_zero() {
            return Err(Error::Invalid("a lease needs a ttl".into()));
        }
        self.ask(|reply| Command::Grant(ttl, reply)).await
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<()> {
        self.ask(|reply| Command::KeepAlive(lease, reply)).await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<()> {
        self.ask(|reply| Command::Revoke(lease, reply)).await
    }
}
