//! Keeping the pools, the allocation keys and the services in step.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use skep_storage::{Compare, Op, Range, Result, Revision, Storage, Target, TxnRequest};

use super::service::held;
use super::{Allocation, Allocators, PREFIX};

/// How many pairs are read at once.
const PAGE: usize = 1000;

/// Allocation keys with the revisions that wrote them.
async fn keys(storage: &dyn Storage) -> Result<HashMap<Allocation, Revision>> {
    let mut found = HashMap::new();
    let mut range = Range { limit: PAGE, keys_only: true, ..Range::prefix(PREFIX) };
    loop {
        let page = storage.range(range.clone()).await?;
        for kv in &page.kvs {
            match Allocation::from_key(&kv.key) {
                Some(what) => _ = found.insert(what, kv.mod_revision),
                None => tracing::warn!(key = kv.key, "not an allocation"),
            }
        }
        match page.kvs.last() {
            Some(last) if page.more => range.start = format!("{}\u{1}", last.key),
            _ => return Ok(found),
        }
    }
}

/// Fills the pools at start.
pub(crate) async fn load(storage: &dyn Storage, pools: &Allocators) -> Result<()> {
    for what in keys(storage).await?.into_keys() {
        // `false`: out of today's ranges; the service keeps it, nobody else gets it.
        pools.take(what);
    }
    Ok(())
}

/// Removes keys nobody owns and adds those that are missing. `services` must be read *after* `floor`
/// was the store's revision: a key younger than that may belong to a service not yet seen.
pub(crate) async fn repair(
    storage: &dyn Storage,
    pools: &Allocators,
    floor: Revision,
    services: &[Arc<Value>],
) -> Result<()> {
    let mut owners: HashMap<Allocation, String> = HashMap::new();
    for service in services {
        let name = |field: &str| service.pointer(field).and_then(Value::as_str).unwrap_or_default();
        let owner = format!("{}/{}", name("/metadata/namespace"), name("/metadata/name"));
        for what in held(service) {
            if let Some(other) = owners.insert(what, owner.clone()) {
                tracing::error!(?what, owner, other, "two services hold the same allocation");
            }
        }
    }
    let known = keys(storage).await?;
    for (what, revision) in &known {
        if owners.contains_key(what) || *revision > floor {
            continue;
        }
        let request = TxnRequest {
            compare: vec![Compare { key: what.key(), target: Target::ModRevision(*revision) }],
            success: vec![Op::Delete { key: what.key() }],
            failure: Vec::new(),
        };
        if storage.txn(request).await?.succeeded {
            tracing::info!(?what, "freed an allocation no service owns");
            pools.release(*what);
        }
    }
    for (what, owner) in owners {
        if known.contains_key(&what) {
            continue;
        }
        let request = TxnRequest {
            compare: vec![Compare { key: what.key(), target: Target::CreateRevision(0) }],
            success: vec![Op::Put { key: what.key(), value: owner.clone().into(), lease: 0 }],
            failure: Vec::new(),
        };
        storage.txn(request).await?;
        pools.take(what);
        tracing::info!(?what, owner, "recorded an allocation that had no key");
    }
    Ok(())
}
