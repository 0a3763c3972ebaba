//! What every engine must hold. Cases share a store, which may have other keys and any revision, so
//! each works below a prefix of its own and takes revisions relative to what it sees.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use skep_storage::{
    Batch, Compare, KeyValue, LeaseId, Op, OpResult, Range, RangeResult, Result, Revision, Storage, Target,
    TxnRequest, TxnResult, WatchMessage, WatchStream,
};

mod history;
mod leases;
mod model;
mod txn;
mod watch;

/// No case waits longer than this for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Makes and reopens the store under test.
#[async_trait]
pub(crate) trait Factory: Send + Sync {
    /// A handle of the store.
    async fn open(&self) -> Arc<dyn Storage>;
    /// Stops the store and starts it again on the same data.
    async fn restart(&self, store: Arc<dyn Storage>) -> Arc<dyn Storage>;
}

/// Runs the suite.
pub(crate) async fn run(factory: &dyn Factory) {
    let mut store = factory.open().await;
    txn::creates_updates_and_deletes(&*store).await;
    txn::a_failed_compare_runs_the_other_branch(&*store).await;
    txn::one_transaction_has_one_revision(&*store).await;
    txn::what_is_too_large_is_refused(&*store).await;
    txn::racing_increments_lose_nothing(&store).await;
    history::older_revisions_stay_readable(&*store).await;
    history::pages_of_one_revision_fit_together(&*store).await;
    history::keys_and_counts_alone(&*store).await;
    watch::live_changes_come_once_and_in_order(&*store).await;
    watch::the_past_replays_as_it_happened(&*store).await;
    watch::two_watches_agree(&store).await;
    watch::a_future_start_waits(&*store).await;
    watch::progress_is_told_on_request(&*store).await;
    store = watch::nothing_is_missed_across_a_restart(factory, store).await;
    leases::keys_end_with_their_lease(&*store).await;
    leases::kept_alive_and_revoked(&*store).await;
    leases::unknown_leases_are_refused(&*store).await;
    store = leases::survive_a_restart(factory, store).await;
    model::random_operations_match_the_model(&store).await;
    // Last: it takes the history of the whole store away.
    history::compaction_forgets_and_says_so(&*store).await;
    model::random_operations_match_the_model(&store).await;
}

pub(crate) fn put(key: &str, value: &str) -> Op {
    Op::Put { key: key.into(), value: Bytes::copy_from_slice(value.as_bytes()), lease: 0 }
}

pub(crate) fn put_leased(key: &str, value: &str, lease: LeaseId) -> Op {
    Op::Put { key: key.into(), value: Bytes::copy_from_slice(value.as_bytes()), lease }
}

pub(crate) fn delete(key: &str) -> Op {
    Op::Delete { key: key.into() }
}

pub(crate) async fn commit(store: &dyn Storage, ops: Vec<Op>) -> TxnResult {
    store.txn(TxnRequest { success: ops, ..TxnRequest::default() }).await.expect("the transaction runs")
}

/// Puts when the key has this modification revision (0: is absent).
pub(crate) async fn put_if(store: &dyn Storage, key: &str, at: Revision, value: &str) -> TxnResult {
    let request = TxnRequest {
        compare: vec![Compare { key: key.into(), target: Target::ModRevision(at) }],
        success: vec![put(key, value)],
        failure: vec![Op::Range(Range::key(key))],
    };
    store.txn(request).await.expect("the transaction runs")
}

pub(crate) async fn get(store: &dyn Storage, key: &str) -> Option<KeyValue> {
    store.range(Range::key(key)).await.expect("reads").kvs.into_iter().next()
}

pub(crate) async fn read_at(store: &dyn Storage, prefix: &str, revision: Revision) -> Result<RangeResult> {
    store.range(Range { revision, ..Range::prefix(prefix) }).await
}

/// `key=value` for each pair.
pub(crate) fn show(kvs: &[KeyValue]) -> Vec<String> {
    kvs.iter().map(|kv| format!("{}={}", kv.key, String::from_utf8_lossy(&kv.value))).collect()
}

/// The next message that is not progress.
pub(crate) async fn next_batch(watch: &mut WatchStream) -> Batch {
    loop {
        let message = tokio::time::timeout(PATIENCE, watch.next()).await.expect("a change comes in time");
        match message.expect("the watch goes on").expect("the watch has no error") {
            WatchMessage::Batch(batch) => return batch,
            WatchMessage::Progress(_) => {}
        }
    }
}

/// The batches up to and with `revision`.
pub(crate) async fn batches_until(watch: &mut WatchStream, revision: Revision) -> Vec<Batch> {
    let mut batches = Vec::new();
    loop {
        let batch = next_batch(watch).await;
        let last = batch.revision;
        batches.push(batch);
        if last >= revision {
            assert_eq!(last, revision, "the watch ends on the revision written last");
            return batches;
        }
    }
}

pub(crate) fn deleted(result: &OpResult) -> Option<&KeyValue> {
    match result {
        OpResult::Deleted(previous) => previous.as_ref(),
        other => panic!("not the result of a delete: {other:?}"),
    }
}
