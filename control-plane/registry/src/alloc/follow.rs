//! The pools follow the allocation keys, so that what another server gives or takes back is known here.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use skep_storage::{Change, Error, Result, Revision, Storage, WatchMessage};

use super::{Allocation, Allocators, PREFIX, repair};

/// Pause before a broken watch is opened again.
const PAUSE: Duration = Duration::from_millis(200);

/// Follows until dropped. `loaded` is the revision the pools were filled at.
pub(crate) async fn follow(storage: Arc<dyn Storage>, pools: Arc<Allocators>, loaded: Revision) {
    let mut seen = loaded;
    loop {
        match changes(&*storage, &pools, &mut seen).await {
            Ok(()) => {}
            Err(Error::Compacted { .. }) => match repair::load(&*storage, &pools).await {
                Ok(revision) => seen = revision,
                Err(error) => tracing::warn!(%error, "allocations could not be read again"),
            },
            Err(error) => tracing::warn!(%error, "allocations can't be followed; trying again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn changes(storage: &dyn Storage, pools: &Allocators, seen: &mut Revision) -> Result<()> {
    let mut watch = storage.watch(PREFIX, *seen).await?;
    while let Some(message) = watch.next().await {
        match message? {
            WatchMessage::Batch(batch) => {
                for change in &batch.changes {
                    match change {
                        Change::Put { kv, .. } => {
                            if let Some(what) = Allocation::from_key(&kv.key) {
                                pools.take(what);
                            }
                        }
                        // One of our own that was taken again meanwhile may look free for a moment: its
                        // key decides in the transaction, not the pool.
                        Change::Delete { key, .. } => {
                            if let Some(what) = Allocation::from_key(key) {
                                pools.release(what);
                            }
                        }
                    }
                }
                *seen = batch.revision;
            }
            WatchMessage::Progress(revision) => *seen = revision.max(*seen),
        }
    }
    Ok(())
}
