//! Lists and watches of what the caches no longer have (or never had: the time before this server
//! started), out of the store, as long as the store remembers.

use std::sync::Arc;

use skep_api::error::{ApiError, Reason};
use skep_storage::{Error, Range, Revision};

use super::{Registry, Resource, storage_error};
use crate::cache::{
    At, Filter, List, ListOptions, Object, Plan, Replay, Token, Watch, WatchOptions, expired, expired_page,
    parse,
};

/// Objects read in one go.
const PAGE: usize = 1000;

/// One key after another, in the order of the caches.
struct Reader<'a> {
    registry: &'a Registry,
    resource: &'a Resource,
    range: Range,
    pairs: std::vec::IntoIter<skep_storage::KeyValue>,
    more: bool,
    /// Pairs of the range that are not taken yet.
    left: u64,
}

impl Reader<'_> {
    async fn next(&mut self) -> Result<Option<Arc<Object>>, Error> {
        loop {
            if let Some(pair) = self.pairs.next() {
                self.left = self.left.saturating_sub(1);
                let prepare = self.resource.cache().prepare();
                if let Some(object) = prepare.and_then(|prepare| parse(&pair, prepare)) {
                    return Ok(Some(Arc::new(object)));
                }
                continue;
            }
            if !self.more {
                return Ok(None);
            }
            let page = self.registry.storage.range(self.range.clone()).await?;
            self.more = page.more;
            self.left = page.count;
            if let Some(last) = page.kvs.last() {
                self.range.start = after(&last.key);
            }
            self.pairs = page.kvs.into_iter();
        }
    }
}

/// The smallest key after this one.
fn after(key: &str) -> String {
    format!("{key}\u{1}")
}

impl Registry {
    /// A page out of the cache, or out of the store where the cache does not reach back so far.
    pub(super) async fn cached_list(
        &self,
        resource: &Resource,
        plan: &Plan,
        options: &ListOptions,
    ) -> Result<List, ApiError> {
        match (resource.cache().list(plan, options), &plan.at) {
            (Err(error), At::Exactly(revision)) if error.reason == Reason::Expired => {
                self.list_past(resource, *revision, plan.after.as_deref(), options).await
            }
            (list, _) => list,
        }
    }

    /// A watch on the cache, its past out of the store where the cache does not reach back so far.
    pub(super) async fn cached_watch(
        &self,
        resource: &Resource,
        options: &WatchOptions,
    ) -> Result<Watch, ApiError> {
        match (resource.cache().watch(options), options.resource_version) {
            (Err(error), Some(revision)) if error.reason == Reason::Expired => {
                self.watch_past(resource, revision, options).await
            }
            (watch, _) => watch,
        }
    }

    /// A page of a collection as it was at `revision`, beginning after the key `from`.
    async fn list_past(
        &self,
        resource: &Resource,
        revision: Revision,
        from: Option<&str>,
        options: &ListOptions,
    ) -> Result<List, ApiError> {
        self.read_past(resource, revision, from, options).await.map_err(|error| match (&error, from) {
            (Error::Compacted { .. }, Some(from)) => expired_page(from),
            (Error::Compacted { asked, oldest }, None) => expired(*asked, *oldest),
            _ => storage_error(&error),
        })
    }

    async fn read_past(
        &self,
        resource: &Resource,
        revision: Revision,
        from: Option<&str>,
        options: &ListOptions,
    ) -> Result<List, Error> {
        let prefix = resource.key_prefix(options.filter.namespace.as_deref());
        let mut range = Range { limit: PAGE, revision, ..Range::prefix(prefix) };
        if let Some(from) = from {
            // A token of another namespace begins before or after everything here.
            range.start = after(&resource.key("", from)).max(range.start);
        }
        if range.start >= range.end {
            return Ok(List { items: Vec::new(), revision, continue_token: String::new(), remaining: None });
        }
        let pairs = Vec::new().into_iter();
        let mut reader = Reader { registry: self, resource, range, pairs, more: true, left: 0 };
        let mut items: Vec<Arc<Object>> = Vec::new();
        while let Some(object) = reader.next().await? {
            if !options.filter.matches(&object) {
                continue;
            }
            if options.limit > 0 && items.len() == options.limit {
                let last = items.last().map(|object| object.key()).unwrap_or_default();
                let remaining = options.filter.has_no_selector().then_some(reader.left + 1);
                let remaining = remaining.and_then(|left| usize::try_from(left).ok());
                let continue_token = Token::new(revision, last).encode();
                return Ok(List { items, revision, continue_token, remaining });
            }
            items.push(object);
        }
        Ok(List { items, revision, continue_token: String::new(), remaining: None })
    }

    /// A watch that begins after `revision`, which the cache does not know any more.
    async fn watch_past(
        &self,
        resource: &Resource,
        revision: Revision,
        options: &WatchOptions,
    ) -> Result<Watch, ApiError> {
        let prefix = resource.key_prefix(options.filter.namespace.as_deref());
        // Not every store tells a watch at once that its past is gone; a read does.
        let probe = Range { limit: 1, keys_only: true, revision, ..Range::prefix(prefix.clone()) };
        let open = async {
            self.storage.range(probe).await?;
            self.storage.watch(&prefix, revision).await
        };
        let stream = open.await.map_err(|error| match error {
            Error::Compacted { asked, oldest } => expired(asked, oldest),
            error => storage_error(&error),
        })?;
        let Some(prepare) = resource.cache().prepare() else {
            return Err(ApiError::service_unavailable("the resource is not served yet"));
        };
        let replay = Replay::new(stream, prepare.clone(), Filter::clone(&options.filter), revision);
        let watch = resource.cache().watch_after(replay, options);
        if let Err(error) = self.storage.request_progress().await {
            tracing::debug!(%error, "the store was not asked for its progress");
        }
        Ok(watch)
    }
}
