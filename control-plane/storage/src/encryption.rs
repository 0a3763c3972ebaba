//! Encryption of values at rest: a store over another one, which sees ciphertext only.
//!
//! Values carry the name of their key in a prefix, `k8s:enc:PROVIDER:v1:KEY:`, as upstream writes them.
//! The first key of the first provider of a resource writes; all of them read, so keys are rotated by
//! putting a new one in front. A value that another key wrote is *stale*: the next update writes it
//! again, even if nothing of it changed.
//!
//! A KMS plug-in is asked when a value's seed is not known yet, never for each value. While it is away,
//! what needs it waits or fails; a watch that comes to such a value breaks rather than leave it out.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::Notify;

use crate::api::{
    Batch, Change, Error, KeyValue, LeaseId, Op, OpResult, Range, RangeResult, Result, Revision, Storage,
    TxnRequest, TxnResult, WatchMessage, WatchStream,
};

use config::Found;
pub use config::{Config, ConfigError};
use kms::Needed;

mod cipher;
mod config;
mod envelope;
mod health;
mod kms;

/// Everything that is encrypted lies under this.
const PREFIX: &str = "/registry/";
/// So many values are looked at in one read when a configuration is checked.
const PAGE: usize = 500;

/// The store.
pub struct Encrypted {
    inner: Arc<dyn Storage>,
    state: Arc<State>,
    /// Told when a configuration has changed.
    changed: Notify,
}

struct State {
    config: ArcSwap<Config>,
    /// The resources of the core group: their keys name no group.
    core: HashSet<String>,
    /// Keys of values that another key than the first wrote.
    stale: Mutex<HashSet<String>>,
}

impl Encrypted {
    /// Encrypts what goes into `inner` from now on. Every value that is there is looked at: one that no
    /// key opens is an error. `core` are the resources of the core group.
    pub async fn open(
        inner: Arc<dyn Storage>,
        config: Config,
        core: impl IntoIterator<Item = String>,
    ) -> Result<Arc<Self>> {
        let state = State {
            config: ArcSwap::from_pointee(config),
            core: core.into_iter().collect(),
            stale: Mutex::default(),
        };
        let store = Arc::new(Self { inner, state: Arc::new(state), changed: Notify::new() });
        let config = store.state.config.load_full();
        for kms in config.plugins() {
            // It may start after us, even because of us.
            if let Err(error) = kms.health().await {
                tracing::warn!(
                    error,
                    "a KMS plug-in is not ready; what it encrypted can't be read until it is"
                );
            }
        }
        let stale = store.survey(&config).await?;
        *store.state.stale.lock().unwrap_or_else(PoisonError::into_inner) = stale;
        Ok(store)
    }

    /// Uses another configuration, if it opens everything that is stored and its KMS plug-ins answer.
    pub async fn reload(&self, mut config: Config) -> Result<()> {
        config.adopt(&self.state.config.load());
        for kms in config.plugins() {
            kms.health().await.map_err(Error::Keys)?;
        }
        let config = Arc::new(config);
        let stale = self.survey(&config).await?;
        self.state.config.store(config);
        *self.state.stale.lock().unwrap_or_else(PoisonError::into_inner) = stale;
        self.changed.notify_one();
        Ok(())
    }

    /// How many values another key than the first wrote.
    pub fn stale_values(&self) -> usize {
        self.state.stale.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Opens every value; the keys of those that are stale. Values whose KMS plug-in is away now are taken
    /// on trust.
    async fn survey(&self, config: &Config) -> Result<HashSet<String>> {
        let mut stale = HashSet::new();
        let mut range = Range { limit: PAGE, ..Range::prefix(PREFIX) };
        loop {
            let page = self.inner.range(range.clone()).await?;
            for pair in &page.kvs {
                match self.state.unseal(config, &pair.key, &pair.value).await {
                    Ok(opened) if opened.stale => _ = stale.insert(pair.key.clone()),
                    Ok(_) | Err(Error::Keys(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            let Some(last) = page.kvs.last().filter(|_| page.more) else { return Ok(stale) };
            range.start = format!("{}\0", last.key);
            range.revision = page.revision;
        }
    }
}

/// A value in the clear; `None` when it is stored as it is.
struct Opened {
    value: Option<Bytes>,
    stale: bool,
}

/// What a look at a value came to.
enum Looked {
    Open(Opened),
    /// A KMS plug-in must be asked first.
    Needs(Box<Needed>),
}

impl State {
    /// The group and resource of a key; `None` for what is no object of the API.
    fn resource<'a>(&self, key: &'a str) -> Option<(&'a str, &'a str)> {
        let rest = key.strip_prefix(PREFIX)?;
        let (first, rest) = rest.split_once('/')?;
        if self.core.contains(first) {
            return Some(("", first));
        }
        let (resource, _) = rest.split_once('/')?;
        Some((first, resource))
    }

    /// Opens a value, with what its KMS plug-in says where that must be asked.
    async fn unseal(&self, config: &Config, key: &str, value: &Bytes) -> Result<Opened> {
        let mut asked = false;
        loop {
            match self.look(config, key, value)? {
                Looked::Open(opened) => return Ok(opened),
                Looked::Needs(_) if asked => {
                    return Err(sealed(key, "its key is forgotten as soon as it is known".to_owned()));
                }
                Looked::Needs(needed) => needed.fetch().await.map_err(Error::Keys)?,
            }
            asked = true;
        }
    }

    fn look(&self, config: &Config, key: &str, value: &Bytes) -> Result<Looked> {
        let providers = self.resource(key).and_then(|(group, resource)| config.providers(group, resource));
        let Some(providers) = providers else {
            return match cipher::is_sealed(value) {
                true => Err(sealed(key, "it is encrypted, and no provider is configured for it".into())),
                false => Ok(Looked::Open(Opened { value: None, stale: false })),
            };
        };
        Ok(match providers.open(value, key.as_bytes()).map_err(|why| sealed(key, why))? {
            Found::Value(value, stale) => Looked::Open(Opened { value: value.map(Bytes::from), stale }),
            Found::Needs(needed) => Looked::Needs(needed),
        })
    }

    fn seal(&self, key: &str, value: Bytes) -> Result<Bytes> {
        let config = self.config.load();
        let providers = self.resource(key).and_then(|(group, resource)| config.providers(group, resource));
        let Some(providers) = providers else { return Ok(value) };
        let sealed = providers.seal(&value, key.as_bytes()).map_err(|why| sealed(key, why))?;
        Ok(sealed.map_or(value, Bytes::from))
    }

    async fn pair(&self, pair: &mut KeyValue) -> Result<()> {
        let config = self.config.load_full();
        let opened = self.unseal(&config, &pair.key, &pair.value).await?;
        if let Some(value) = opened.value {
            pair.value = value;
        }
        self.mark(&pair.key, opened.stale);
        Ok(())
    }

    fn mark(&self, key: &str, is_stale: bool) {
        let mut stale = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        if is_stale {
            stale.insert(key.to_owned());
        } else if !stale.is_empty() {
            stale.remove(key);
        }
    }

    async fn pairs(&self, result: &mut RangeResult) -> Result<()> {
        for pair in &mut result.kvs {
            self.old_pair(pair).await?;
        }
        Ok(())
    }

    /// A pair of the past says nothing about what is stored now.
    async fn old_pair(&self, pair: &mut KeyValue) -> Result<()> {
        // A read without values has nothing to open.
        if pair.value.is_empty() {
            return Ok(());
        }
        let config = self.config.load_full();
        if let Some(value) = self.unseal(&config, &pair.key, &pair.value).await?.value {
            pair.value = value;
        }
        Ok(())
    }

    fn ops(&self, ops: &mut [Op]) -> Result<()> {
        for op in ops {
            if let Op::Put { key, value, .. } = op {
                *value = self.seal(key, std::mem::take(value))?;
            }
        }
        Ok(())
    }

    async fn batch(&self, batch: &mut Batch) -> Result<()> {
        for change in &mut batch.changes {
            let previous = match change {
                Change::Put { kv, previous } => {
                    self.pair(kv).await?;
                    previous
                }
                Change::Delete { key, previous } => {
                    self.mark(key, false);
                    previous
                }
            };
            if let Some(pair) = previous {
                self.old_pair(pair).await?;
            }
        }
        Ok(())
    }
}

fn sealed(key: &str, why: String) -> Error {
    Error::Sealed { key: key.to_owned(), why }
}

#[async_trait]
impl Storage for Encrypted {
    async fn range(&self, range: Range) -> Result<RangeResult> {
        let mut found = self.inner.range(range).await?;
        self.state.pairs(&mut found).await?;
        Ok(found)
    }

    async fn txn(&self, mut request: TxnRequest) -> Result<TxnResult> {
        self.state.ops(&mut request.success)?;
        self.state.ops(&mut request.failure)?;
        let mut done = self.inner.txn(request).await?;
        for result in &mut done.results {
            match result {
                OpResult::Range(found) => self.state.pairs(found).await?,
                OpResult::Deleted(Some(pair)) => self.state.old_pair(pair).await?,
                OpResult::Put | OpResult::Deleted(None) => {}
            }
        }
        Ok(done)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        let state = Arc::clone(&self.state);
        let stream = self.inner.watch(prefix, after).await?;
        Ok(stream
            .then(move |message| {
                let state = Arc::clone(&state);
                async move {
                    match message {
                        Ok(WatchMessage::Batch(mut batch)) => {
                            state.batch(&mut batch).await?;
                            Ok(WatchMessage::Batch(batch))
                        }
                        other => other,
                    }
                }
            })
            .boxed())
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.inner.current_revision().await
    }

    async fn request_progress(&self) -> Result<()> {
        self.inner.request_progress().await
    }

    fn exact_progress(&self) -> bool {
        self.inner.exact_progress()
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.inner.compact(revision).await
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId> {
        self.inner.lease_grant(ttl).await
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<()> {
        self.inner.lease_keep_alive(lease).await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<()> {
        self.inner.lease_revoke(lease).await
    }

    fn is_stale(&self, key: &str) -> bool {
        self.state.stale.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }
}

/// Takes any bytes for a stored value and for a configuration: what a fuzzer calls.
pub fn fuzz(bytes: &[u8]) {
    drop(envelope::EncryptedObject::read(bytes));
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(Config::parse(text));
    }
    let seed = [7; envelope::SEED];
    if let Ok(source) = envelope::Source::new(envelope::DERIVED, &seed) {
        assert_eq!(source.open(bytes, b"/registry/secrets/a"), None, "nobody forges a value");
    }
}
