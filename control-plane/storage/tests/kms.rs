//! Encryption with a KMS plug-in: a real gRPC server on a Unix socket, over the embedded engine.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use skep_storage::embedded::{Embedded, Options};
use skep_storage::encryption::Config;
use skep_storage::{Encrypted, Error, Op, Range, Storage, TxnRequest, WatchMessage};

use plugin::Plugin;

mod plugin;

const PLAIN: &[u8] = b"{\"kind\":\"Secret\"}";

fn secret(name: &str) -> String {
    format!("/registry/secrets/default/{name}")
}

fn config(plugin: &Plugin, more: &str) -> Config {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  \
         providers: [{{kms: {{apiVersion: v2, name: test, endpoint: 'unix://{}', timeout: 1s}}}}{more}]\n",
        plugin.socket().display()
    );
    Config::parse(&text).expect("a configuration")
}

async fn open(inner: &Arc<Embedded>, config: Config) -> Result<Arc<Encrypted>, Error> {
    let inner: Arc<dyn Storage> = inner.clone();
    Encrypted::open(inner, config, ["secrets".to_owned(), "pods".to_owned()]).await
}

async fn embedded(folder: &tempfile::TempDir) -> Arc<Embedded> {
    Embedded::open(folder.path().join("store.redb"), Options::default()).await.expect("opens")
}

async fn put(store: &dyn Storage, key: &str) -> Result<(), Error> {
    let op = Op::Put { key: key.to_owned(), value: Bytes::from_static(PLAIN), lease: 0 };
    store.txn(TxnRequest { success: vec![op], ..TxnRequest::default() }).await.map(|_| ())
}

async fn get(store: &dyn Storage, key: &str) -> Result<Bytes, Error> {
    Ok(store.range(Range::key(key)).await?.kvs.remove(0).value)
}

#[tokio::test]
async fn one_seed_writes_many_values_and_its_plug_in_is_asked_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let plugin = Plugin::start(&folder.path().join("kms.sock")).await;
    let inner = embedded(&folder).await;
    let store = open(&inner, config(&plugin, "")).await.expect("opens");
    for name in ["a", "b", "c"] {
        put(&*store, &secret(name)).await.expect("writes");
    }
    assert_eq!(get(&*store, &secret("b")).await.expect("reads"), PLAIN);
    let below = get(&*inner, &secret("a")).await.expect("reads");
    assert!(below.starts_with(b"k8s:enc:kms:v2:test:"));
    assert!(!below.windows(6).any(|window| window == b"Secret"));
    assert_eq!(plugin.calls(), HashMap::from([("Status", 1), ("Encrypt", 1)]));
    // Another server, or this one after a restart, has another seed: it asks for the first one once.
    let again = open(&inner, config(&plugin, "")).await.expect("opens");
    for name in ["a", "b", "c"] {
        assert_eq!(get(&*again, &secret(name)).await.expect("reads"), PLAIN);
        assert!(!again.is_stale(&secret(name)), "the key of the seeds is the same");
    }
    assert_eq!(plugin.calls()["Decrypt"], 1);
    // Moved elsewhere, a value does not open.
    let op = Op::Put { key: secret("moved"), value: below, lease: 0 };
    inner.txn(TxnRequest { success: vec![op], ..TxnRequest::default() }).await.expect("writes");
    let moved = get(&*store, &secret("moved")).await.expect_err("refused");
    assert!(matches!(moved, Error::Sealed { .. }), "{moved}");
}

#[tokio::test]
async fn another_key_makes_another_seed_and_old_values_stale() {
    let folder = tempfile::tempdir().expect("a folder");
    let plugin = Plugin::start(&folder.path().join("kms.sock")).await;
    let inner = embedded(&folder).await;
    let store = open(&inner, config(&plugin, "")).await.expect("opens");
    let mut watch = store.watch("/registry/", 0).await.expect("watches");
    put(&*store, &secret("a")).await.expect("writes");
    plugin.rotate("key-2");
    // What keeps the keys looks at once when it begins.
    let keeper = tokio::spawn(Arc::clone(&store).keep());
    let turned = async {
        while !store.is_stale(&secret("a")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), turned).await.expect("the value is stale in time");
    keeper.abort();
    assert_eq!(get(&*store, &secret("a")).await.expect("reads"), PLAIN, "the old seed still reads");
    put(&*store, &secret("a")).await.expect("writes");
    let mut batches = 0;
    while batches < 2 {
        match watch.next().await.expect("it goes on").expect("no error") {
            WatchMessage::Batch(_) => batches += 1,
            WatchMessage::Progress(_) => {}
        }
    }
    assert!(!store.is_stale(&secret("a")), "the watch has seen it written anew");
    let below = get(&*inner, &secret("a")).await.expect("reads");
    assert!(below.windows(5).any(|window| window == b"key-2"), "the key's name is stored");
    assert_eq!(plugin.calls()["Encrypt"], 2);
}

#[tokio::test]
async fn a_plug_in_that_lies_or_is_unwell_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let plugin = Plugin::start(&folder.path().join("kms.sock")).await;
    let inner = embedded(&folder).await;
    plugin.change(|state| state.healthz = "on fire".to_owned());
    let store = open(&inner, config(&plugin, "")).await.expect("opens");
    let why = store.health().await.expect_err("unwell");
    assert_eq!(
        why,
        "kms-provider-0: kmsv2 Provider test is not healthy, error: got unexpected healthz status: on fire"
    );
    for (change, why) in [
        (
            Box::new(|state: &mut plugin::State| state.version = "v1".to_owned())
                as Box<dyn Fn(&mut plugin::State)>,
            "expected KMSv2 API version v2, got v1",
        ),
        (Box::new(|state| state.key = String::new()), "keyID is empty"),
        (Box::new(|state| state.key = "k".repeat(1025)), "keyID is 1025 bytes"),
        (
            Box::new(|state| state.encrypts_with = Some("other".to_owned())),
            "is not the one that the status names",
        ),
        (Box::new(|state| state.annotation = "no-domain".to_owned()), "no fully qualified domain name"),
        (Box::new(|state| state.fails = true), "the test says no"),
        (Box::new(|state| state.slow = Duration::from_secs(5)), "took longer than 1s"),
    ] {
        plugin.change(|state| {
            *state = plugin::State::default();
            change(state);
        });
        let config = config(&plugin, "");
        let fresh = open(&inner, config).await.expect("opens");
        let error = fresh.health().await.expect_err(why);
        assert!(error.contains(why), "{error}");
        let write = put(&*fresh, &secret("x")).await;
        // A wrong version or health leaves the key as it is.
        assert_eq!(write.is_err(), !error.contains("API version"), "{error}: {write:?}");
    }
}

#[tokio::test]
async fn a_plug_in_may_come_late_and_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("kms.sock");
    let plugin = Plugin::start(&socket).await;
    let inner = embedded(&folder).await;
    let first = open(&inner, config(&plugin, "")).await.expect("opens");
    put(&*first, "/registry/pods/default/a").await.expect("writes");
    let before = first.current_revision().await.expect("a revision");
    put(&*first, &secret("a")).await.expect("writes");
    let state = plugin.stop().await;
    // Without it a server starts, but can neither read nor write what is encrypted.
    let store = open(&inner, config(&Plugin::absent(&socket), "")).await.expect("opens");
    assert!(matches!(get(&*store, &secret("a")).await, Err(Error::Keys(_))));
    assert!(matches!(put(&*store, &secret("b")).await, Err(Error::Sealed { .. })));
    assert!(store.health().await.is_err());
    // A watch that comes to such a value breaks; opened again it tells the same.
    let mut watch = store.watch("/registry/", before).await.expect("watches");
    let broken = loop {
        match watch.next().await {
            Some(Ok(WatchMessage::Progress(_))) => {}
            other => break other,
        }
    };
    assert!(matches!(broken, Some(Err(Error::Keys(_)))), "{broken:?}");
    let plugin = Plugin::start_with(&socket, state).await;
    assert_eq!(get(&*store, &secret("a")).await.expect("reads"), PLAIN);
    // While it answers, and for three minutes more, there is a seed to write with.
    let keeper = tokio::spawn(Arc::clone(&store).keep());
    let written = async {
        while put(&*store, &secret("b")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), written).await.expect("written in time");
    keeper.abort();
    plugin.stop().await;
    put(&*store, &secret("c")).await.expect("writes while the seed lives");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(181)).await;
    let late = put(&*store, &secret("d")).await.expect_err("refused");
    assert!(late.to_string().contains("has not answered for too long to write"), "{late}");
    assert_eq!(get(&*store, &secret("c")).await.expect("reads"), PLAIN, "known seeds read without end");
}

#[tokio::test]
async fn a_reload_keeps_the_plug_in_and_wants_a_new_one_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let plugin = Plugin::start(&folder.path().join("kms.sock")).await;
    let inner = embedded(&folder).await;
    put(&*inner, &secret("old")).await.expect("writes");
    let store = open(&inner, config(&plugin, ", {identity: {}}")).await.expect("opens");
    assert!(store.is_stale(&secret("old")), "it is in the clear");
    put(&*store, &secret("old")).await.expect("writes");
    store.reload(config(&plugin, "")).await.expect("reloads");
    assert_eq!(store.stale_values(), 0);
    assert_eq!(plugin.calls(), HashMap::from([("Status", 1), ("Encrypt", 1)]), "it is the same plug-in");
    let absent = Plugin::absent(&folder.path().join("none.sock"));
    let refused = store.reload(config(&absent, "")).await.expect_err("refused");
    assert!(matches!(refused, Error::Keys(_)), "{refused}");
    assert_eq!(get(&*store, &secret("old")).await.expect("reads"), PLAIN, "what was before stays");
}

#[test]
fn configurations_that_say_nothing_good_are_refused() {
    let header = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n";
    let good = "apiVersion: v2, name: a, endpoint: 'unix:///s'";
    for (kms, why) in [
        ("{name: a, endpoint: 'unix:///s'}".to_owned(), "KMSv1 is deprecated"),
        ("{apiVersion: v1, name: a, endpoint: 'unix:///s'}".to_owned(), "KMSv1 is deprecated"),
        ("{apiVersion: v3, name: a, endpoint: 'unix:///s'}".to_owned(), "only v1 and v2 are supported"),
        ("{apiVersion: v2, endpoint: 'unix:///s'}".to_owned(), "name is a mandatory field for a provider"),
        ("{apiVersion: v2, name: 'a:b', endpoint: 'unix:///s'}".to_owned(), "must not contain ':'"),
        ("{apiVersion: v2, name: a}".to_owned(), "endpoint is a mandatory field for a kms"),
        ("{apiVersion: v2, name: a, endpoint: 'tcp://x'}".to_owned(), "only unix is supported"),
        (format!("{{{good}, timeout: 0s}}"), "timeout should be a positive value"),
        (format!("{{{good}, cachesize: 5}}"), "cachesize is not supported in v2"),
        (format!("{{{good}}}}}, {{kms: {{{good}}}"), "duplicate KMS provider name a"),
    ] {
        let text = format!("{header}resources: [{{resources: [secrets], providers: [{{kms: {kms}}}]}}]");
        let error = Config::parse(&text).expect_err(&kms);
        assert!(error.to_string().contains(why), "{kms}: {error}");
    }
}
