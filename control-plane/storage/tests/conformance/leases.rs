//! Leases: keys live as long as their lease.

use std::sync::Arc;
use std::time::Duration;

use skep_storage::{Change, Error, Storage, TxnRequest};
use tokio::time::Instant;

use super::{Factory, commit, get, next_batch, put, put_leased};

/// etcd gives no lease less than two seconds.
const TTL: Duration = Duration::from_secs(2);

pub(super) async fn keys_end_with_their_lease(store: &dyn Storage) {
    let lease = store.lease_grant(TTL).await.expect("grants");
    let mut watch = store.watch("/t/lease/", 0).await.expect("watches");
    commit(store, vec![put_leased("/t/lease/a", "1", lease), put_leased("/t/lease/b", "1", lease)]).await;
    // A key written without its lease is free of it.
    commit(store, vec![put("/t/lease/b", "2")]).await;
    assert_eq!(get(store, "/t/lease/a").await.map(|kv| kv.lease), Some(lease));
    let began = Instant::now();
    next_batch(&mut watch).await;
    next_batch(&mut watch).await;
    let end = next_batch(&mut watch).await;
    assert!(began.elapsed() >= TTL / 2, "it ended too early");
    assert!(matches!(&end.changes[..], [Change::Delete { key, previous: Some(_) }] if key == "/t/lease/a"));
    assert!(get(store, "/t/lease/a").await.is_none());
    assert!(get(store, "/t/lease/b").await.is_some());
}

pub(super) async fn kept_alive_and_revoked(store: &dyn Storage) {
    let lease = store.lease_grant(TTL).await.expect("grants");
    commit(store, vec![put_leased("/t/kept/a", "1", lease)]).await;
    let until = Instant::now() + TTL * 2;
    while Instant::now() < until {
        store.lease_keep_alive(lease).await.expect("keeps it");
        tokio::time::sleep(TTL / 8).await;
    }
    assert!(get(store, "/t/kept/a").await.is_some());
    store.lease_revoke(lease).await.expect("revokes");
    assert!(get(store, "/t/kept/a").await.is_none());
    let kept = store.lease_keep_alive(lease).await;
    assert!(matches!(kept, Err(Error::NoLease(_))), "{kept:?}");
}

pub(super) async fn unknown_leases_are_refused(store: &dyn Storage) {
    let unknown = 0x7777_7777;
    let request =
        TxnRequest { success: vec![put_leased("/t/none/a", "1", unknown)], ..TxnRequest::default() };
    let refused = store.txn(request).await;
    assert!(matches!(refused, Err(Error::NoLease(_))), "{refused:?}");
    let refused = store.lease_revoke(unknown).await;
    assert!(matches!(refused, Err(Error::NoLease(_))), "{refused:?}");
    assert!(get(store, "/t/none/a").await.is_none());
}

pub(super) async fn survive_a_restart(factory: &dyn Factory, store: Arc<dyn Storage>) -> Arc<dyn Storage> {
    let lease = store.lease_grant(TTL * 2).await.expect("grants");
    let written = commit(&*store, vec![put_leased("/t/survives/a", "1", lease)]).await.revision;
    let store = factory.restart(store).await;
    store.lease_keep_alive(lease).await.expect("is still known");
    let mut watch = store.watch("/t/survives/", written).await.expect("watches");
    let end = next_batch(&mut watch).await;
    assert!(matches!(&end.changes[..], [Change::Delete { .. }]));
    store
}
