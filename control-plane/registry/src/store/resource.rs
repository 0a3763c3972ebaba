//! A row of the table of kinds at work: its cache and its keys.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use skep_admission::Reader;
use skep_api::error::ApiError;
use skep_api::resource::{GroupVersionKind, GroupVersionResource};

use skep_machinery::codec::{self, FieldValidation};

use super::PREFIX;
use super::read::Freshness;
use crate::cache::{Amount, Cache, Feed, Filter};
use crate::kinds;
use crate::strategy::{KindRow, Storage};

/// One resource of the API.
pub struct Resource {
    row: &'static KindRow,
    gvr: GroupVersionResource,
    gvk: GroupVersionKind,
    prefix: String,
    cache: Arc<Cache>,
}

impl Resource {
    /// Its row in the table of kinds.
    pub fn row(&self) -> &'static KindRow {
        self.row
    }

    /// Its name.
    pub fn gvr(&self) -> &GroupVersionResource {
        &self.gvr
    }

    /// The kind of its objects.
    pub fn gvk(&self) -> &GroupVersionKind {
        &self.gvk
    }

    /// Its cache.
    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// How many objects there are.
    pub fn count(&self) -> usize {
        self.cache.len()
    }

    /// How much there is.
    pub fn amount(&self) -> Amount {
        self.cache.amount()
    }

    /// How many watches are open.
    pub fn watchers(&self) -> usize {
        self.cache.watchers()
    }

    /// The object as the kind it is stored as.
    pub(crate) fn to_stored(&self, object: Value) -> Value {
        match self.row.storage {
            Storage::Alias { to, .. } => to(object),
            Storage::Own | Storage::Virtual => object,
        }
    }

    /// The storage key of an object.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> String {
        let mut key = self.prefix.clone();
        if !namespace.is_empty() {
            key.push_str(namespace);
            key.push('/');
        }
        key.push_str(name);
        key
    }
}

/// `/registry/pods/`, `/registry/apps/deployments/`.
fn prefix(gvr: &GroupVersionResource) -> String {
    if gvr.group.is_empty() {
        format!("{PREFIX}{}/", gvr.resource)
    } else {
        format!("{PREFIX}{}/{}/", gvr.group, gvr.resource)
    }
}

/// The resources of the table that are stored; their caches are added to the feed.
pub(super) fn table(feed: &mut Feed) -> HashMap<GroupVersionResource, Arc<Resource>> {
    let mut resources = HashMap::new();
    for row in kinds::TABLE.iter().copied() {
        let (gvr, gvk) = (row.gvr(), row.gvk());
        let stored = match row.storage {
            Storage::Own => gvr.clone(),
            Storage::Alias { group, version, plural, .. } => {
                GroupVersionResource::new(group, version, plural)
            }
            Storage::Virtual => continue,
        };
        let prefix = prefix(&stored);
        let cache = Arc::new(Cache::new(gvk.clone(), feed.progress()));
        let prepare = move |value: Value| {
            let value = match row.storage {
                Storage::Alias { from, .. } => from(value),
                Storage::Own | Storage::Virtual => value,
            };
            let fields = row.fields(&value);
            (value, fields)
        };
        feed.add(prefix.clone(), cache.clone(), Box::new(prepare));
        resources.insert(gvr.clone(), Arc::new(Resource { row, gvr, gvk, prefix, cache }));
    }
    resources
}

/// Reads the cluster out of the caches: what admission plug-ins see.
pub struct ClusterReader {
    resources: Arc<HashMap<GroupVersionResource, Arc<Resource>>>,
    freshness: Freshness,
}

impl ClusterReader {
    pub(super) fn new(
        resources: Arc<HashMap<GroupVersionResource, Arc<Resource>>>,
        freshness: Freshness,
    ) -> Self {
        Self { resources, freshness }
    }

    fn cache(&self, gvr: &GroupVersionResource) -> Result<&Arc<Cache>, ApiError> {
        self.resources.get(gvr).map(|resource| resource.cache()).ok_or_else(ApiError::no_such_path)
    }

    /// The objects of one namespace as the cache has them now.
    pub(super) fn cached_in(&self, gvr: &GroupVersionResource, namespace: &str) -> Vec<Arc<Value>> {
        let Ok(cache) = self.cache(gvr) else { return Vec::new() };
        let filter = Filter { namespace: Some(namespace.to_owned()), ..Filter::default() };
        cache.snapshot(&filter).iter().map(|object| object.value.clone()).collect()
    }
}

#[async_trait]
impl Reader for ClusterReader {
    async fn get(
        &self,
        gvr: &GroupVersionResource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Arc<Value>>, ApiError> {
        let (cache, namespace) = (self.cache(gvr)?, namespace.unwrap_or_default());
        let mut object = cache.get(namespace, name);
        if object.is_none() {
            // It may have been made a moment ago.
            self.freshness.consistent().await?;
            object = cache.get(namespace, name);
        }
        Ok(object.map(|object| object.value.clone()))
    }

    async fn list(
        &self,
        gvr: &GroupVersionResource,
        namespace: Option<&str>,
    ) -> Result<Vec<Arc<Value>>, ApiError> {
        self.freshness.consistent().await?;
        let filter = Filter { namespace: namespace.map(str::to_owned), ..Filter::default() };
        let objects = self.cache(gvr)?.snapshot(&filter);
        Ok(objects.iter().map(|object| object.value.clone()).collect())
    }

    async fn settle(
        &self,
        gvr: &GroupVersionResource,
        gvk: &GroupVersionKind,
        object: Value,
    ) -> Result<Value, ApiError> {
        let resource = self.resources.get(gvr).ok_or_else(ApiError::no_such_path)?;
        let decoded = codec::check(gvk, &object, FieldValidation::Ignore).map_err(ApiError::from)?;
        let mut object = decoded.object;
        if resource.gvk() == gvk {
            resource.row().default(&mut object);
        }
        Ok(object)
    }

    fn cached(&self, gvr: &GroupVersionResource) -> (Vec<Arc<Value>>, u64) {
        let Ok(cache) = self.cache(gvr) else { return (Vec::new(), 0) };
        // The number first: objects that are newer than it are read again, older ones would be kept.
        let version = cache.last();
        let objects = cache.snapshot(&Filter::default());
        (objects.iter().map(|object| object.value.clone()).collect(), version)
    }

    fn version(&self, gvr: &GroupVersionResource) -> u64 {
        self.cache(gvr).map_or(0, |cache| cache.last())
    }
}
