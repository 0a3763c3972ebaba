//! The storage trait and its messages. They follow etcd's v3 model, which the API semantics of
//! Kubernetes (resourceVersion, watch, optimistic locking) are built on.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

/// The store's logical clock: grows by one with each writing transaction. 0 means "none".
pub type Revision = u64;

/// Names a lease; 0 is never given out.
pub type LeaseId = i64;

/// What an engine can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The asked revision is older than what the store keeps.
    #[error("revision {asked} has been compacted; the oldest is {oldest}")]
    Compacted {
        /// The revision asked for.
        asked: Revision,
        /// The oldest revision that can be read.
        oldest: Revision,
    },
    /// The asked revision has not happened yet.
    #[error("revision {asked} is in the future; the store is at {current}")]
    Future {
        /// The revision asked for.
        asked: Revision,
        /// The store's revision.
        current: Revision,
    },
    /// No such lease, or it has expired.
    #[error("lease {0} does not exist")]
    NoLease(LeaseId),
    /// A value or a transaction is over the engine's limit.
    #[error("request of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// Bytes asked to store.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The store can't be reached or answered with a passing fault; trying again is right.
    #[error("storage is unavailable: {0}")]
    Unavailable(String),
    /// The outcome of a write is not known: it may or may not have happened.
    #[error("the outcome of the write is not known: {0}")]
    Unknown(String),
    /// What is on disk can't be read.
    #[error("storage is damaged: {0}")]
    Corrupt(String),
    /// Another process has the store open.
    #[error("{0} is in use by another process")]
    InUse(String),
    /// The store was written in a format this program does not know.
    #[error("the store has format {found}; this program reads format {supported}")]
    Format {
        /// What the store says.
        found: u64,
        /// What is supported.
        supported: u64,
    },
    /// A value is encrypted and can't be opened, or the other way round.
    #[error("the value of {key} can't be decrypted: {why}")]
    Sealed {
        /// The key.
        key: String,
        /// What is wrong; no secret.
        why: String,
    },
    /// A KMS plug-in does not help. The text holds no secret.
    #[error("keys can't be had: {0}")]
    Keys(String),
    /// The request breaks the trait's rules: an empty key, a key written twice in one transaction.
    #[error("invalid storage request: {0}")]
    Invalid(String),
}

/// The layer's result.
pub type Result<T> = std::result::Result<T, Error>;

/// A key with its value at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// The revision that created the key (since its last deletion).
    pub create_revision: Revision,
    /// The revision of this value.
    pub mod_revision: Revision,
    /// How many writes since creation; 1 when new.
    pub version: u64,
    /// The lease the key lives by, 0 for none.
    pub lease: LeaseId,
}

/// Reads `[start, end)` in key order.
#[derive(Clone, Debug, Default)]
pub struct Range {
    /// First key.
    pub start: String,
    /// End, exclusive. Empty: the one key `start`.
    pub end: String,
    /// At most so many pairs; 0 is no limit.
    pub limit: usize,
    /// At this revision; 0 is the newest, read linearizably.
    pub revision: Revision,
    /// Leave the values out.
    pub keys_only: bool,
    /// Return no pairs, only the count.
    pub count_only: bool,
}

impl Range {
    /// One key at the newest revision.
    pub fn key(key: impl Into<String>) -> Self {
        Self { start: key.into(), ..Self::default() }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        let start = prefix.into();
        let end = prefix_end(&start);
        Self { start, end, ..Self::default() }
    }
}

/// The first key after all that begin with `prefix`. Keys are ASCII, so stepping the last byte is safe.
pub fn prefix_end(prefix: &str) -> String {
    let mut bytes = prefix.as_bytes().to_vec();
    while let Some(last) = bytes.pop() {
        if last < 0x7f {
            bytes.push(last + 1);
            break;
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}

/// What a range read found.
#[derive(Clone, Debug, Default)]
pub struct RangeResult {
    /// The pairs in key order.
    pub kvs: Vec<KeyValue>,
    /// More pairs lie behind the limit.
    pub more: bool,
    /// How many pairs the whole range has.
    pub count: u64,
    /// The store's revision when the read was answered (also when reading an older one).
    pub revision: Revision,
}

/// What a compare looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The key's modification revision equals this; 0 means "does not exist".
    ModRevision(Revision),
    /// The key's creation revision equals this; 0 means "does not exist".
    CreateRevision(Revision),
}

/// One condition of a transaction.
#[derive(Clone, Debug)]
pub struct Compare {
    /// The key.
    pub key: String,
    /// What must hold for it.
    pub target: Target,
}

/// One operation of a transaction. A transaction never writes the same key twice.
#[derive(Clone, Debug)]
pub enum Op {
    /// Writes a key.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Bytes,
        /// The lease it lives by, 0 for none.
        lease: LeaseId,
    },
    /// Deletes a key if it is there.
    Delete {
        /// The key.
        key: String,
    },
    /// Reads.
    Range(Range),
}

/// An atomic if-then-else.
#[derive(Clone, Debug, Default)]
pub struct TxnRequest {
    /// All must hold for `success` to run.
    pub compare: Vec<Compare>,
    /// Run when they do.
    pub success: Vec<Op>,
    /// Run when they don't.
    pub failure: Vec<Op>,
}

/// The outcome of one operation.
#[derive(Clone, Debug)]
pub enum OpResult {
    /// A put happened.
    Put,
    /// A delete happened; the pair that was there, if any.
    Deleted(Option<KeyValue>),
    /// What was read.
    Range(RangeResult),
}

/// The outcome of a transaction.
#[derive(Clone, Debug)]
pub struct TxnResult {
    /// Did the compares hold.
    pub succeeded: bool,
    /// One result for each operation that ran.
    pub results: Vec<OpResult>,
    /// The store's revision afterwards: that of the writes, if there were any.
    pub revision: Revision,
}

/// One change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key was written. `previous` is the pair before, `None` when created.
    Put {
        /// The new pair.
        kv: KeyValue,
        /// The pair before.
        previous: Option<KeyValue>,
    },
    /// The key was deleted, by a request or by its lease.
    Delete {
        /// The key.
        key: String,
        /// The last pair.
        previous: Option<KeyValue>,
    },
}

/// All changes a watch sees of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Their revision.
    pub revision: Revision,
    /// The changes, in the order of the transaction.
    pub changes: Vec<Change>,
}

/// What a watch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchMessage {
    /// Changes of one revision.
    Batch(Batch),
    /// Everything up to this revision has been delivered.
    Progress(Revision),
}

/// A watch. It ends after an error; the caller starts anew from the last revision it saw.
pub type WatchStream = BoxStream<'static, Result<WatchMessage>>;

/// An MVCC store.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// Reads a range. Errors: [`Error::Compacted`], [`Error::Future`], [`Error::Unavailable`].
    async fn range(&self, range: Range) -> Result<RangeResult>;

    /// Runs a transaction atomically.
    async fn txn(&self, request: TxnRequest) -> Result<TxnResult>;

    /// Watches every key that begins with `prefix`, beginning *after* `after` (0: after the current revision).
    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream>;

    /// The store's revision, linearizable.
    async fn current_revision(&self) -> Result<Revision>;

    /// Asks every watch to say [`WatchMessage::Progress`] soon, also when nothing changes.
    async fn request_progress(&self) -> Result<()>;

    /// Whether progress is said only after the changes it is about. One that is not exact says it late
    /// and with little confidence.
    fn exact_progress(&self) -> bool;

    /// Forgets history below `revision`.
    async fn compact(&self, revision: Revision) -> Result<()>;

    /// Makes a lease: its keys are deleted when it is not kept alive for `ttl`.
    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId>;

    /// Renews a lease for its whole ttl.
    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<()>;

    /// Ends a lease and deletes its keys.
    async fn lease_revoke(&self, lease: LeaseId) -> Result<()>;

    /// Should this key be written again even if its value does not change: it is encrypted with a key
    /// that is on its way out.
    fn is_stale(&self, key: &str) -> bool {
        let _ = key;
        false
    }
}
