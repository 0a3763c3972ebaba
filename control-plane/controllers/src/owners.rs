//! Owner references: who controls an object, taking it in, letting it go.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};
use skep_client::{Api, Error, Kind, Patch, PatchParams, Store, Stored};

use crate::work::Key;

/// The reference that makes `owner` the controller of an object.
pub(crate) fn controller_ref<K: Kind>(owner: &K) -> OwnerReference {
    let meta = owner.metadata();
    OwnerReference {
        api_version: K::API_VERSION.into(),
        kind: K::KIND.into(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The controller of an object.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))
}

/// The key of the controller of an object, when it is of this kind.
pub(crate) fn controller_key<K: Kind>(meta: &ObjectMeta) -> Option<Key> {
    let owner = controller_of(meta)?;
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    (owner.kind == K::KIND && group == K::GROUP)
        .then(|| Key::new(meta.namespace.as_deref().unwrap_or_default(), &owner.name))
}

/// Who has to look at an object that changed: the controller it has or, when it is nobody's, every `O` of
/// its namespace that selects it and may want to take it in.
pub(crate) fn claimants<O: Kind>(
    meta: &ObjectMeta,
    known: &Store<O>,
    selects: impl Fn(&O) -> bool,
) -> Vec<Key> {
    if controller_of(meta).is_some() {
        return controller_key::<O>(meta).into_iter().collect();
    }
    let all = known.list_namespace(meta.namespace.as_deref().unwrap_or_default());
    all.iter().filter(|own| selects(own)).map(|own| Key::of(own.metadata())).collect()
}

/// Whether `meta` is controlled by the object with this uid.
pub(crate) fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|o| o.uid == uid)
}

/// Makes `owner` the controller of an object. The owner is read live first: a store may not know yet
/// that it is being deleted, and a dying owner must not take anything in.
pub(crate) async fn adopt<O: Kind, K: Stored>(
    owners: &Api<O>,
    owner: &OwnerReference,
    api: &Api<K>,
    object: &ObjectMeta,
) -> Result<(), Error> {
    let live = owners.get(&owner.name).await?;
    if live.metadata().uid.as_deref() != Some(&owner.uid) || live.metadata().deletion_timestamp.is_some() {
        return Ok(());
    }
    let mut references = object.owner_references.clone().unwrap_or_default();
    references.push(owner.clone());
    write(api, object, &json!(references)).await
}

/// Removes the reference to the owner with this uid.
pub(crate) async fn release<K: Stored>(api: &Api<K>, object: &ObjectMeta, uid: &str) -> Result<(), Error> {
    let mut references = object.owner_references.clone().unwrap_or_default();
    references.retain(|o| o.uid != uid);
    let references = if references.is_empty() { Value::Null } else { json!(references) };
    match write(api, object, &references).await {
        Err(e) if e.is_not_found() => Ok(()),
        result => result,
    }
}

async fn write<K: Stored>(api: &Api<K>, object: &ObjectMeta, references: &Value) -> Result<(), Error> {
    // The revision guards against a reference someone else has just added.
    let patch = Patch::Merge(json!({"metadata": {
        "uid": object.uid,
        "resourceVersion": object.resource_version,
        "ownerReferences": references,
    }}));
    api.patch(object.name.as_deref().unwrap_or_default(), &patch, &PatchParams::default()).await.map(drop)
}
