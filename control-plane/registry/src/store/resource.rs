//! A kind at work: its cache, its keys, and for custom ones the view on what is stored.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use skep_admission::Reader;
use skep_admission::matching::Match;
use skep_api::error::ApiError;
use skep_api::object::ObjectExt;
use skep_api::resource::{GroupVersionKind, GroupVersionResource};

use skep_machinery::apply::Types;
use skep_machinery::codec::{self, FieldValidation};

use super::PREFIX;
use super::read::Freshness;
use crate::cache::{Amount, Cache, Feed, Filter, Object, Prepare};
use crate::custom::{Lens, Table};
use crate::kinds;
use crate::strategy::{Kind, Storage};

/// One resource of the API.
pub struct Resource {
    kind: Kind,
    gvr: GroupVersionResource,
    gvk: GroupVersionKind,
    prefix: String,
    cache: Arc<Cache>,
    lens: Option<Arc<Lens>>,
}

impl Resource {
    /// A version of a custom resource.
    pub(crate) fn custom(kind: Kind, prefix: String, cache: Arc<Cache>, lens: Arc<Lens>) -> Self {
        Self { gvr: kind.gvr(), gvk: kind.gvk(), kind, prefix, cache, lens: Some(lens) }
    }

    /// Its kind.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Its name.
    pub fn gvr(&self) -> &GroupVersionResource {
        &self.gvr
    }

    /// The group, version and kind of its objects.
    pub fn gvk(&self) -> &GroupVersionKind {
        &self.gvk
    }

    /// Its cache: what is stored, which for a custom resource is not yet what is served.
    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// The view on what is stored, of a custom resource.
    pub(crate) fn lens(&self) -> Option<&Arc<Lens>> {
        self.lens.as_ref()
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

    /// An object as it is served; `None` when there is none.
    pub(crate) async fn get(&self, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, ApiError> {
        match (self.cache.get(namespace, name), &self.lens) {
            (Some(raw), Some(lens)) => lens.see(&raw).await.map(Some),
            (found, _) => Ok(found),
        }
    }

    /// Objects as they are served.
    pub(crate) async fn see(&self, raws: Vec<Arc<Object>>) -> Result<Vec<Arc<Object>>, ApiError> {
        match &self.lens {
            Some(lens) => lens.see_all(&raws).await,
            None => Ok(raws),
        }
    }

    /// The object as it is to be stored, without its resource version, which is the key's revision.
    pub(crate) async fn to_stored(&self, object: &Value) -> Result<Value, ApiError> {
        let mut object = match (&self.kind, &self.lens) {
            (_, Some(lens)) => lens.to_stored(object.clone()).await?,
            (Kind::BuiltIn(row), None) => match row.storage {
                Storage::Alias { to, .. } => to(object.clone()),
                Storage::Own | Storage::Virtual => object.clone(),
            },
            (Kind::Custom(_), None) => object.clone(),
        };
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
        }
        Ok(object)
    }

    /// An object of another of the groups and versions the same objects are served in, as it is here.
    pub(crate) async fn receive(&self, from: &Self, object: &Value) -> Result<Value, ApiError> {
        if let Some(lens) = &self.lens {
            return lens.receive(object.clone()).await;
        }
        let stored = match from.kind.built_in().map(|row| row.storage) {
            Some(Storage::Alias { to, .. }) => to(object.clone()),
            _ => object.clone(),
        };
        Ok(match self.kind.built_in().map(|row| row.storage) {
            Some(Storage::Alias { from, .. }) => from(stored),
            _ => stored,
        })
    }

    /// Does it serve the same objects as another.
    pub(crate) fn shares(&self, other: &Self) -> bool {
        self.prefix == other.prefix
    }

    /// The bytes to store.
    pub(crate) async fn encode(&self, object: &Value) -> Result<Bytes, ApiError> {
        let bytes = serde_json::to_vec(&self.to_stored(object).await?)
            .map_err(|error| ApiError::internal(format!("the object can't be encoded: {error}")))?;
        Ok(bytes.into())
    }

    /// What the keys of a collection begin with.
    pub(crate) fn key_prefix(&self, namespace: Option<&str>) -> String {
        match namespace {
            Some(namespace) if self.kind.namespaced() => format!("{}{namespace}/", self.prefix),
            _ => self.prefix.clone(),
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

    /// What the keys of a resource begin with: `/registry/pods/`, `/registry/apps/deployments/`.
    pub(crate) fn prefix_of(group: &str, plural: &str) -> String {
        if group.is_empty() { format!("{PREFIX}{plural}/") } else { format!("{PREFIX}{group}/{plural}/") }
    }
}

/// The resources of the table of kinds that are stored; their caches are added to the feed.
pub(super) fn built_in(feed: &mut Feed) -> Vec<Arc<Resource>> {
    let mut resources = Vec::new();
    for row in kinds::TABLE.iter().copied() {
        let (gvr, gvk) = (row.gvr(), row.gvk());
        let prefix = match row.storage {
            Storage::Own => Resource::prefix_of(row.group, row.plural),
            Storage::Alias { group, plural, .. } => Resource::prefix_of(group, plural),
            Storage::Virtual => continue,
        };
        let cache = Arc::new(Cache::new(gvk.clone(), feed.progress()));
        let prepare: Prepare = Arc::new(move |value: Value| {
            let value = match row.storage {
                Storage::Alias { from, .. } => from(value),
                Storage::Own | Storage::Virtual => value,
            };
            let fields = row.fields(&value);
            (value, fields)
        });
        feed.add(prefix.clone(), cache.clone(), prepare);
        resources.push(Arc::new(Resource { kind: Kind::BuiltIn(row), gvr, gvk, prefix, cache, lens: None }));
    }
    resources
}

/// Reads the cluster out of the caches: what admission plug-ins see.
pub struct ClusterReader {
    table: Arc<ArcSwap<Table>>,
    pub(super) freshness: Freshness,
}

impl ClusterReader {
    pub(super) fn new(table: Arc<ArcSwap<Table>>, freshness: Freshness) -> Self {
        Self { table, freshness }
    }

    pub(super) fn resource(&self, gvr: &GroupVersionResource) -> Result<Arc<Resource>, ApiError> {
        self.table.load().get(gvr).cloned().ok_or_else(ApiError::no_such_path)
    }

    /// The objects of one namespace as the cache has them now.
    pub(super) fn cached_in(&self, gvr: &GroupVersionResource, namespace: &str) -> Vec<Arc<Value>> {
        let Ok(resource) = self.resource(gvr) else { return Vec::new() };
        let filter = Filter { namespace: Some(namespace.to_owned()), ..Filter::default() };
        resource.cache().snapshot(&filter).iter().map(|object| object.value.clone()).collect()
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
        let (resource, namespace) = (self.resource(gvr)?, namespace.unwrap_or_default());
        let mut object = resource.get(namespace, name).await?;
        if object.is_none() {
            // It may have been made a moment ago.
            self.freshness.consistent().await?;
            object = resource.get(namespace, name).await?;
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
        let resource = self.resource(gvr)?;
        let objects = resource.see(resource.cache().snapshot(&filter)).await?;
        Ok(objects.iter().map(|object| object.value.clone()).collect())
    }

    fn is_namespaced(&self, gvr: &GroupVersionResource) -> bool {
        self.resource(gvr).is_ok_and(|resource| resource.kind().namespaced())
    }

    fn structural(&self, gvk: &GroupVersionKind) -> Option<Arc<Value>> {
        let resource = self.resource(&self.resource_of(gvk)?).ok()?;
        match resource.kind().types() {
            Types::OpenApi(schema) => Some(Arc::new(schema.clone())),
            Types::Message(_) | Types::Deduced => None,
        }
    }

    fn resource_of(&self, gvk: &GroupVersionKind) -> Option<GroupVersionResource> {
        let table = self.table.load();
        table.all().iter().find(|resource| resource.gvk() == gvk).map(|resource| resource.gvr().clone())
    }

    async fn settle(
        &self,
        gvr: &GroupVersionResource,
        gvk: &GroupVersionKind,
        object: Value,
    ) -> Result<Value, ApiError> {
        let mut resource = self.resource(gvr)?;
        if resource.gvk() != gvk {
            // An equivalent one, as a webhook wants to see it; or the kind of a subresource.
            let other = self.resource_of(gvk).map(|gvr| self.resource(&gvr)).transpose()?;
            match other.filter(|other| other.shares(&resource)) {
                Some(other) => resource = other,
                None => {
                    let checked = codec::check(gvk, &object, FieldValidation::Ignore);
                    return Ok(checked.map_err(ApiError::from)?.object);
                }
            }
        }
        let mut object = resource.kind().recheck(&object, FieldValidation::Ignore)?.object;
        resource.kind().default(&mut object);
        Ok(object)
    }

    fn equivalents(&self, gvr: &GroupVersionResource, subresource: &str) -> Vec<Match> {
        let table = self.table.load();
        let Some(own) = table.get(gvr) else { return Vec::new() };
        let others = table.all().iter().filter(|other| other.gvr() != gvr && other.shares(own));
        let seen = |other: &Arc<Resource>| {
            let gvk = match subresource {
                "" => other.gvk().clone(),
                subresource => other.kind().subresource(subresource)?.kind,
            };
            Some(Match { gvr: other.gvr().clone(), gvk })
        };
        others.filter_map(seen).collect()
    }

    async fn convert(&self, object: &Value, to: &GroupVersionKind) -> Result<Value, ApiError> {
        let from = object.gvk();
        if from == *to {
            return Ok(object.clone());
        }
        let resource = |gvk| self.resource_of(gvk).and_then(|gvr| self.resource(&gvr).ok());
        match (resource(&from), resource(to)) {
            (Some(from), Some(to)) if from.shares(&to) => to.receive(&from, object).await,
            _ => {
                let (api_version, kind) = (to.api_version(), &to.kind);
                Err(ApiError::internal(format!("unable to convert {from} to {api_version}, Kind={kind}")))
            }
        }
    }

    fn cached(&self, gvr: &GroupVersionResource) -> (Vec<Arc<Value>>, u64) {
        let Ok(resource) = self.resource(gvr) else { return (Vec::new(), 0) };
        let cache = resource.cache();
        // The number first: objects that are newer than it are read again, older ones would be kept.
        let version = cache.last();
        let objects = cache.snapshot(&Filter::default());
        (objects.iter().map(|object| object.value.clone()).collect(), version)
    }

    fn version(&self, gvr: &GroupVersionResource) -> u64 {
        self.resource(gvr).map_or(0, |resource| resource.cache().last())
    }
}
