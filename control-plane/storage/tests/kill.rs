//! What was acknowledged survives `kill -9`.
//!
//! The test starts itself again as a child that writes keys and says each on its standard output once
//! the store has acknowledged it; the parent kills it at some moment and opens the store.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use skep_storage::embedded::{Embedded, Options};
use skep_storage::{Range, Storage};

use crate::conformance::{commit, put};

const STORE: &str = "SKEP_TEST_KILL_STORE";
const KEYS: usize = 1000;
const ROUNDS: usize = 4;

#[tokio::test]
async fn nothing_acknowledged_is_lost() {
    if let Ok(path) = std::env::var(STORE) {
        return write(&path).await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store.redb");
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        // Different moments: early, in the middle, never before the end.
        let enough = [37, 391, 803, KEYS][round];
        acknowledged += kill_after(&path, enough);
        let store = Embedded::open(&path, Options::default()).await.expect("opens after a kill");
        let found = store.range(Range::prefix("/key/")).await.expect("reads");
        assert!(found.count as usize >= acknowledged, "{} of {acknowledged} are left", found.count);
        let revisions: Vec<u64> = found.kvs.iter().map(|kv| kv.mod_revision).collect();
        assert_eq!(revisions.iter().max().copied(), Some(found.revision), "no revision without its write");
        acknowledged = found.kvs.len();
    }
}

/// Lets a child write until it has acknowledged this many keys, and kills it.
fn kill_after(path: &std::path::Path, enough: usize) -> usize {
    let mut child = Command::new(std::env::current_exe().expect("the test's own program"))
        .args(["--exact", "kill::nothing_acknowledged_is_lost", "--nocapture"])
        .env(STORE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let output = BufReader::new(child.stdout.take().expect("has an output"));
    let mut count = 0;
    for line in output.lines() {
        let line = line.expect("reads");
        if line.contains("acknowledged ") {
            count += 1;
        }
        if count == enough {
            child.kill().expect("kills");
        }
    }
    child.wait().expect("ends");
    assert!(count >= enough.min(KEYS), "the child wrote {count}");
    count
}

async fn write(path: &str) {
    let store = Embedded::open(path, Options::default()).await.expect("opens");
    let start = store.current_revision().await.expect("reads");
    for number in 0..KEYS {
        commit(&*store, vec![put(&format!("/key/{start}-{number}"), "value")]).await;
        println!("acknowledged {number}");
    }
}
