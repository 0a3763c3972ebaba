//! One version of one object as the cache holds it: parsed, and encoded at most once for each wire
//! format. An [`Object`] never changes after it is made; whoever holds the `Arc` shares its bytes.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use serde_json::Value;
use skep_api::resource::GroupVersionKind;
use skep_machinery::codec;
use skep_storage::Revision;

use super::Fields;

/// A stored object at one revision.
#[derive(Debug)]
pub struct Object {
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The revision that wrote this version.
    pub revision: Revision,
    /// The object, `metadata.resourceVersion` included.
    pub value: Arc<Value>,
    /// What field selectors see.
    pub fields: Fields,
    /// Bytes of its stored form; 0 where it has none.
    pub size: usize,
    json: OnceLock<Bytes>,
    protobuf: OnceLock<Option<Bytes>>,
    views: Mutex<Vec<View>>,
}

/// How a version of a custom resource sees an object. `None`: as it is.
type View = (LensKey, Option<Arc<Object>>);

/// Which definition, which of its versions.
type LensKey = (u64, usize);

/// How many views an object remembers. Each served version has one; more than a few at once are those
/// of older definitions.
const VIEWS: usize = 4;

impl Object {
    /// Wraps a parsed object; sets its resource version to `revision`.
    pub fn new(mut value: Value, revision: Revision, fields: Fields) -> Self {
        let text = |value: &Value, name: &str| {
            value.pointer(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let namespace = text(&value, "/metadata/namespace");
        let name = text(&value, "/metadata/name");
        set_resource_version(&mut value, revision);
        Self {
            namespace,
            name,
            revision,
            value: Arc::new(value),
            fields,
            size: 0,
            json: OnceLock::new(),
            protobuf: OnceLock::new(),
            views: Mutex::default(),
        }
    }

    /// The same object, with the size of its stored form.
    pub(crate) fn of_size(self, size: usize) -> Self {
        Self { size, ..self }
    }

    /// The same object under a later resource version: what a watch shows of a deletion.
    pub(crate) fn at(&self, revision: Revision) -> Self {
        let mut value = Value::clone(&self.value);
        set_resource_version(&mut value, revision);
        Self {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            revision,
            value: Arc::new(value),
            fields: self.fields.clone(),
            size: self.size,
            json: OnceLock::new(),
            protobuf: OnceLock::new(),
            views: Mutex::default(),
        }
    }

    /// What a lens once made of this object; the outer `None`: nothing yet.
    pub(crate) fn view(self: &Arc<Self>, lens: LensKey) -> Option<Arc<Self>> {
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, seen) = views.iter().find(|(known, _)| *known == lens)?;
        Some(seen.clone().unwrap_or_else(|| self.clone()))
    }

    /// Remembers what a lens makes of it.
    pub(crate) fn remember_view(self: &Arc<Self>, lens: LensKey, seen: &Arc<Self>) {
        // An object that held itself would never be freed.
        let seen = (!Arc::ptr_eq(self, seen)).then(|| seen.clone());
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        if views.len() == VIEWS {
            views.remove(0);
        }
        views.push((lens, seen));
    }

    /// The key inside its resource: `namespace/name`, or `name`.
    pub fn key(&self) -> String {
        object_key(&self.namespace, &self.name)
    }

    /// The object as JSON.
    pub fn json(&self) -> Bytes {
        self.json.get_or_init(|| Bytes::from(serde_json::to_vec(&*self.value).unwrap_or_default())).clone()
    }

    /// The object as a protobuf message, without the envelope; `None` when its kind has no such form.
    pub fn protobuf(&self, kind: &GroupVersionKind) -> Option<Bytes> {
        let encode = || codec::encode_protobuf_message(kind, &self.value).ok().map(Bytes::from);
        self.protobuf.get_or_init(encode).clone()
    }
}

/// `namespace/name`, or `name` for an empty namespace.
pub(crate) fn object_key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// Writes `metadata.resourceVersion`.
pub(crate) fn set_resource_version(value: &mut Value, revision: Revision) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
    }
}
