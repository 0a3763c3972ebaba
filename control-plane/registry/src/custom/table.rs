//! The table of resources: the built-in ones, and those of the definitions there are now.
//!
//! One task follows the definitions in the watch cache and swaps the table. Every server does so by
//! itself, also where several share a store. Invariants: a resource is in the table only when its cache
//! is filled; the cache and the lenses of a definition outlive its changes, so that no watch is lost; a
//! definition never takes the place of a built-in kind.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::GroupVersionResource;
use skep_storage::Revision;
use tokio::sync::watch;

use super::definition::{Definition, is_true};
use super::lens::meta_fields;
use super::{CustomKind, Lens};
use crate::cache::{Cache, FeedHandle, Filter, Object, Progress, WatchOptions};
use crate::kinds;
use crate::store::{Registry, Resource};
use crate::strategy::Kind;

/// Pause before what failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Where definitions are.
pub(crate) fn definitions() -> GroupVersionResource {
    GroupVersionResource::new("apiextensions.k8s.io", "v1", "customresourcedefinitions")
}

/// The resources at one moment.
#[derive(Default)]
pub(crate) struct Table {
    by_name: HashMap<GroupVersionResource, Arc<Resource>>,
    /// In the order of the table of kinds, then custom ones by name.
    order: Vec<Arc<Resource>>,
    custom: BTreeMap<String, Entry>,
    generation: u64,
}

/// One definition at work.
#[derive(Clone)]
struct Entry {
    definition: Arc<Definition>,
    prefix: String,
    cache: Arc<Cache>,
    lenses: BTreeMap<String, Arc<Lens>>,
    /// In the version that is stored, served or not.
    stored: Option<Arc<Resource>>,
}

impl Table {
    /// A table of these.
    pub(crate) fn new(resources: Vec<Arc<Resource>>) -> Self {
        Self { custom: BTreeMap::new(), ..Self::default() }.with(resources)
    }

    fn with(mut self, resources: Vec<Arc<Resource>>) -> Self {
        self.by_name = resources.iter().map(|resource| (resource.gvr().clone(), resource.clone())).collect();
        self.order = resources;
        self
    }

    /// A resource by name.
    pub(crate) fn get(&self, name: &GroupVersionResource) -> Option<&Arc<Resource>> {
        self.by_name.get(name)
    }

    /// Another one than before.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[Arc<Resource>] {
        &self.order
    }

    /// The objects of a definition in the version they are stored in.
    pub(crate) fn stored(&self, definition: &str, uid: &str) -> Option<&Arc<Resource>> {
        let entry = self.custom.get(definition).filter(|entry| entry.definition.uid == uid);
        entry.and_then(|entry| entry.stored.as_ref())
    }
}

/// Keeps the table in step with the definitions.
pub(crate) async fn follow(registry: Arc<Registry>, feed: FeedHandle, progress: watch::Receiver<Progress>) {
    loop {
        let Ok(source) = registry.resource(&definitions()) else { return };
        let mut watch = match source.cache().watch(&WatchOptions::default()) {
            Ok(watch) => watch,
            Err(error) => {
                tracing::warn!(%error, "definitions can't be watched");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        loop {
            let done = step(&registry, source.cache(), &feed, &progress).await;
            let more = if done {
                watch.next().await.is_some()
            } else {
                tokio::time::sleep(PAUSE).await;
                true
            };
            if !more {
                break;
            }
            while watch.try_next().is_some() {}
        }
    }
}

/// Makes the table what the definitions say. `false`: something must be tried again.
async fn step(
    registry: &Arc<Registry>,
    source: &Arc<Cache>,
    feed: &FeedHandle,
    progress: &watch::Receiver<Progress>,
) -> bool {
    // Read before the definitions: what is told to be done is at least this.
    let revision = source.last();
    let definitions = source.snapshot(&Filter::default());
    let old = registry.table();
    let mut done = true;
    let mut changed = false;
    let mut custom = BTreeMap::new();
    for object in &definitions {
        let known = old.custom.get(&object.name).filter(|entry| entry.definition.uid == object.value.uid());
        let served = is_true(&object.value, "NamesAccepted") || is_true(&object.value, "Established");
        if let Some(entry) = known.filter(|entry| entry.definition.is_of(&object.value)) {
            custom.insert(object.name.clone(), entry.clone());
        } else if served {
            changed = true;
            match enter(registry, object, known, feed, progress).await {
                Some(entry) => _ = custom.insert(object.name.clone(), entry),
                None => done = false,
            }
        }
    }
    let gone: Vec<&Entry> = old
        .custom
        .values()
        .filter(|entry| {
            custom.get(&entry.definition.name).is_none_or(|now| now.definition.uid != entry.definition.uid)
        })
        .collect();
    if changed || !gone.is_empty() {
        let built_in = old.order.iter().filter(|resource| resource.kind().built_in().is_some()).cloned();
        let resources = built_in.chain(custom.values().flat_map(served)).collect();
        let table = Table { custom, generation: old.generation + 1, ..Table::default() }.with(resources);
        registry.swap(table);
    }
    for entry in gone {
        entry.lenses.values().for_each(|lens| lens.close());
        // A definition of the same name may have taken its place: then the prefix is fed anew.
        if !registry.table().custom.contains_key(&entry.definition.name) {
            feed.remove(entry.prefix.clone()).await;
        }
    }
    if done {
        registry.definitions_done(revision);
    }
    done
}

/// A definition that is new, or has changed. `None`: its objects can't be read now.
async fn enter(
    registry: &Registry,
    object: &Object,
    known: Option<&Entry>,
    feed: &FeedHandle,
    progress: &watch::Receiver<Progress>,
) -> Option<Entry> {
    let definition = Definition::compile(&object.value);
    let prefix = Resource::prefix_of(&definition.group, &definition.names.plural);
    let cache = match known {
        Some(entry) => entry.cache.clone(),
        None => {
            let kind =
                skep_api::resource::GroupVersionKind::new(&definition.group, "", &definition.names.kind);
            let cache = Arc::new(Cache::new(kind, progress.clone()));
            let namespaced = definition.namespaced;
            let prepare = move |value: serde_json::Value| {
                let fields = meta_fields(&value, namespaced);
                (value, fields)
            };
            // One of an older definition of this name.
            feed.remove(prefix.clone()).await;
            if !feed.add(prefix.clone(), cache.clone(), Arc::new(prepare)).await {
                return None;
            }
            cache
        }
    };
    let mut lenses = BTreeMap::new();
    for version in definition.versions.iter().filter(|version| version.served) {
        let lens = match known.and_then(|entry| entry.lenses.get(&version.name)) {
            Some(lens) => {
                lens.swap(definition.clone());
                lens.clone()
            }
            None => Arc::new(Lens::new(definition.clone(), &version.name, registry.webhooks())),
        };
        lenses.insert(version.name.clone(), lens);
    }
    for (version, lens) in known.into_iter().flat_map(|entry| &entry.lenses) {
        if !lenses.contains_key(version) {
            lens.close();
        }
    }
    let stored = definition.versions.iter().position(|version| version.storage).map(|place| {
        let name = &definition.versions[place].name;
        let lens = Arc::new(Lens::new(definition.clone(), name, registry.webhooks()));
        let kind = Kind::Custom(Arc::new(CustomKind::new(definition.clone(), place)));
        Arc::new(Resource::custom(kind, prefix.clone(), cache.clone(), lens))
    });
    Some(Entry { definition, prefix, cache, lenses, stored })
}

/// The resources of a definition.
fn served(entry: &Entry) -> Vec<Arc<Resource>> {
    let definition = &entry.definition;
    let hidden =
        kinds::TABLE.iter().any(|row| row.group == definition.group && row.plural == definition.names.plural);
    if hidden {
        return Vec::new();
    }
    let places = definition.versions.iter().enumerate();
    places
        .filter_map(|(place, version)| {
            let lens = entry.lenses.get(&version.name)?;
            let kind = Kind::Custom(Arc::new(CustomKind::new(definition.clone(), place)));
            Some(Arc::new(Resource::custom(kind, entry.prefix.clone(), entry.cache.clone(), lens.clone())))
        })
        .collect()
}

impl Registry {
    /// Waits until the table shows every definition this server knows of.
    pub async fn definitions_settled(&self) -> Result<(), ApiError> {
        let wanted: Revision = self.resource(&definitions())?.cache().last();
        let mut settled = self.settled();
        let reached = settled.wait_for(|settled| *settled >= wanted);
        match tokio::time::timeout(Duration::from_secs(5), reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ApiError::service_unavailable("custom resources are being loaded, try again")),
        }
    }

    /// A resource by name; one that is not known is looked for among definitions made a moment ago, by
    /// this or another server.
    pub async fn find_resource(&self, name: &GroupVersionResource) -> Result<Arc<Resource>, ApiError> {
        if let Ok(resource) = self.resource(name) {
            return Ok(resource);
        }
        if !name.group.contains('.') {
            return Err(ApiError::no_such_path());
        }
        self.consistent().await?;
        self.definitions_settled().await?;
        self.resource(name)
    }
}
