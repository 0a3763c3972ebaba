//! Delete and delete collection.

use std::sync::Arc;

use serde_json::{Value, json};
use skep_admission::Operation;
use skep_api::error::ApiError;

use super::admit::Write;
use super::commit::{self, Committed};
use super::read::find;
use super::update::modified;
use super::{
    DeleteOptions, Deleted, Preconditions, Propagation, Registry, Resource, Target, WriteOptions, meta,
};
use crate::cache::{ListOptions, Object, set_resource_version};

/// How often a deletion is tried again when the object changes meanwhile.
const RETRIES: usize = 16;

/// Keeps an object until its dependents have lost their owner.
const ORPHAN: &str = "orphan";

/// Keeps an object until its dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";

impl Registry {
    /// Deletes an object, or begins to.
    pub async fn delete(
        &self,
        target: &Target,
        how: &DeleteOptions,
        options: &WriteOptions,
    ) -> Result<Deleted, ApiError> {
        let resource = self.resource(&target.resource)?;
        self.delete_asked(&resource, target, how, options, true).await
    }

    /// The same for a deletion that is part of a request that admission has seen.
    pub(super) async fn delete_unasked(
        &self,
        target: &Target,
        how: &DeleteOptions,
        options: &WriteOptions,
    ) -> Result<Deleted, ApiError> {
        let resource = self.resource(&target.resource)?;
        self.delete_asked(&resource, target, how, options, false).await
    }

    /// Deletes an object of a resource that may not be served.
    pub(crate) async fn delete_from(
        &self,
        resource: &Resource,
        target: &Target,
        how: &DeleteOptions,
        options: &WriteOptions,
    ) -> Result<Deleted, ApiError> {
        self.delete_asked(resource, target, how, options, true).await
    }

    async fn delete_asked(
        &self,
        resource: &Resource,
        target: &Target,
        how: &DeleteOptions,
        options: &WriteOptions,
        ask: bool,
    ) -> Result<Deleted, ApiError> {
        let write = Write { resource, target, options };
        let ask = ask && self.admission.handles(Operation::Delete, resource.gvr(), &target.subresource);
        for _ in 0..RETRIES {
            self.consistent().await?;
            let old = find(resource, target).await?;
            check(&write, &old, &how.preconditions)?;
            if ask {
                let old = Some(Value::clone(&old.value));
                let mut attributes = write.attributes(Operation::Delete, None, old);
                how.describe(&mut attributes.options);
                self.admission.admit(&mut attributes).await?;
                self.admission.validate(&attributes).await?;
            }
            if let Some(deleted) = self.delete_once(&write, how, &old).await? {
                return Ok(deleted);
            }
        }
        Err(modified(resource, target))
    }

    /// One try; `None` when the object was changed meanwhile.
    async fn delete_once(
        &self,
        write: &Write<'_>,
        how: &DeleteOptions,
        old: &Arc<Object>,
    ) -> Result<Option<Deleted>, ApiError> {
        let Write { resource, target, options } = *write;
        let mut new = Value::clone(&old.value);
        if how.grace_period.is_some_and(i64::is_negative) {
            return Err(ApiError::bad_request("gracePeriodSeconds must be non-negative"));
        }
        let kind = resource.kind();
        let grace = kind.graceful_delete(&old.value, how.grace_period).unwrap_or_default();
        if !meta::is_deleting(&old.value) {
            kind.begin_delete(&mut new);
        }
        let finalizers = finalizers(&new, how.propagation);
        let namespace_kept = write.is("", "namespaces")
            && old
                .value
                .pointer("/spec/finalizers")
                .and_then(Value::as_array)
                .is_some_and(|list| !list.is_empty());
        let key = resource.key(&target.namespace, &target.name);
        let warnings = Vec::new();
        if finalizers.is_empty() && grace == 0 && !namespace_kept {
            if options.dry_run {
                return Ok(Some(Deleted { object: new, gone: true, warnings }));
            }
            let freed = self.free_all(write, &old.value);
            let deletion =
                commit::commit(&*self.storage, &key, old.revision, commit::Write::Delete, freed).await?;
            let Committed::Yes(revision) = deletion else { return Ok(None) };
            set_resource_version(&mut new, revision);
            return Ok(Some(Deleted { object: new, gone: true, warnings }));
        }

        mark(&mut new, grace)?;
        if finalizers != meta::finalizers(&new) {
            meta::set_finalizers(&mut new, &finalizers)?;
        }
        if write.is("", "namespaces") {
            new["status"]["phase"] = json!("Terminating");
        }
        if options.dry_run || new == *old.value {
            return Ok(Some(Deleted { object: new, gone: false, warnings }));
        }
        let put = commit::Write::Put(resource.encode(&new).await?);
        let marked = commit::commit(&*self.storage, &key, old.revision, put, None).await?;
        let Committed::Yes(revision) = marked else { return Ok(None) };
        set_resource_version(&mut new, revision);
        Ok(Some(Deleted { object: new, gone: false, warnings }))
    }

    /// Deletes every object of a collection that passes the options' filter; returns what they were.
    pub async fn delete_collection(
        &self,
        target: &Target,
        list: &ListOptions,
        how: &DeleteOptions,
        options: &WriteOptions,
    ) -> Result<Vec<Arc<Object>>, ApiError> {
        if how.preconditions.uid.is_some() {
            return Err(ApiError::bad_request("a uid precondition is not allowed for a collection"));
        }
        let items = self.list(target, list).await?.items;
        for object in &items {
            let target = target.named(&object.namespace, &object.name);
            match self.delete(&target, how, options).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(items)
    }
}

/// Do the preconditions hold?
fn check(write: &Write<'_>, old: &Object, wanted: &Preconditions) -> Result<(), ApiError> {
    let conflict = |detail: &str| Err(ApiError::conflict(write.resource.gvr(), &write.target.name, detail));
    let uid = meta::text(&old.value, "uid");
    if let Some(wanted) = wanted.uid.as_deref().filter(|wanted| *wanted != uid) {
        return conflict(&format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
        ));
    }
    if let Some(wanted) = wanted.resource_version.filter(|wanted| *wanted != old.revision) {
        return conflict(&format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object \
             meta: {}",
            old.revision
        ));
    }
    Ok(())
}

/// The finalizers once the wish for the dependents is noted among them. Nothing said leaves the
/// object's own finalizers, the default being background.
fn finalizers(object: &Value, propagation: Option<Propagation>) -> Vec<String> {
    let mut finalizers = meta::finalizers(object);
    let Some(propagation) = propagation else { return finalizers };
    finalizers.retain(|name| name != ORPHAN && name != FOREGROUND);
    match propagation {
        Propagation::Orphan => finalizers.push(ORPHAN.to_owned()),
        Propagation::Foreground => finalizers.push(FOREGROUND.to_owned()),
        Propagation::Background => {}
    }
    finalizers
}

/// Notes that the object is to go in `grace` seconds. A deletion under way is only ever shortened.
fn mark(object: &mut Value, grace: i64) -> Result<(), ApiError> {
    let requested = meta::seconds(&meta::now()).unwrap_or_default();
    if meta::is_deleting(object) {
        let before = object.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
        let Some(before) = before.filter(|before| grace < *before) else { return Ok(()) };
        let end = meta::seconds(meta::text(object, "deletionTimestamp")).unwrap_or(requested);
        let metadata = meta::metadata(object)?;
        metadata.insert("deletionTimestamp".to_owned(), json!(meta::timestamp(end - before + grace)));
        metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
        return Ok(());
    }
    let metadata = meta::metadata(object)?;
    metadata.insert("deletionTimestamp".to_owned(), json!(meta::timestamp(requested + grace)));
    metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
    meta::bump_generation(object)
}
