//! Addresses that were given out before they were IPAddress objects get theirs.
//!
//! Each is moved in one transaction, so that an interrupted start goes on where it was, and several servers
//! may do it at the same time.

use skep_storage::{Compare, Op, Result, Storage, Target, TxnRequest};

use super::repair::pairs;
use super::{Allocation, PREFIX};

/// Moves what is left of the older form.
pub(crate) async fn migrate(storage: &dyn Storage) -> Result<()> {
    let prefix = format!("{PREFIX}ip/");
    let (old, _) = pairs(storage, &prefix, 0).await?;
    for kv in &old {
        let Some(Ok(address)) = kv.key.strip_prefix(&prefix).map(str::parse) else {
            tracing::warn!(key = kv.key, "not an address");
            continue;
        };
        let what = Allocation::Address(address);
        let owner = String::from_utf8_lossy(&kv.value);
        let here = Compare { key: kv.key.clone(), target: Target::ModRevision(kv.mod_revision) };
        let free = Compare { key: what.key(), target: Target::CreateRevision(0) };
        let remove = Op::Delete { key: kv.key.clone() };
        let put = Op::Put { key: what.key(), value: what.value(&owner), lease: 0 };
        let moved = TxnRequest {
            compare: vec![here.clone(), free],
            success: vec![remove.clone(), put],
            failure: vec![],
        };
        if storage.txn(moved).await?.succeeded {
            tracing::info!(%address, %owner, "the address of a service is an IPAddress now");
        } else {
            // There is an object already: the older form goes, unless another server was faster.
            let request = TxnRequest { compare: vec![here], success: vec![remove], failure: vec![] };
            storage.txn(request).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use skep_storage::embedded::{self, Embedded};

    use super::*;
    use crate::alloc::{Allocators, load};

    #[tokio::test]
    async fn old_keys_become_objects_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let storage =
            Embedded::open(dir.path().join("store"), embedded::Options::default()).await.expect("a store");
        let put = |key: &str, value: &str| Op::Put {
            key: key.to_owned(),
            value: value.to_owned().into(),
            lease: 0,
        };
        let success = vec![
            put("/skep/allocations/ip/10.96.0.9", "n/a"),
            put("/skep/allocations/ip/fd00::9", "n/a"),
            put("/skep/allocations/port/30001", "n/a"),
        ];
        let request = TxnRequest { compare: vec![], success, failure: vec![] };
        storage.txn(request).await.expect("written");
        migrate(&*storage).await.expect("migrated");
        migrate(&*storage).await.expect("migrated again");
        let (rest, _) = pairs(&*storage, PREFIX, 0).await.expect("read");
        assert_eq!(
            rest.iter().map(|kv| kv.key.as_str()).collect::<Vec<_>>(),
            ["/skep/allocations/port/30001"]
        );
        let (objects, _) = pairs(&*storage, super::super::ADDRESSES, 0).await.expect("read");
        assert_eq!(objects.len(), 2);
        let object: Value = serde_json::from_slice(&objects[0].value).expect("JSON");
        assert_eq!(object["metadata"]["name"], "10.96.0.9");
        assert_eq!(object["spec"]["parentRef"]["name"], "a");
        let pools = Allocators::new(&["10.96.0.0/16".parse().expect("a range")], 30000..=30007);
        load(&*storage, &pools).await.expect("loaded");
        assert!(!pools.take(Allocation::Address("10.96.0.9".parse().expect("an address"))));
        assert!(!pools.take(Allocation::Port(30001)));
    }
}
