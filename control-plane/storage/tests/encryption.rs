//! Encryption at rest over the embedded engine.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use skep_storage::embedded::{Embedded, Options};
use skep_storage::encryption::Config;
use skep_storage::{Change, Encrypted, Error, Op, Range, Storage, TxnRequest, WatchMessage};

const PLAIN: &[u8] = b"{\"kind\":\"Secret\"}";
const SECRET: &str = "/registry/secrets/default/a";
const MAP: &str = "/registry/configmaps/default/a";

/// Keys of 32 bytes, told apart by their last.
fn keys(provider: &str, names: &[(&str, u8)]) -> String {
    use std::fmt::Write;
    let mut text = format!("  - {provider}:\n      keys:\n");
    for (name, last) in names {
        let mut secret = [7; 32];
        secret[31] = *last;
        let secret = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, secret);
        writeln!(text, "      - {{name: {name}, secret: {secret}}}").expect("writes");
    }
    text
}

fn config(providers: &[String]) -> Config {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: \
         [secrets]\n  providers:\n{}",
        providers.concat()
    );
    Config::parse(&text).expect("a configuration")
}

fn identity() -> String {
    "  - identity: {}\n".to_owned()
}

async fn open(inner: &Arc<Embedded>, config: Config) -> Result<Arc<Encrypted>, Error> {
    let inner: Arc<dyn Storage> = inner.clone();
    Encrypted::open(inner, config, ["secrets".to_owned(), "configmaps".to_owned()]).await
}

async fn put(store: &dyn Storage, key: &str, value: &'static [u8]) {
    let op = Op::Put { key: key.to_owned(), value: Bytes::from_static(value), lease: 0 };
    let request = TxnRequest { success: vec![op], ..TxnRequest::default() };
    assert!(store.txn(request).await.expect("writes").succeeded);
}

async fn get(store: &dyn Storage, key: &str) -> Bytes {
    store.range(Range::key(key)).await.expect("reads").kvs.remove(0).value
}

#[tokio::test]
async fn values_are_sealed_below_and_clear_above() {
    let folder = tempfile::tempdir().expect("a folder");
    let inner = Embedded::open(folder.path().join("store.redb"), Options::default()).await.expect("opens");
    for provider in ["aesgcm", "aescbc", "secretbox"] {
        let store = open(&inner, config(&[keys(provider, &[("k1", 1)])])).await.expect("opens");
        let mut watch = store.watch("/registry/", 0).await.expect("watches");
        put(&*store, SECRET, PLAIN).await;
        put(&*store, MAP, PLAIN).await;
        assert_eq!(get(&*store, SECRET).await, PLAIN);
        let below = get(&*inner, SECRET).await;
        assert!(below.starts_with(format!("k8s:enc:{provider}:v1:k1:").as_bytes()), "{provider}");
        assert!(!below.windows(6).any(|window| window == b"Secret"));
        assert_eq!(get(&*inner, MAP).await, PLAIN, "what is not asked for stays as it is");
        let message = loop {
            match watch.next().await.expect("a message").expect("no error") {
                WatchMessage::Batch(batch) => break batch,
                WatchMessage::Progress(_) => {}
            }
        };
        let Some(Change::Put { kv, .. }) = message.changes.first() else { panic!("{message:?}") };
        assert_eq!(kv.value, PLAIN);
        let op = Op::Delete { key: SECRET.to_owned() };
        let request = TxnRequest { success: vec![op], ..TxnRequest::default() };
        store.txn(request).await.expect("deletes");
    }
}

#[tokio::test]
async fn keys_are_rotated_and_old_values_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let inner = Embedded::open(folder.path().join("store.redb"), Options::default()).await.expect("opens");
    put(&*inner, SECRET, PLAIN).await;
    // Clear text is read as long as identity is among the providers, and is stale.
    let first = open(&inner, config(&[keys("aesgcm", &[("k1", 1)]), identity()])).await.expect("opens");
    assert!(first.is_stale(SECRET));
    put(&*first, SECRET, PLAIN).await;
    get(&*first, SECRET).await;
    let mut watch = first.watch("/registry/", 0).await.expect("watches");
    put(&*first, SECRET, PLAIN).await;
    while !matches!(watch.next().await, Some(Ok(WatchMessage::Batch(_)))) {}
    assert!(!first.is_stale(SECRET), "the watch has seen it written anew");
    // A second key in front: the first one still reads.
    first.reload(config(&[keys("aesgcm", &[("k2", 2), ("k1", 1)])])).await.expect("reloads");
    assert!(first.is_stale(SECRET));
    assert_eq!(get(&*first, SECRET).await, PLAIN);
    // Taken away too early.
    let refused = first.reload(config(&[keys("aesgcm", &[("k2", 2)])])).await.expect_err("refused");
    assert!(refused.to_string().contains("k8s:enc:aesgcm:v1:k1, which is not configured"), "{refused}");
    assert_eq!(get(&*first, SECRET).await, PLAIN, "what was before stays");
    put(&*first, SECRET, PLAIN).await;
    first.reload(config(&[keys("aesgcm", &[("k2", 2)])])).await.expect("now it can go");
    assert_eq!(first.stale_values(), 0);
}

#[tokio::test]
async fn a_wrong_key_and_a_moved_value_are_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let inner = Embedded::open(folder.path().join("store.redb"), Options::default()).await.expect("opens");
    let store = open(&inner, config(&[keys("aesgcm", &[("k1", 1)])])).await.expect("opens");
    put(&*store, SECRET, PLAIN).await;
    let wrong = open(&inner, config(&[keys("aesgcm", &[("k1", 2)])])).await.err().expect("refused");
    assert!(wrong.to_string().contains("does not open it"), "{wrong}");
    let none = open(&inner, config(&[identity()])).await.err().expect("refused");
    assert!(matches!(none, Error::Sealed { .. }), "{none}");
    let sealed = get(&*inner, SECRET).await;
    let op = Op::Put { key: "/registry/secrets/default/b".to_owned(), value: sealed, lease: 0 };
    inner.txn(TxnRequest { success: vec![op], ..TxnRequest::default() }).await.expect("writes");
    let moved = store.range(Range::key("/registry/secrets/default/b")).await.expect_err("refused");
    assert!(matches!(moved, Error::Sealed { .. }), "{moved}");
}

#[test]
fn configurations_that_say_nothing_good_are_refused() {
    let header = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n";
    for (rest, why) in [
        ("resources: [{resources: [secrets], providers: [{kms: {name: x}}]}]", "KMSv1 is deprecated"),
        ("resources: [{resources: [secrets], providers: []}]", "no provider"),
        ("resources: [{resources: ['*'], providers: [{identity: {}}]}]", "names no resource"),
        (
            "resources: [{resources: [secrets], providers: [{aesgcm: {keys: [{name: a, secret: AAAA}]}}]}]",
            "bytes",
        ),
        (
            "resources: [{resources: [secrets], providers: [{aesgcm: {keys: [{name: a, secret: '!'}]}}]}]",
            "base64",
        ),
        (
            "resources: [{resources: [secrets], providers: [{identity: {}, aescbc: {keys: []}}]}]",
            "exactly one",
        ),
    ] {
        let error = Config::parse(&format!("{header}{rest}")).expect_err(rest);
        assert!(error.to_string().contains(why), "{rest}: {error}");
    }
    assert!(Config::parse("kind: Pod\napiVersion: v1\n").is_err());
}
