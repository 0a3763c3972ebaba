//! The one place that writes to the store.

use bytes::Bytes;
use skep_api::error::ApiError;
use skep_storage::{Compare, Error, Op, OpResult, Range, Revision, Storage, Target, TxnRequest};

use crate::alloc::Changes;
use crate::cache::too_large_resource_version;

/// What to do with the key of an object.
pub(crate) enum Write {
    /// Store this.
    Put(Bytes),
    /// Remove it.
    Delete,
}

/// How it went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    /// Written at this revision.
    Yes(Revision),
    /// The object is not at the expected revision any more.
    Stale,
    /// An address or port of the service was taken by somebody else meanwhile.
    Taken,
}

/// Writes one object, if it still is at `expected` (0: does not exist), together with what the write
/// allocates and frees.
pub(crate) async fn commit(
    storage: &dyn Storage,
    key: &str,
    expected: Revision,
    write: Write,
    changes: Option<Changes>,
) -> Result<Committed, ApiError> {
    let mut request = TxnRequest {
        compare: vec![Compare { key: key.to_owned(), target: Target::ModRevision(expected) }],
        success: vec![match write {
            Write::Put(value) => Op::Put { key: key.to_owned(), value, lease: 0 },
            Write::Delete => Op::Delete { key: key.to_owned() },
        }],
        failure: vec![Op::Range(Range { keys_only: true, ..Range::key(key) })],
    };
    if let Some(changes) = &changes {
        request.compare.extend(changes.compares());
        request.success.extend(changes.ops());
        // Which of them somebody else has.
        let others = changes.compares().map(|compare| Range { keys_only: true, ..Range::key(compare.key) });
        request.failure.extend(others.map(Op::Range));
    }
    let result = match storage.txn(request).await {
        Ok(result) => result,
        Err(error) => {
            // What is not known to have failed must not be given out again; repair settles it.
            if let (Error::Unknown(_), Some(changes)) = (&error, changes) {
                changes.conflict();
            }
            return Err(storage_error(&error));
        }
    };
    if result.succeeded {
        if let Some(changes) = changes {
            changes.commit();
        }
        return Ok(Committed::Yes(result.revision));
    }
    let found = match result.results.first() {
        Some(OpResult::Range(range)) => range.kvs.first().map_or(0, |kv| kv.mod_revision),
        _ => 0,
    };
    if found != expected {
        return Ok(Committed::Stale);
    }
    if let Some(changes) = changes {
        let is_there = |result: &OpResult| matches!(result, OpResult::Range(range) if !range.kvs.is_empty());
        changes.settle(result.results.iter().skip(1).map(is_there));
    }
    Ok(Committed::Taken)
}

/// What a client is told of a failing store; details go to the log.
pub(crate) fn storage_error(error: &Error) -> ApiError {
    match error {
        Error::Compacted { asked, oldest } => {
            ApiError::gone_expired(format!("too old resource version: {asked} ({oldest})"))
        }
        Error::Future { asked, current } => too_large_resource_version(*asked, *current),
        Error::TooLarge { limit, .. } => ApiError::request_too_large(format!(
            "the object is larger than the store's limit of {limit} bytes"
        )),
        Error::Unknown(_) => {
            tracing::warn!(%error, "a write timed out");
            ApiError::timeout("the store did not say in time whether the write happened")
        }
        Error::Unavailable(_) => {
            tracing::warn!(%error, "the store is unavailable");
            ApiError::service_unavailable("the store is unavailable, try again")
        }
        Error::NoLease(_)
        | Error::Corrupt(_)
        | Error::Sealed { .. }
        | Error::Keys(_)
        | Error::InUse(_)
        | Error::Format { .. }
        | Error::Invalid(_) => {
            tracing::error!(%error, "the store failed");
            ApiError::internal("the store failed; the server's log says why")
        }
    }
}
