//! The pools follow the allocation keys, so that what another server gives or takes back is known here.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use ipnet::IpNet;
use skep_storage::{Change, Error, Result, Revision, Storage, WatchMessage};

use super::ranges::usable;
use super::{ADDRESSES, Allocation, Allocators, PREFIX, RANGES, repair};

/// Pause before a broken watch is opened again.
const PAUSE: Duration = Duration::from_millis(200);

/// Follows until dropped. `loaded` is the revision the pools were filled at.
pub(crate) async fn follow(storage: Arc<dyn Storage>, pools: Arc<Allocators>, loaded: Revision) {
    let below = |prefix| one(&storage, &pools, prefix, loaded);
    tokio::join!(below(PREFIX), below(ADDRESSES), below(RANGES));
}

async fn one(storage: &Arc<dyn Storage>, pools: &Allocators, prefix: &str, loaded: Revision) {
    let mut seen = loaded;
    loop {
        match changes(&**storage, pools, prefix, &mut seen).await {
            Ok(()) => {}
            Err(Error::Compacted { .. }) => match repair::load(&**storage, pools).await {
                Ok(revision) => seen = revision,
                Err(error) => tracing::warn!(%error, "allocations could not be read again"),
            },
            Err(error) => tracing::warn!(%error, prefix, "allocations can't be followed; trying again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn changes(storage: &dyn Storage, pools: &Allocators, prefix: &str, seen: &mut Revision) -> Result<()> {
    let mut watch = storage.watch(prefix, *seen).await?;
    while let Some(message) = watch.next().await {
        match message? {
            WatchMessage::Batch(batch) => {
                batch.changes.iter().for_each(|change| apply(pools, change));
                *seen = batch.revision;
            }
            WatchMessage::Progress(revision) => *seen = revision.max(*seen),
        }
    }
    Ok(())
}

fn apply(pools: &Allocators, change: &Change) {
    let key = match change {
        Change::Put { kv, .. } => &kv.key,
        Change::Delete { key, .. } => key,
    };
    if let Some(name) = key.strip_prefix(RANGES) {
        let nets = match change {
            Change::Put { kv, .. } => Some(range_of(&kv.value)),
            Change::Delete { .. } => None,
        };
        pools.addresses.change(name, nets);
    } else if let Some(what) = Allocation::from_key(key) {
        match change {
            Change::Put { .. } => _ = pools.take(what),
            // One of our own that was taken again meanwhile may look free for a moment: its key decides in
            // the transaction, not the pool.
            Change::Delete { .. } => pools.release(what),
        }
    }
}

/// The usable ranges of a stored ServiceCIDR.
pub(super) fn range_of(bytes: &[u8]) -> Vec<IpNet> {
    match serde_json::from_slice(bytes) {
        Ok(object) => usable(&object),
        Err(error) => {
            tracing::warn!(%error, "a stored ServiceCIDR can't be read");
            Vec::new()
        }
    }
}
