//! Random operations on a store and on a model of it: every read, every old revision and the replay of
//! every change must agree.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use skep_storage::{Batch, Change, Op, Range, Storage};

use super::{batches_until, commit, delete, put, put_if, read_at, show};

#[derive(Clone, Debug)]
enum Step {
    /// Each key once: put with a value, or delete.
    Write(BTreeMap<u8, Option<u16>>),
    /// Put when absent.
    Create(u8, u16),
    /// Put at the revision the model knows, or at a wrong one.
    Swap(u8, u16, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..6_u8;
    prop_oneof![
        3 => proptest::collection::btree_map(key.clone(), proptest::option::weighted(0.7, any::<u16>()), 1..4)
            .prop_map(Step::Write),
        1 => (key.clone(), any::<u16>()).prop_map(|(key, value)| Step::Create(key, value)),
        1 => (key, any::<u16>(), any::<bool>()).prop_map(|(key, value, right)| Step::Swap(key, value, right)),
    ]
}

type State = BTreeMap<String, (String, u64)>;

static ROUND: AtomicU64 = AtomicU64::new(0);

pub(super) async fn random_operations_match_the_model(store: &Arc<dyn Storage>) {
    let store = Arc::clone(store);
    let handle = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
        let steps = proptest::collection::vec(step(), 1..40);
        let outcome = TestRunner::new(config).run(&steps, |steps| {
            handle.block_on(check(&*store, &steps));
            Ok(())
        });
        if let Err(failure) = outcome {
            panic!("{failure}");
        }
    })
    .await
    .expect("the model holds");
}

async fn check(store: &dyn Storage, steps: &[Step]) {
    let prefix = format!("/t/model/{}/", ROUND.fetch_add(1, Ordering::Relaxed));
    let name = |key: u8| format!("{prefix}{key}");
    let start = commit(store, vec![put("/t/tick", "x")]).await.revision;
    let mut state = State::new();
    // The state after each revision.
    let mut past: Vec<(u64, State)> = vec![(start, state.clone())];
    for step in steps {
        let (revision, wrote) = match step {
            Step::Write(writes) => {
                let ops: Vec<Op> = writes
                    .iter()
                    .map(|(key, value)| match value {
                        Some(value) => put(&name(*key), &value.to_string()),
                        None => delete(&name(*key)),
                    })
                    .collect();
                let result = commit(store, ops).await;
                let mut wrote = false;
                for (key, value) in writes {
                    wrote |= match value {
                        Some(value) => {
                            state.insert(name(*key), (value.to_string(), result.revision));
                            true
                        }
                        None => state.remove(&name(*key)).is_some(),
                    };
                }
                (result.revision, wrote)
            }
            Step::Create(key, value) => {
                let result = put_if(store, &name(*key), 0, &value.to_string()).await;
                assert_eq!(result.succeeded, !state.contains_key(&name(*key)));
                if result.succeeded {
                    state.insert(name(*key), (value.to_string(), result.revision));
                }
                (result.revision, result.succeeded)
            }
            Step::Swap(key, value, right) => {
                let known = state.get(&name(*key)).map_or(0, |(_, revision)| *revision);
                let at = if *right { known } else { known + 1 };
                let result = put_if(store, &name(*key), at, &value.to_string()).await;
                assert_eq!(result.succeeded, *right);
                if result.succeeded {
                    state.insert(name(*key), (value.to_string(), result.revision));
                }
                (result.revision, result.succeeded)
            }
        };
        let last = past.last().map_or(start, |(revision, _)| *revision);
        assert_eq!(revision, if wrote { last + 1 } else { last }, "only writes take a revision");
        if wrote {
            past.push((revision, state.clone()));
        }
    }
    for (revision, state) in &past {
        let found = read_at(store, &prefix, *revision).await.expect("reads");
        let expected: Vec<String> = state.iter().map(|(key, (value, _))| format!("{key}={value}")).collect();
        assert_eq!(show(&found.kvs), expected, "at {revision}");
        assert!(found.kvs.iter().all(|kv| state[&kv.key].1 == kv.mod_revision));
        let page = Range { limit: 2, revision: *revision, ..Range::prefix(&prefix) };
        let page = store.range(page).await.expect("reads");
        assert_eq!((page.count, page.more), (state.len() as u64, state.len() > 2));
    }
    replay(store, &prefix, &past).await;
}

/// A watch from the start turns each state into the next.
async fn replay(store: &dyn Storage, prefix: &str, past: &[(u64, State)]) {
    let (Some((start, _)), Some((end, _))) = (past.first(), past.last()) else { return };
    if start == end {
        return;
    }
    let mut watch = store.watch(prefix, *start).await.expect("watches");
    let batches = batches_until(&mut watch, *end).await;
    assert_eq!(batches.len(), past.len() - 1);
    let mut state = State::new();
    for (Batch { revision, changes }, (expected_at, expected)) in batches.iter().zip(&past[1..]) {
        assert_eq!(revision, expected_at);
        for change in changes {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (key, previous) = match change {
                Change::Put { kv, previous } => (&kv.key, previous),
                Change::Delete { key, previous } => (key, previous),
            };
            let had = previous.as_ref().map(|kv| (text(&kv.value), kv.mod_revision));
            assert_eq!(had.as_ref(), state.get(key), "what was there before");
            match change {
                Change::Put { kv, .. } => {
                    state.insert(kv.key.clone(), (text(&kv.value), kv.mod_revision));
                }
                Change::Delete { key, .. } => {
                    state.remove(key);
                }
            }
        }
        assert_eq!(&state, expected);
    }
}
