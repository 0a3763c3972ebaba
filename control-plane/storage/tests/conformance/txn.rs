//! Transactions: compare, branches, atomicity, limits.

use std::sync::Arc;

use bytes::Bytes;
use skep_storage::{Compare, Error, Op, OpResult, Range, Storage, Target, TxnRequest};

use super::{commit, delete, deleted, get, put, put_if};

pub(super) async fn creates_updates_and_deletes(store: &dyn Storage) {
    let key = "/t/crud/a";
    let before = store.current_revision().await.expect("reads");
    let created = put_if(store, key, 0, "one").await;
    assert!(created.succeeded);
    assert_eq!(created.revision, before + 1);
    let pair = get(store, key).await.expect("is there");
    assert_eq!((&pair.value[..], pair.version), (&b"one"[..], 1));
    assert_eq!((pair.create_revision, pair.mod_revision), (created.revision, created.revision));
    let updated = put_if(store, key, pair.mod_revision, "two").await;
    let pair = get(store, key).await.expect("is there");
    assert_eq!((&pair.value[..], pair.version), (&b"two"[..], 2));
    assert_eq!((pair.create_revision, pair.mod_revision), (created.revision, updated.revision));
    let removed = commit(store, vec![delete(key)]).await;
    assert_eq!(deleted(&removed.results[0]), Some(&pair));
    assert_eq!(get(store, key).await, None);
    // Deleting what is not there writes nothing.
    let again = commit(store, vec![delete(key)]).await;
    assert_eq!(deleted(&again.results[0]), None);
    assert_eq!(again.revision, removed.revision);
    let recreated = put_if(store, key, 0, "three").await;
    let pair = get(store, key).await.expect("is there");
    assert_eq!((pair.create_revision, pair.version), (recreated.revision, 1));
}

pub(super) async fn a_failed_compare_runs_the_other_branch(store: &dyn Storage) {
    let key = "/t/compare/a";
    let created = put_if(store, key, 0, "one").await;
    let refused = put_if(store, key, 0, "two").await;
    assert!(!refused.succeeded);
    assert_eq!(refused.revision, created.revision, "a failed compare writes nothing");
    let OpResult::Range(found) = &refused.results[0] else { panic!("the failure branch reads") };
    assert_eq!(&found.kvs[0].value[..], b"one");
    let by_creation = |target| {
        store.txn(TxnRequest {
            compare: vec![Compare { key: key.into(), target }],
            success: vec![put(key, "three")],
            failure: vec![],
        })
    };
    assert!(!by_creation(Target::CreateRevision(0)).await.expect("runs").succeeded);
    assert!(by_creation(Target::CreateRevision(created.revision)).await.expect("runs").succeeded);
    assert!(by_creation(Target::CreateRevision(created.revision)).await.expect("runs").succeeded);
    // All compares must hold.
    let both = TxnRequest {
        compare: vec![
            Compare { key: key.into(), target: Target::CreateRevision(created.revision) },
            Compare { key: "/t/compare/none".into(), target: Target::ModRevision(7) },
        ],
        success: vec![],
        failure: vec![put("/t/compare/other", "x")],
    };
    assert!(!store.txn(both).await.expect("runs").succeeded);
    assert!(get(store, "/t/compare/other").await.is_some());
}

pub(super) async fn one_transaction_has_one_revision(store: &dyn Storage) {
    let result = commit(
        store,
        vec![
            put("/t/many/a", "1"),
            put("/t/many/b", "2"),
            Op::Range(Range::prefix("/t/many/")),
            delete("/t/many/none"),
            put("/t/many/c", "3"),
        ],
    )
    .await;
    let OpResult::Range(seen) = &result.results[2] else { panic!("it reads") };
    assert_eq!(seen.kvs.len(), 2, "a transaction sees its own writes");
    for key in ["/t/many/a", "/t/many/b", "/t/many/c"] {
        assert_eq!(get(store, key).await.map(|kv| kv.mod_revision), Some(result.revision));
    }
}

pub(super) async fn what_is_too_large_is_refused(store: &dyn Storage) {
    let fits = Bytes::from(vec![7; 1 << 20]);
    let result = commit(store, vec![Op::Put { key: "/t/large/a".into(), value: fits, lease: 0 }]).await;
    let over = Bytes::from(vec![7; 2 << 20]);
    let put = Op::Put { key: "/t/large/a".into(), value: over, lease: 0 };
    let refused = store.txn(TxnRequest { success: vec![put], ..TxnRequest::default() }).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    assert_eq!(get(store, "/t/large/a").await.map(|kv| kv.mod_revision), Some(result.revision));
}

pub(super) async fn racing_increments_lose_nothing(store: &Arc<dyn Storage>) {
    const TASKS: u64 = 8;
    const EACH: u64 = 25;
    let key = "/t/race/counter";
    put_if(&**store, key, 0, "0").await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            let mut revisions = Vec::new();
            while (revisions.len() as u64) < EACH {
                let now = get(&*store, key).await.expect("is there");
                let value: u64 = String::from_utf8_lossy(&now.value).parse().expect("a number");
                let result = put_if(&*store, key, now.mod_revision, &(value + 1).to_string()).await;
                if result.succeeded {
                    revisions.push(result.revision);
                }
            }
            revisions
        });
    }
    let mut revisions: Vec<u64> = tasks.join_all().await.into_iter().flatten().collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len() as u64, TASKS * EACH, "each write has a revision of its own");
    let last = get(&**store, key).await.expect("is there");
    assert_eq!(&last.value[..], (TASKS * EACH).to_string().as_bytes());
}
