//! What the client can carry: typed kinds of `k8s-openapi`, and two dynamic forms for the callers
//! that handle every resource (garbage collection, namespace deletion).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt::Debug;
use std::hash::{Hash as _, Hasher as _};

/// A built-in kind with its Rust type. Implemented for all of them.
pub trait Kind:
    k8s_openapi::Resource<Scope: 'static>
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + Clone
    + Debug
    + Send
    + Sync
    + 'static
{
}

impl<K> Kind for K where
    K: k8s_openapi::Resource<Scope: 'static>
        + k8s_openapi::Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug
        + Send
        + Sync
        + 'static
{
}

/// Anything with object metadata that can be read from the API.
pub trait Stored: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static {
    /// What to send as `Accept`.
    const ACCEPT: &'static str = "application/json";
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
}

impl<K: Kind> Stored for K {
    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }
}

/// What an informer must know of an object to keep it. All that can be read from the API has it; a caller that needs a
/// part of each object only keeps that part, see `Informer::project`.
pub trait Kept: Send + Sync + 'static {
    /// Which object, and which state of it.
    fn identity(&self) -> Identity<'_>;
}

/// Which object, and which state of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    /// Its namespace; empty for cluster-scoped objects.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// A digest of its UID: another object of the same name has another.
    pub uid: u64,
    /// A digest of its resource version, if it has one.
    pub revision: Option<u64>,
}

impl<'a> Identity<'a> {
    /// From metadata.
    pub fn of(meta: &'a ObjectMeta) -> Self {
        Self {
            namespace: meta.namespace.as_deref().unwrap_or_default(),
            name: meta.name.as_deref().unwrap_or_default(),
            uid: Self::digest(meta.uid.as_deref().unwrap_or_default()),
            revision: meta.resource_version.as_deref().map(Self::digest),
        }
    }

    /// The digest of a UID or of a resource version.
    pub fn digest(text: &str) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        text.hash(&mut hasher);
        hasher.finish()
    }
}

impl<K: Stored> Kept for K {
    fn identity(&self) -> Identity<'_> {
        Identity::of(self.meta())
    }
}

/// An object of any kind, whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DynamicObject {
    /// `v1`, `apps/v1`; absent inside lists.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// The kind; absent inside lists.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// All other fields.
    #[serde(flatten)]
    pub data: Map<String, Value>,
}

impl Stored for DynamicObject {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// Only the metadata of an object of any kind; the server is asked to send no more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartialObject {
    /// Of the object, or `meta.k8s.io/v1`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Of the object, or `PartialObjectMetadata`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
}

impl Stored for PartialObject {
    const ACCEPT: &'static str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}
