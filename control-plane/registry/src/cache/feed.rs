//! The one task that carries the store's changes into the caches.
//!
//! Resources come and go while it runs ([`FeedHandle`]): a new one is listed at the revision the feed
//! stands at, between two batches, so that its cache is never behind or ahead of the others.
//!
//! It lists the whole prefix, then watches it. When the watch breaks it goes on after the last
//! revision it applied; only when the store has forgotten that revision does it list anew, and then
//! it ends every watch, for what was missed can't be told any more.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;
use skep_storage::{Batch, Change, Error, KeyValue, Range, Revision, Storage, WatchMessage};
use tokio::sync::watch::{Receiver, Sender, channel};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::object::Object;
use super::window::{Event, EventType, Window};
use super::{Cache, Prepare, WINDOW, WINDOW_BYTES};

/// Objects read in one go while listing.
const PAGE: usize = 1000;

/// Pause before a broken watch is opened again.
const PAUSE: Duration = Duration::from_millis(200);

/// How far the feed is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The first listing is done.
    pub(crate) ready: bool,
    /// Every change up to here is in the caches.
    pub(crate) revision: Revision,
    /// History before this is no longer given out.
    pub(crate) forgotten: Revision,
}

struct Fed {
    cache: Arc<Cache>,
    prepare: Prepare,
}

/// What the feed is told while it runs.
enum Command {
    /// Follow another resource; answered when its cache is filled.
    Add { prefix: String, fed: Fed, done: oneshot::Sender<()> },
    /// Follow a resource no longer.
    Remove { prefix: String },
}

/// Commands that may wait.
const COMMANDS: usize = 64;

/// Adds resources to a running feed, and removes them.
#[derive(Clone)]
pub(crate) struct FeedHandle {
    commands: mpsc::Sender<Command>,
}

impl FeedHandle {
    /// Adds a resource; `true` when its cache is filled, `false` when that could not be done now.
    pub(crate) async fn add(&self, prefix: String, cache: Arc<Cache>, prepare: Prepare) -> bool {
        let (done, filled) = oneshot::channel();
        let command = Command::Add { prefix, fed: Fed { cache, prepare }, done };
        self.commands.send(command).await.is_ok() && filled.await.is_ok()
    }

    /// Removes a resource.
    pub(crate) async fn remove(&self, prefix: String) {
        if self.commands.send(Command::Remove { prefix }).await.is_err() {
            tracing::debug!("the feed has ended");
        }
    }
}

/// The feed before it runs.
pub(crate) struct Feed {
    storage: Arc<dyn Storage>,
    prefix: String,
    /// More than one where kinds share their storage.
    caches: HashMap<String, Vec<Fed>>,
    progress: Sender<Progress>,
    /// Every cache fed, for the forgetter.
    known: Arc<Mutex<Vec<Weak<Cache>>>>,
    commands: (mpsc::Sender<Command>, mpsc::Receiver<Command>),
}

impl Feed {
    /// A feed of everything under `prefix`.
    pub(crate) fn new(storage: Arc<dyn Storage>, prefix: impl Into<String>) -> Self {
        let (progress, _) = channel(Progress::default());
        let commands = mpsc::channel(COMMANDS);
        Self {
            storage,
            prefix: prefix.into(),
            caches: HashMap::new(),
            progress,
            known: Arc::default(),
            commands,
        }
    }

    /// Changes what it follows while it runs.
    pub(crate) fn handle(&self) -> FeedHandle {
        FeedHandle { commands: self.commands.0.clone() }
    }

    /// How far it is.
    pub(crate) fn progress(&self) -> Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Adds a resource, whose keys begin with `prefix` (`/registry/apps/deployments/`).
    pub(crate) fn add(&mut self, prefix: impl Into<String>, cache: Arc<Cache>, prepare: Prepare) {
        self.know(&cache);
        cache.set_prepare(&prepare);
        self.caches.entry(prefix.into()).or_default().push(Fed { cache, prepare });
    }

    /// Runs until cancelled.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let work = async {
            loop {
                let before = *self.progress.borrow();
                if let Err(error) = self.follow().await {
                    tracing::warn!(%error, "the storage watch broke; opening it again");
                }
                // One that brought something is opened again at once.
                if *self.progress.borrow() == before {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = cancel.cancelled() => {}
        }
    }

    /// Follows the store until something breaks.
    async fn follow(&mut self) -> Result<(), Error> {
        if !self.progress.borrow().ready {
            self.load().await?;
        }
        let after = self.progress.borrow().revision;
        let mut watch = match self.storage.watch(&self.prefix, after).await {
            Err(Error::Compacted { .. }) => return self.begin_anew(),
            other => other?,
        };
        loop {
            let message = tokio::select! {
                // Cancel safe: each takes what it returns in one step.
                message = watch.next() => message,
                Some(command) = self.commands.1.recv() => {
                    self.obey(command).await?;
                    if !self.progress.borrow().ready {
                        return Ok(());
                    }
                    continue;
                }
            };
            let Some(message) = message else { return Ok(()) };
            match message {
                Ok(WatchMessage::Batch(batch)) => self.apply(&batch),
                Ok(WatchMessage::Progress(revision)) => self.advance(revision),
                Err(Error::Compacted { .. }) => return self.begin_anew(),
                Err(error) => return Err(error),
            }
        }
    }

    /// Does what it was told, at the revision all caches stand at.
    async fn obey(&mut self, command: Command) -> Result<(), Error> {
        match command {
            Command::Remove { prefix } => {
                for fed in self.caches.remove(&prefix).into_iter().flatten() {
                    fed.cache.write().watchers.clear();
                }
            }
            Command::Add { prefix, fed, done } => {
                let revision = self.progress.borrow().revision;
                self.know(&fed.cache);
                fed.cache.set_prepare(&fed.prepare);
                match self.read(prefix.clone(), revision, &fed.prepare).await {
                    Ok(objects) => {
                        fill(&fed, objects, revision);
                        self.caches.entry(prefix).or_default().push(fed);
                    }
                    Err(Error::Compacted { .. }) => {
                        // Everything is listed again, this one with it.
                        self.caches.entry(prefix).or_default().push(fed);
                        self.begin_anew()?;
                    }
                    Err(error) => return Err(error),
                }
                // Nobody waits any more: the resource stays until it is removed.
                _ = done.send(());
            }
        }
        Ok(())
    }

    /// Every object under a prefix as it was at a revision.
    async fn read(
        &self,
        prefix: String,
        revision: Revision,
        prepare: &Prepare,
    ) -> Result<BTreeMap<String, Arc<Object>>, Error> {
        let mut objects = BTreeMap::new();
        let mut range = Range { limit: PAGE, revision, ..Range::prefix(prefix) };
        loop {
            let page = self.storage.range(range.clone()).await?;
            for object in page.kvs.iter().filter_map(|kv| parse(kv, prepare)) {
                objects.insert(object.key(), Arc::new(object));
            }
            match page.kvs.last() {
                // The smallest key after the last one.
                Some(last) if page.more => range.start = format!("{}\u{1}", last.key),
                _ => return Ok(objects),
            }
        }
    }

    #[allow(clippy::unnecessary_wraps)] // the result of the call that found the gap
    fn begin_anew(&self) -> Result<(), Error> {
        tracing::warn!("the store has forgotten the revision the caches stand at; listing again");
        self.progress.send_modify(|progress| progress.ready = false);
        Ok(())
    }

    /// Lists everything at one revision.
    async fn load(&self) -> Result<(), Error> {
        let mut states: HashMap<(&str, usize), BTreeMap<String, Arc<Object>>> = HashMap::new();
        let mut range = Range { limit: PAGE, ..Range::prefix(self.prefix.clone()) };
        loop {
            let page = self.storage.range(range.clone()).await?;
            if range.revision == 0 {
                // The first page fixes the revision of all of them. Nothing can be read at revision 0.
                range.revision = page.revision.max(1);
            }
            for kv in &page.kvs {
                let Some((prefix, fed)) = self.owner(&kv.key) else { continue };
                for (index, fed) in fed.iter().enumerate() {
                    if let Some(object) = parse(kv, &fed.prepare) {
                        let state = states.entry((prefix, index)).or_default();
                        state.insert(object.key(), Arc::new(object));
                    }
                }
            }
            match page.kvs.last() {
                // The smallest key after the last one.
                Some(last) if page.more => range.start = format!("{}\u{1}", last.key),
                _ => break,
            }
        }
        for (prefix, fed) in &self.caches {
            for (index, fed) in fed.iter().enumerate() {
                let objects = states.remove(&(prefix.as_str(), index)).unwrap_or_default();
                fill(fed, objects, range.revision);
            }
        }
        self.progress.send_modify(|progress| {
            progress.ready = true;
            progress.revision = range.revision;
            progress.forgotten = range.revision;
        });
        Ok(())
    }

    /// Applies all changes of one revision.
    fn apply(&self, batch: &Batch) {
        if batch.revision <= self.progress.borrow().revision {
            return;
        }
        // Changes of one resource are applied under one lock, so that nobody sees half a transaction.
        let mut groups: Vec<(&[Fed], Vec<&Change>)> = Vec::new();
        for change in &batch.changes {
            let (Change::Put { kv: KeyValue { key, .. }, .. } | Change::Delete { key, .. }) = change;
            let Some((_, fed)) = self.owner(key) else { continue };
            match groups.iter_mut().find(|(known, _)| std::ptr::eq(*known, fed)) {
                Some((_, changes)) => changes.push(change),
                None => groups.push((fed, vec![change])),
            }
        }
        for (fed, changes) in groups {
            for fed in fed {
                apply(fed, &changes, batch.revision);
            }
        }
        self.advance(batch.revision);
    }

    fn advance(&self, revision: Revision) {
        self.progress.send_if_modified(|progress| {
            let later = revision > progress.revision;
            progress.revision = progress.revision.max(revision);
            later
        });
    }

    /// The cache a key belongs to: by `/registry/resource/…` or `/registry/group/resource/…`.
    fn owner(&self, key: &str) -> Option<(&str, &[Fed])> {
        let rest = key.strip_prefix(&self.prefix)?;
        let mut slashes = rest.match_indices('/').map(|(at, _)| self.prefix.len() + at + 1);
        let one = slashes.next()?;
        let two = slashes.next().unwrap_or(one);
        [one, two]
            .into_iter()
            .find_map(|end| self.caches.get_key_value(&key[..end]))
            .map(|(prefix, fed)| (prefix.as_str(), fed.as_slice()))
    }
}

/// Begins a cache with what there is at a revision.
fn fill(fed: &Fed, objects: BTreeMap<String, Arc<Object>>, revision: Revision) {
    let mut state = fed.cache.write();
    state.bytes = objects.values().map(|object| object.size).sum();
    state.objects = objects;
    state.window = Window::new(revision, WINDOW, WINDOW_BYTES);
    state.last = revision;
    state.watchers.clear();
}

/// Applies the changes of one revision to one cache.
fn apply(fed: &Fed, changes: &[&Change], revision: Revision) {
    // Parsing needs no lock.
    let parsed: Vec<_> = changes
        .iter()
        .map(|change| match change {
            Change::Put { kv, .. } => (kv.key.as_str(), parse(kv, &fed.prepare)),
            Change::Delete { key, .. } => (key.as_str(), None),
        })
        .collect();
    let mut state = fed.cache.write();
    for (storage_key, object) in parsed {
        let event = if let Some(object) = object {
            let object = Arc::new(object);
            let previous = state.put(object.clone());
            let kind = if previous.is_some() { EventType::Modified } else { EventType::Added };
            Event::new(kind, object, previous, revision)
        } else {
            let Some(previous) = remove(&mut state.objects, storage_key) else { continue };
            state.bytes -= previous.size;
            Event::new(EventType::Deleted, Arc::new(previous.at(revision)), Some(previous), revision)
        };
        let event = Arc::new(event);
        state.window.push(event.clone());
        state.watchers.send(&event);
    }
    state.last = revision;
}

/// Removes by storage key, whose end is the key inside the resource.
fn remove(objects: &mut BTreeMap<String, Arc<Object>>, storage_key: &str) -> Option<Arc<Object>> {
    let mut slashes = storage_key.rmatch_indices('/').map(|(at, _)| at + 1);
    let name = slashes.next()?;
    let namespaced = slashes.next()?;
    objects.remove(&storage_key[namespaced..]).or_else(|| objects.remove(&storage_key[name..]))
}

/// Parses a pair; what can't be read is logged and left out, so that one damaged object does not take
/// a whole resource down.
pub(crate) fn parse(kv: &KeyValue, prepare: &Prepare) -> Option<Object> {
    match serde_json::from_slice::<Value>(&kv.value) {
        Ok(value) => {
            let (value, fields) = prepare(value);
            Some(Object::new(value, kv.mod_revision, fields).of_size(kv.value.len()))
        }
        Err(error) => {
            tracing::error!(key = kv.key, %error, "a stored object can't be read");
            None
        }
    }
}

impl Feed {
    /// For whoever compacts: history before `floor` is no longer given out.
    pub(crate) fn forgetter(&self) -> impl Fn(Revision) + Send + 'static {
        let (progress, known) = (self.progress.clone(), self.known.clone());
        move |floor| {
            progress.send_modify(|progress| progress.forgotten = progress.forgotten.max(floor));
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|cache| {
                let cache = cache.upgrade();
                if let Some(cache) = &cache {
                    cache.write().window.forget(floor);
                }
                cache.is_some()
            });
        }
    }

    fn know(&self, cache: &Arc<Cache>) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(cache));
    }
}
