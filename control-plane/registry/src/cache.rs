//! The watch cache: every object of one resource in memory, with its recent history and its watchers.
//!
//! One task, the feed (`cache/feed.rs`), applies the changes of the store to the caches of all
//! resources in revision order; everybody else only reads. Invariants:
//! - a cache shows every change up to `max(progress, last)` and nothing later;
//! - a watcher gets each event after the revision it began at once and in order: the past comes out of
//!   the window and the future is subscribed to under one lock;
//! - a watcher that can't be served without a gap is ended, never skipped ahead.

mod feed;
mod filter;
mod list;
mod mailbox;
mod object;
mod replay;
mod token;
mod watch;
mod watchers;
mod window;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use skep_api::error::ApiError;
use skep_api::resource::GroupVersionKind;
use skep_storage::Revision;
use tokio::sync::watch::Receiver;

pub(crate) use feed::{Feed, FeedHandle, Progress, parse};
pub use filter::Filter;
pub(crate) use list::{At, Plan, expired_page, page_of, plan};
pub use list::{List, ListOptions, VersionMatch};
pub use object::Object;
pub(crate) use object::{object_key, set_resource_version};
pub(crate) use replay::Replay;
pub(crate) use token::Continue as Token;
pub use watch::{Watch, WatchItem, WatchOptions};
pub use watchers::Seen;
pub(crate) use watchers::Watchers;
pub(crate) use window::Window;
pub use window::{Event, EventType, json_frame};

/// How many events a resource remembers.
const WINDOW: usize = 16 * 1024;

/// And how many bytes of objects; older ones are read from the store.
const WINDOW_BYTES: usize = 64 << 20;

/// How long a read waits for the cache to reach a revision it was told of.
const CATCH_UP: Duration = Duration::from_secs(3);

/// Makes a cached object of a stored one: converts it where two kinds share a key, and says what field
/// selectors can see of it.
pub(crate) type Prepare = Arc<dyn Fn(serde_json::Value) -> (serde_json::Value, Fields) + Send + Sync>;

/// What field selectors see of an object: names and values.
pub type Fields = Vec<(Cow<'static, str>, String)>;

/// The cache of one resource.
pub struct Cache {
    kind: GroupVersionKind,
    state: RwLock<State>,
    progress: Receiver<Progress>,
    /// How its objects are made; set when the feed takes it up.
    prepare: OnceLock<Prepare>,
}

struct State {
    objects: BTreeMap<String, Arc<Object>>,
    window: Window,
    watchers: Watchers,
    /// The revision of the newest change applied here.
    last: Revision,
    /// The stored size of all objects.
    bytes: usize,
}

/// How much there is of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Objects.
    pub count: usize,
    /// Bytes of their stored forms.
    pub bytes: usize,
    /// Watches that every change is tried against.
    pub watchers: usize,
}

impl Cache {
    /// An empty cache; it is filled by the feed.
    pub(crate) fn new(kind: GroupVersionKind, progress: Receiver<Progress>) -> Self {
        let state = State {
            objects: BTreeMap::new(),
            window: Window::new(Revision::MAX, WINDOW, WINDOW_BYTES),
            watchers: Watchers::default(),
            last: 0,
            bytes: 0,
        };
        Self { kind, state: RwLock::new(state), progress, prepare: OnceLock::new() }
    }

    /// How objects are made of what is stored; the first word counts.
    pub(crate) fn set_prepare(&self, prepare: &Prepare) {
        self.prepare.get_or_init(|| prepare.clone());
    }

    /// How objects are made of what is stored; `None` before the feed has taken it up.
    pub(crate) fn prepare(&self) -> Option<&Prepare> {
        self.prepare.get()
    }

    /// The kind of the objects.
    pub fn kind(&self) -> &GroupVersionKind {
        &self.kind
    }

    /// One object as the cache knows it now.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.read().objects.get(&object_key(namespace, name)).cloned()
    }

    /// Every object that passes the filter, as the cache knows them now.
    pub fn snapshot(&self, filter: &Filter) -> Vec<Arc<Object>> {
        let options = ListOptions { filter: filter.clone(), ..ListOptions::default() };
        list::page(&self.read().objects, &options, None, 0).items
    }

    /// The revision of the newest change.
    pub fn last(&self) -> Revision {
        self.read().last
    }

    /// How much there is.
    pub fn amount(&self) -> Amount {
        let state = self.read();
        Amount { count: state.objects.len(), bytes: state.bytes, watchers: state.watchers.unfiled() }
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.read().objects.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many watches are open.
    pub fn watchers(&self) -> usize {
        self.read().watchers.len()
    }

    /// Reads a page. `plan` must be that of `options`, and the cache as new as it asks for.
    pub(crate) fn list(&self, plan: &Plan, options: &ListOptions) -> Result<List, ApiError> {
        let state = self.read();
        let progress = *self.progress.borrow();
        let now = state.now(progress);
        let after = plan.after.as_deref();
        let At::Exactly(revision) = plan.at else {
            return Ok(list::page(&state.objects, options, after, now));
        };
        let expired = || match after {
            Some(after) => expired_page(after),
            None => expired(revision, state.window.start()),
        };
        if revision < progress.forgotten {
            return Err(expired());
        }
        if revision >= state.last {
            // Nothing happened here since: the present is that past.
            return Ok(list::page(&state.objects, options, after, revision));
        }
        let past = state.window.rewind(&state.objects, revision).ok_or_else(expired)?;
        Ok(list::page(&past, options, after, revision))
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Puts an object in; returns what was there.
    fn put(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        self.bytes += object.size;
        let previous = self.objects.insert(object.key(), object);
        self.bytes -= previous.as_ref().map_or(0, |previous| previous.size);
        previous
    }

    fn now(&self, progress: Progress) -> Revision {
        progress.revision.max(self.last)
    }
}

/// Waits for the feed to reach `revision`.
pub(crate) async fn wait_for(progress: &mut Receiver<Progress>, revision: Revision) -> Result<(), ApiError> {
    let reached = progress.wait_for(|progress| progress.ready && progress.revision >= revision);
    let reached = tokio::time::timeout(CATCH_UP, reached).await.map(|reached| reached.is_ok());
    match reached {
        Ok(true) => Ok(()),
        Ok(false) => Err(ApiError::service_unavailable("the API server is shutting down")),
        Err(_) => {
            let current = progress.borrow().revision;
            Err(too_large_resource_version(revision, current))
        }
    }
}

/// 504 for a revision that has not happened here yet, in the words clients look for.
pub(crate) fn too_large_resource_version(asked: Revision, current: Revision) -> ApiError {
    let message = format!("Too large resource version: {asked}, current: {current}");
    let mut error = ApiError::timeout(&message);
    error.message.clone_from(&message);
    if let Some(details) = &mut error.details {
        details.causes = Some(vec![StatusCause {
            reason: Some("ResourceVersionTooLarge".to_owned()),
            message: Some("Too large resource version".to_owned()),
            field: None,
        }]);
    }
    error
}

/// 410 for a revision that fell out of the window.
pub(crate) fn expired(asked: Revision, start: Revision) -> ApiError {
    ApiError::gone_expired(format!("too old resource version: {asked} ({start})"))
}
