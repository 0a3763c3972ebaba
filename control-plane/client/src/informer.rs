//! List and watch kept in memory. One task per informer: it lists, watches from there, lists again
//! when the server no longer has the revision, and reports every change as an old/new pair.
//!
//! Invariants: callbacks run in order, after the store shows the change; an object deleted and
//! made anew under the same name while the watch was away is reported as two changes (gone, come),
//! never as an update; `synced` comes after the callbacks of the first list.

mod store;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Api;
use crate::error::{Error, Result};
use crate::kind::{Identity, Kept, Stored};
use crate::params::{ListParams, WatchParams};
use crate::retry::Backoff;
use crate::watch::WatchEvent;
pub use store::Store;
use store::{Change, Writer};

/// Objects a chunk when a list is long.
const CHUNK: u32 = 5_000;
/// Watches end by themselves after this long, a little spread so that they do not end together.
const WATCH_SECONDS: std::ops::Range<u32> = 300..600;

type Callback<P> = Box<dyn Fn(Option<&Arc<P>>, Option<&Arc<P>>) + Send + Sync>;

/// A list + watch to be started: of objects `K`, of which `P` is kept.
pub struct Informer<K, P = K> {
    api: Api<K>,
    params: ListParams,
    project: Box<dyn Fn(K) -> P + Send + Sync>,
    callbacks: Vec<Callback<P>>,
    writer: Writer<P>,
}

impl<K: Stored> Informer<K> {
    /// Of the objects that `params` selects (its limit and revision are not used).
    pub fn new(api: Api<K>, params: ListParams) -> Self {
        Self { api, params, project: Box::new(|object| object), callbacks: Vec::new(), writer: Writer::new() }
    }

    /// Keeps a part of each object only. To be called before anything else.
    #[must_use]
    pub fn project<P: Kept>(self, project: impl Fn(K) -> P + Send + Sync + 'static) -> Informer<K, P> {
        let Self { api, params, .. } = self;
        Informer { api, params, project: Box::new(project), callbacks: Vec::new(), writer: Writer::new() }
    }
}

impl<K: Stored, P: Kept> Informer<K, P> {
    /// Calls back for each change as `(old, new)`; one of them is `None` for a coming or a going.
    /// Callbacks must be quick: they hold up the watch.
    #[must_use]
    pub fn on_change<F>(mut self, callback: F) -> Self
    where
        F: Fn(Option<&Arc<P>>, Option<&Arc<P>>) + Send + Sync + 'static,
    {
        self.add_callback(callback);
        self
    }

    /// Like `on_change`, for an informer several parties share before it is started.
    pub fn add_callback<F>(&mut self, callback: F)
    where
        F: Fn(Option<&Arc<P>>, Option<&Arc<P>>) + Send + Sync + 'static,
    {
        self.callbacks.push(Box::new(callback));
    }

    /// Keeps an index: `Store::indexed(key)` gives the objects for which `keys` holds that key.
    #[must_use]
    pub fn index_by(mut self, keys: impl Fn(&P) -> Vec<String> + Send + Sync + 'static) -> Self {
        self.writer.set_index(keys);
        self
    }

    /// The store it will fill. Callbacks that want to look at the store can capture it.
    pub fn store(&self) -> Store<P> {
        self.writer.store()
    }

    /// Starts the task.
    pub fn spawn(self, tracker: &TaskTracker, cancel: CancellationToken) -> Store<P> {
        let store = self.store();
        tracker.spawn(async move {
            // Cancel-safe: all state dies with the task.
            cancel.run_until_cancelled(self.run()).await;
        });
        store
    }

    async fn run(mut self) {
        let mut backoff = fresh_backoff();
        let mut revision: Option<String> = None;
        loop {
            let from = match revision.take() {
                Some(from) => from,
                None => match self.relist().await {
                    Ok(from) => {
                        self.writer.set_synced();
                        from
                    }
                    Err(error) => {
                        tracing::warn!(resource = %self.api.resource(), %error, "cannot list");
                        backoff.pause().await;
                        continue;
                    }
                },
            };
            let mut at = from.clone();
            match self.follow(&mut at).await {
                Ok(()) => revision = Some(at.clone()),
                Err(error) if error.is_expired() => {
                    tracing::debug!(resource = %self.api.resource(), %error, "listing again");
                }
                Err(error @ (Error::Decode { .. } | Error::TooLarge(_))) => {
                    // What could not be read may be lost: only a list shows the truth.
                    tracing::warn!(resource = %self.api.resource(), %error, "listing again");
                    backoff.pause().await;
                }
                Err(error) => {
                    tracing::debug!(resource = %self.api.resource(), %error, "watch broke");
                    revision = Some(at.clone());
                    backoff.pause().await;
                }
            }
            if at == from {
                // A watch that ends at once without a change must not spin.
                backoff.pause().await;
            } else {
                backoff = fresh_backoff();
            }
        }
    }

    async fn relist(&mut self) -> Result<String> {
        let mut params = ListParams { limit: Some(CHUNK), resource_version: None, ..self.params.clone() };
        let mut items: Vec<Arc<P>> = Vec::new();
        let revision = loop {
            let chunk = self.api.list(&params).await?;
            items.extend(chunk.items.into_iter().map(|item| Arc::new((self.project)(item))));
            match chunk.metadata.continue_ {
                Some(token) if !token.is_empty() => params.continue_token = Some(token),
                _ => break chunk.metadata.resource_version.unwrap_or_default(),
            }
        };
        let gone: Vec<(String, String)> = {
            let listed: HashSet<(&str, &str)> = items
                .iter()
                .map(|item| item.identity())
                .map(|identity| (identity.namespace, identity.name))
                .collect();
            let is_gone = |(namespace, name): &(String, String)| !listed.contains(&(namespace, name));
            self.writer.keys().into_iter().filter(is_gone).collect()
        };
        for (namespace, name) in gone {
            let changes = self.writer.remove(&namespace, &name);
            self.report(&changes);
        }
        for item in items {
            let changes = self.writer.put(item);
            self.report(&changes);
        }
        self.writer.set_revision(&revision);
        self.writer.bump();
        Ok(revision)
    }

    async fn follow(&mut self, at: &mut String) -> Result<()> {
        let params = WatchParams {
            label_selector: self.params.label_selector.clone(),
            field_selector: self.params.field_selector.clone(),
            resource_version: Some(at.clone()),
            timeout_seconds: Some(rand::random_range(WATCH_SECONDS)),
            bookmarks: true,
            send_initial_events: false,
        };
        // The server ends the watch; a connection that stays silent past that is dead.
        let longest = Duration::from_secs(u64::from(WATCH_SECONDS.end) + 60);
        let stream = self.api.watch(&params).await?;
        pin_mut!(stream);
        let end = tokio::time::sleep(longest);
        pin_mut!(end);
        loop {
            // Cancel-safe: a stream's `next` loses nothing when dropped.
            let event = tokio::select! {
                event = stream.next() => event,
                () = &mut end => return Ok(()),
            };
            let Some(event) = event.transpose()? else { return Ok(()) };
            let (revision, changes) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let revision = object.meta().resource_version.clone();
                    (revision, self.writer.put(Arc::new((self.project)(object))))
                }
                WatchEvent::Deleted(object) => {
                    let Identity { namespace, name, .. } = object.identity();
                    (object.meta().resource_version.clone(), self.writer.remove(namespace, name))
                }
                WatchEvent::Bookmark { resource_version, .. } => (Some(resource_version), Vec::new()),
            };
            if let Some(revision) = revision.filter(|r| !r.is_empty()) {
                self.writer.set_revision(&revision);
                *at = revision;
            }
            if !changes.is_empty() {
                self.report(&changes);
                self.writer.bump();
            }
        }
    }

    fn report(&self, changes: &[Change<P>]) {
        for (old, new) in changes {
            for callback in &self.callbacks {
                callback(old.as_ref(), new.as_ref());
            }
        }
    }
}

fn fresh_backoff() -> Backoff {
    Backoff::endless(Duration::from_millis(50), Duration::from_secs(15))
}
