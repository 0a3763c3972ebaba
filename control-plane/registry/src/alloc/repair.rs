//! Keeping the pools, the allocation keys and the services in step.

use std::collections::HashMap;
use std::sync::Arc;

use skep_storage::{Compare, Op, Range, Result, Revision, Storage, Target, TxnRequest};

use super::service::held;
use super::{Allocation, Allocators, PREFIX};
use crate::cache::Object;

/// How many pairs are read at once.
const PAGE: usize = 1000;

/// Allocation keys with the revisions that wrote them, and the revision they were read at.
async fn keys_at(storage: &dyn Storage) -> Result<(HashMap<Allocation, Revision>, Revision)> {
    let mut found = HashMap::new();
    let mut range = Range { limit: PAGE, keys_only: true, ..Range::prefix(PREFIX) };
    loop {
        let page = storage.range(range.clone()).await?;
        if range.revision == 0 {
            // The first page fixes the revision of all of them.
            range.revision = page.revision.max(1);
        }
        for kv in &page.kvs {
            match Allocation::from_key(&kv.key) {
                Some(what) => _ = found.insert(what, kv.mod_revision),
                None => tracing::warn!(key = kv.key, "not an allocation"),
            }
        }
        match page.kvs.last() {
            Some(last) if page.more => range.start = format!("{}\u{1}", last.key),
            _ => return Ok((found, range.revision)),
        }
    }
}

async fn keys(storage: &dyn Storage) -> Result<HashMap<Allocation, Revision>> {
    Ok(keys_at(storage).await?.0)
}

/// Fills the pools with what the store has; returns the revision that was read.
pub(crate) async fn load(storage: &dyn Storage, pools: &Allocators) -> Result<Revision> {
    let (found, revision) = keys_at(storage).await?;
    pools.reset(found.into_keys());
    Ok(revision)
}

/// Removes keys nobody owns and adds those that are missing. `services` must be read *after* `floor`
/// was the store's revision: a key younger than that may belong to a service not yet seen. A service may
/// change after it was read, so a missing key is added only while its owner, whose storage key
/// `key_of` tells, is still at the revision seen here.
pub(crate) async fn repair(
    storage: &dyn Storage,
    pools: &Allocators,
    floor: Revision,
    services: &[Arc<Object>],
    key_of: impl Fn(&Object) -> String,
) -> Result<()> {
    let mut owners: HashMap<Allocation, &Object> = HashMap::new();
    for service in services {
        for what in held(&service.value) {
            if let Some(other) = owners.insert(what, service) {
                let (owner, other) = (service.key(), other.key());
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
            compare: vec![
                Compare { key: what.key(), target: Target::CreateRevision(0) },
                Compare { key: key_of(owner), target: Target::ModRevision(owner.revision) },
            ],
            success: vec![Op::Put { key: what.key(), value: owner.key().into(), lease: 0 }],
            failure: Vec::new(),
        };
        if storage.txn(request).await?.succeeded {
            pools.take(what);
            tracing::info!(?what, owner = owner.key(), "recorded an allocation that had no key");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use skep_storage::embedded::{self, Embedded};

    use super::*;

    /// A store with one service that holds node port 30001, and the service as it was written.
    async fn world(dir: &tempfile::TempDir) -> (Arc<Embedded>, Arc<Object>) {
        let path = dir.path().join("store");
        let storage = Embedded::open(path, embedded::Options::default()).await.expect("a store");
        let value = json!({
            "metadata": {"namespace": "n", "name": "a"},
            "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]},
        });
        let revision = put(&storage).await;
        (storage, Arc::new(Object::new(value, revision, Vec::new())))
    }

    async fn put(storage: &Embedded) -> Revision {
        let op = Op::Put { key: key_of(), value: "{}".into(), lease: 0 };
        let request = TxnRequest { compare: Vec::new(), success: vec![op], failure: Vec::new() };
        storage.txn(request).await.expect("written").revision
    }

    fn key_of() -> String {
        "/registry/services/n/a".to_owned()
    }

    async fn repaired(storage: &Embedded, service: &Arc<Object>) -> (bool, bool) {
        let pools = Allocators::new(&[], 30000..=30007);
        let services = [service.clone()];
        let floor = storage.current_revision().await.expect("a revision");
        repair(storage, &pools, floor, &services, |_| key_of()).await.expect("repaired");
        let port = Allocation::Port(30001);
        (keys(storage).await.expect("keys").contains_key(&port), !pools.take(port))
    }

    #[tokio::test]
    async fn a_missing_key_is_added() {
        let dir = tempfile::tempdir().expect("a folder");
        let (storage, service) = world(&dir).await;
        assert_eq!(repaired(&storage, &service).await, (true, true));
    }

    #[tokio::test]
    async fn what_a_service_gave_back_since_it_was_read_stays_free() {
        let dir = tempfile::tempdir().expect("a folder");
        let (storage, service) = world(&dir).await;
        put(&storage).await;
        assert_eq!(repaired(&storage, &service).await, (false, false));
    }
}
