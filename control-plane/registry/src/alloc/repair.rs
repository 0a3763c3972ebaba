//! Keeping the pools, the allocation keys and the services in step.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use skep_api::object::ObjectExt;
use skep_storage::{Compare, KeyValue, Op, Range, Result, Revision, Storage, Target, TxnRequest};

use super::follow::range_of;
use super::service::held;
use super::{ADDRESSES, Allocation, Allocators, MANAGED_BY, MANAGER, PREFIX, RANGES};
use crate::cache::Object;

/// How many pairs are read at once.
const PAGE: usize = 1000;

/// An allocation as it is stored.
struct Stored {
    revision: Revision,
    /// The service an address was given to by the allocator, `namespace/name`; `None` for an address that
    /// somebody has written by hand, which is theirs to keep.
    owner: Option<String>,
}

/// Every pair below a prefix, and the revision they were read at (`at`, when it is not 0).
pub(super) async fn pairs(
    storage: &dyn Storage,
    prefix: &str,
    at: Revision,
) -> Result<(Vec<KeyValue>, Revision)> {
    let mut found = Vec::new();
    let mut range = Range { limit: PAGE, revision: at, ..Range::prefix(prefix) };
    loop {
        let page = storage.range(range.clone()).await?;
        if range.revision == 0 {
            // The first page fixes the revision of all of them.
            range.revision = page.revision.max(1);
        }
        let last = page.kvs.last().map(|kv| kv.key.clone());
        found.extend(page.kvs);
        match last {
            Some(last) if page.more => range.start = format!("{last}\u{1}"),
            _ => return Ok((found, range.revision)),
        }
    }
}

fn stored(kv: &KeyValue) -> Option<(Allocation, Stored)> {
    let Some(what) = Allocation::from_key(&kv.key) else {
        tracing::warn!(key = kv.key, "not an allocation");
        return None;
    };
    let owner = match what {
        Allocation::Port(_) => Some(String::from_utf8_lossy(&kv.value).into_owned()),
        Allocation::Address(_) => serde_json::from_slice(&kv.value).ok().and_then(|object| managed(&object)),
    };
    Some((what, Stored { revision: kv.mod_revision, owner }))
}

/// The service of an IPAddress that the allocator has made.
fn managed(object: &Value) -> Option<String> {
    let parent = |field: &str| object.text(&["spec", "parentRef", field]);
    (object.label(MANAGED_BY) == Some(MANAGER) && parent("resource") == "services")
        .then(|| format!("{}/{}", parent("namespace"), parent("name")))
}

async fn allocations(storage: &dyn Storage) -> Result<(HashMap<Allocation, Stored>, Revision)> {
    let (ports, revision) = pairs(storage, PREFIX, 0).await?;
    let (addresses, _) = pairs(storage, ADDRESSES, revision).await?;
    Ok((ports.iter().chain(&addresses).filter_map(stored).collect(), revision))
}

/// Fills the pools with what the store has; returns the revision that was read.
pub(crate) async fn load(storage: &dyn Storage, pools: &Allocators) -> Result<Revision> {
    let (found, revision) = allocations(storage).await?;
    let (ranges, _) = pairs(storage, RANGES, revision).await?;
    let ranges =
        ranges.iter().filter_map(|kv| Some((kv.key.strip_prefix(RANGES)?.to_owned(), range_of(&kv.value))));
    let address = |what: &Allocation| match what {
        Allocation::Address(address) => Some(*address),
        Allocation::Port(_) => None,
    };
    pools.addresses.reset(found.keys().filter_map(address), ranges);
    pools.ports.clear();
    for what in found.into_keys() {
        // `false`: out of today's ranges; the service keeps it, nobody else gets it.
        pools.take(what);
    }
    Ok(revision)
}

/// Removes keys nobody owns, names the right owner where another is named, and adds keys that are missing.
/// `services` must be read *after* `floor` was the store's revision: a key younger than that may belong to
/// a service not yet seen. A service may change after it was read, so a missing key is added only while
/// its owner, whose storage key `key_of` tells, is still at the revision seen here.
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
    let (known, _) = allocations(storage).await?;
    for (what, Stored { revision, owner }) in &known {
        if owners.contains_key(what) || *revision > floor || owner.is_none() {
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
        let expected = match known.get(&what) {
            None => Target::CreateRevision(0),
            Some(stored) if stored.owner.as_deref() == Some(owner.key().as_str()) => continue,
            Some(stored) if stored.owner.is_some() => Target::ModRevision(stored.revision),
            Some(_) => {
                tracing::warn!(
                    ?what,
                    owner = owner.key(),
                    "an IPAddress made by hand has a service's address"
                );
                continue;
            }
        };
        let request = TxnRequest {
            compare: vec![
                Compare { key: what.key(), target: expected },
                Compare { key: key_of(owner), target: Target::ModRevision(owner.revision) },
            ],
            success: vec![Op::Put { key: what.key(), value: what.value(&owner.key()), lease: 0 }],
            failure: Vec::new(),
        };
        if storage.txn(request).await?.succeeded {
            pools.take(what);
            tracing::info!(
                ?what,
                owner = owner.key(),
                "recorded an allocation that had no key of its service's"
            );
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
        let (found, _) = allocations(storage).await.expect("allocations");
        (found.contains_key(&port), !pools.take(port))
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
