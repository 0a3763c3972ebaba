//! Reading the past, pages, compaction.

use futures::StreamExt;
use skep_storage::{Error, Range, Storage};

use super::{PATIENCE, commit, delete, put, read_at, show};

pub(super) async fn older_revisions_stay_readable(store: &dyn Storage) {
    let prefix = "/t/mvcc/";
    let before = store.current_revision().await.expect("reads");
    let one = commit(store, vec![put("/t/mvcc/a", "1"), put("/t/mvcc/b", "1")]).await.revision;
    let two = commit(store, vec![put("/t/mvcc/a", "2"), delete("/t/mvcc/b")]).await.revision;
    let three = commit(store, vec![put("/t/mvcc/b", "3"), put("/t/mvcc/c", "3")]).await.revision;
    let four = commit(store, vec![delete("/t/mvcc/a"), put("/t/mvcc/aa", "4")]).await.revision;
    let expected: [(u64, &[&str]); 5] = [
        (before, &[]),
        (one, &["/t/mvcc/a=1", "/t/mvcc/b=1"]),
        (two, &["/t/mvcc/a=2"]),
        (three, &["/t/mvcc/a=2", "/t/mvcc/b=3", "/t/mvcc/c=3"]),
        (four, &["/t/mvcc/aa=4", "/t/mvcc/b=3", "/t/mvcc/c=3"]),
    ];
    for (revision, pairs) in expected {
        let found = read_at(store, prefix, revision).await.expect("reads");
        assert_eq!(show(&found.kvs), pairs, "at {revision}");
        assert_eq!(found.count, pairs.len() as u64);
        assert_eq!(found.revision, four, "the answer names the store's revision");
    }
    let single = Range { revision: two, ..Range::key("/t/mvcc/b") };
    assert!(store.range(single).await.expect("reads").kvs.is_empty());
    let single = Range { revision: three, ..Range::key("/t/mvcc/a") };
    let found = store.range(single).await.expect("reads").kvs;
    assert_eq!((found[0].create_revision, found[0].mod_revision, found[0].version), (one, two, 2));
    let future = read_at(store, prefix, four + 1000).await;
    assert!(matches!(future, Err(Error::Future { .. })), "{future:?}");
}

pub(super) async fn pages_of_one_revision_fit_together(store: &dyn Storage) {
    let prefix = "/t/page/";
    let mut revision = 0;
    for number in 0..25 {
        revision = commit(store, vec![put(&format!("{prefix}{number:02}"), "x")]).await.revision;
    }
    let mut start = prefix.to_owned();
    let mut seen = Vec::new();
    let mut left = 25;
    loop {
        let page = Range { start: start.clone(), limit: 10, revision, ..Range::prefix(prefix) };
        let page = store.range(page).await.expect("reads");
        assert_eq!(page.count, left, "the count is of the whole range, not of the page");
        left -= page.kvs.len() as u64;
        seen.extend(page.kvs.iter().map(|kv| kv.key.clone()));
        assert_eq!(page.more, left > 0);
        // What changes between pages is not seen.
        commit(store, vec![delete(&format!("{prefix}24")), put(&format!("{prefix}241"), "new")]).await;
        if !page.more {
            break;
        }
        start = format!("{}\0", seen.last().expect("a page has keys"));
    }
    let expected: Vec<String> = (0..25).map(|number| format!("{prefix}{number:02}")).collect();
    assert_eq!(seen, expected);
}

pub(super) async fn keys_and_counts_alone(store: &dyn Storage) {
    let prefix = "/t/bare/";
    commit(store, vec![put("/t/bare/a", "1"), put("/t/bare/b", "2"), put("/t/barely", "3")]).await;
    let keys = Range { keys_only: true, ..Range::prefix(prefix) };
    let keys = store.range(keys).await.expect("reads");
    assert_eq!(show(&keys.kvs), ["/t/bare/a=", "/t/bare/b="]);
    let count = Range { count_only: true, ..Range::prefix(prefix) };
    let count = store.range(count).await.expect("reads");
    assert_eq!((count.count, count.kvs.len(), count.more), (2, 0, false));
    let none = store.range(Range::prefix("/t/nothing/")).await.expect("reads");
    assert_eq!((none.count, none.kvs.len(), none.more), (0, 0, false));
}

pub(super) async fn compaction_forgets_and_says_so(store: &dyn Storage) {
    let prefix = "/t/compact/";
    let one = commit(store, vec![put("/t/compact/a", "1"), put("/t/compact/b", "1")]).await.revision;
    let two = commit(store, vec![put("/t/compact/a", "2"), delete("/t/compact/b")]).await.revision;
    let three = commit(store, vec![put("/t/compact/a", "3")]).await.revision;
    store.compact(two).await.expect("compacts");
    let gone = read_at(store, prefix, one).await;
    assert!(matches!(gone, Err(Error::Compacted { .. })), "{gone:?}");
    let at_two = read_at(store, prefix, two).await.expect("the compacted revision itself is readable");
    assert_eq!(show(&at_two.kvs), ["/t/compact/a=2"]);
    let now = read_at(store, prefix, 0).await.expect("reads");
    assert_eq!(show(&now.kvs), ["/t/compact/a=3"]);
    let again = store.compact(two).await;
    assert!(matches!(again, Err(Error::Compacted { .. })), "{again:?}");
    let future = store.compact(three + 1000).await;
    assert!(matches!(future, Err(Error::Future { .. })), "{future:?}");
    // A watch from before is refused, when it is made or with its first message.
    let refused = match store.watch(prefix, one - 1).await {
        Err(error) => error,
        Ok(mut watch) => {
            let first = tokio::time::timeout(PATIENCE, watch.next()).await.expect("answers in time");
            first.expect("says why").expect_err("is refused")
        }
    };
    assert!(matches!(refused, Error::Compacted { .. }), "{refused:?}");
    let mut watch = store.watch(prefix, two).await.expect("watches from the compacted revision");
    assert_eq!(super::next_batch(&mut watch).await.revision, three);
}
