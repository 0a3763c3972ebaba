//! Update, and the loop under every change of a stored object.
//!
//! A change is a function from the stored object to a proposal. When the object was changed meanwhile,
//! an unconditional change (most patches, subresources) is made again on the new one; one that names a
//! resource version is a conflict.

use std::sync::Arc;

use serde_json::Value;
use skep_admission::Operation;
use skep_api::error::{ApiError, MODIFIED};
use skep_api::field::{Error, ErrorList, Path};
use skep_storage::Revision;

use super::admit::Write;
use super::commit::{self, Committed};
use super::conversions::Conversions;
use super::create::check_place;
use super::fields::own;
use super::read::find;
use super::{Registry, Resource, Target, WriteOptions, Written, meta};
use crate::alloc::{self, Changes};
use crate::cache::{Object, set_resource_version};

/// How often a change is made again before the client is told of the conflict.
const RETRIES: usize = 16;

/// Which part of an object a change may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All but the status.
    Object,
    /// The status.
    Status,
    /// What the subresource's own code changes; it has kept the rest as it was.
    Given,
    /// What the server changes by itself on the way of another request: admission is not asked.
    Own,
}

/// A new version of an object.
pub(super) struct Proposal {
    /// The object.
    pub(super) object: Value,
    /// The resource version it must replace; 0 for any.
    pub(super) revision: Revision,
    /// The managed fields in it are already those of an apply.
    pub(super) applied: bool,
    /// Warnings for the client.
    pub(super) warnings: Vec<String>,
}

/// Makes a proposal of a stored object, which counts once it has missed no conversion.
pub(super) type Propose<'a> = dyn FnMut(&Arc<Object>, &Conversions) -> Result<Proposal, ApiError> + Send + 'a;

impl Proposal {
    /// An object as a client sent it.
    pub(super) fn sent(object: Value) -> Result<Self, ApiError> {
        let revision = meta::sent_revision(&object)?;
        Ok(Self { object, revision, applied: false, warnings: Vec::new() })
    }
}

impl Registry {
    /// Replaces an object, or one of the subresources that have the object's own shape.
    pub async fn update(
        &self,
        target: &Target,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        check_place(&object, target)?;
        match target.subresource.as_str() {
            "" => {
                self.must_name_version(target, &object)?;
                let changed = self
                    .change(target, options, Part::Object, &mut |_, _| Proposal::sent(object.clone()))
                    .await;
                match changed {
                    Err(error) if error.is_not_found() && self.creates_on_update(target) => {
                        self.create(target, object, options).await
                    }
                    other => other,
                }
            }
            "status" => {
                self.change(target, options, Part::Status, &mut |_, _| Proposal::sent(object.clone())).await
            }
            "scale" => self.update_scale(target, &object, options).await,
            "finalize" => self.finalize(target, &object, options).await,
            _ => self.update_given(target, &object, options).await,
        }
    }

    /// Some kinds can only be replaced by somebody who has seen them.
    fn must_name_version(&self, target: &Target, object: &Value) -> Result<(), ApiError> {
        let resource = self.resource(&target.resource)?;
        let kind = resource.kind();
        let free = kind.unconditional_update() || kind.create_on_update();
        if free || meta::sent_revision(object)? != 0 {
            return Ok(());
        }
        let path = Path::new("metadata").child("resourceVersion");
        let error = Error::invalid(&path, "", "must be specified for an update");
        Err(ApiError::invalid(resource.gvk(), &target.name, &ErrorList::from(vec![error])))
    }

    fn creates_on_update(&self, target: &Target) -> bool {
        self.resource(&target.resource).is_ok_and(|resource| resource.kind().create_on_update())
    }

    /// Makes a change, again and again until it meets no other.
    pub(super) async fn change(
        &self,
        target: &Target,
        options: &WriteOptions,
        part: Part,
        propose: &mut Propose<'_>,
    ) -> Result<Written, ApiError> {
        let resource = self.resource(&target.resource)?;
        let write = Write { resource: &resource, target, options };
        for _ in 0..RETRIES {
            self.consistent().await?;
            let old = find(&resource, target).await?;
            let conversions = Conversions::default();
            let proposal = loop {
                let proposal = propose(&old, &conversions);
                if !conversions.resolve(&resource).await? {
                    break proposal?;
                }
            };
            let conditional = proposal.revision != 0 && proposal.revision != old.revision;
            let foreign_uid = meta::text(&proposal.object, "uid");
            let stored_uid = meta::text(&old.value, "uid");
            if !foreign_uid.is_empty() && foreign_uid != stored_uid {
                let detail = format!(
                    "Precondition failed: UID in precondition: {foreign_uid}, UID in object meta: {stored_uid}"
                );
                return Err(ApiError::conflict(resource.gvr(), &target.name, &detail));
            }
            if conditional {
                return Err(modified(&resource, target));
            }
            if let Some(written) = self.change_once(&write, part, &old, proposal).await? {
                return Ok(written);
            }
        }
        Err(modified(&resource, target))
    }

    /// One try; `None` when the object was changed meanwhile.
    async fn change_once(
        &self,
        write: &Write<'_>,
        part: Part,
        old: &Object,
        proposal: Proposal,
    ) -> Result<Option<Written>, ApiError> {
        let Write { resource, target, options } = *write;
        let kind = resource.kind();
        let Proposal { object: mut new, applied, mut warnings, revision } = proposal;
        meta::keep_on_update(&mut new, &old.value)?;
        kind.default(&mut new);
        if part != Part::Own {
            new = self.mutate(write, Operation::Update, new, Some(&old.value)).await?;
            meta::keep_on_update(&mut new, &old.value)?;
        }
        match part {
            Part::Object => kind.prepare_update(&mut new, &old.value),
            Part::Status => kind.prepare_status_update(&mut new, &old.value),
            Part::Given => kind.prepare_subresource(&target.subresource, &mut new, &old.value),
            Part::Own => {}
        }
        kind.default(&mut new);
        let mut allocated = None;
        if part == Part::Object && write.is("", "services") {
            allocated = Some(self.allocate_again(write, &mut new, &old.value)?);
        }
        let errors = match part {
            Part::Object => kind.validate_update(&new, &old.value),
            Part::Status => kind.validate_status_update(&new, &old.value),
            Part::Given => kind.validate_subresource(&target.subresource, &new, &old.value),
            Part::Own => ErrorList::new(),
        };
        write.verdict(&errors, &target.name)?;
        if part != Part::Own {
            new = self.check(write, Operation::Update, new, Some(&old.value)).await?;
        }
        set_resource_version(&mut new, old.revision);
        if !applied {
            new = own(write, Some(&old.value), new).await;
        }
        warnings.extend(match part {
            Part::Object => kind.warnings(&new, Some(&old.value)),
            Part::Status => kind.status_warnings(&new, &old.value),
            Part::Given | Part::Own => Vec::new(),
        });

        let done = may_go(write, &new, &old.value);
        let key = resource.key(&target.namespace, &target.name);
        // What an old key encrypted is written again, so that the key can go.
        let unchanged =
            !done && !self.storage.is_stale(&key) && self.is_stored_as(resource, &new, old).await?;
        if unchanged || options.dry_run {
            let object = if options.dry_run { new } else { Value::clone(&old.value) };
            return Ok(Some(Written { object, created: false, warnings }));
        }
        let what = if done {
            // The last finalizer went: so does the object, with what it had allocated.
            allocated = self.free_all(write, &new);
            commit::Write::Delete
        } else {
            commit::Write::Put(resource.encode(&new).await?)
        };
        match commit::commit(&*self.storage, &key, old.revision, what, allocated).await? {
            Committed::Yes(revision) => {
                set_resource_version(&mut new, revision);
                Ok(Some(Written { object: new, created: false, warnings }))
            }
            Committed::Stale if revision != 0 => Err(modified(resource, target)),
            Committed::Stale | Committed::Taken => Ok(None),
        }
    }

    fn allocate_again(&self, write: &Write<'_>, new: &mut Value, old: &Value) -> Result<Changes, ApiError> {
        alloc::carry_over(new, old);
        let owner = format!("{}/{}", write.target.namespace, write.target.name);
        alloc::plan(&self.pools, owner, new, Some(old))
            .map_err(|errors| ApiError::invalid(write.resource.gvk(), &write.target.name, &errors))
    }

    /// Would writing this change nothing? What a custom resource shows may differ from what is stored
    /// (defaults, another storage version): such a write is one, that is how stored objects migrate.
    async fn is_stored_as(&self, resource: &Resource, new: &Value, old: &Object) -> Result<bool, ApiError> {
        if !is_unchanged(new, &old.value) {
            return Ok(false);
        }
        if resource.lens().is_none() {
            return Ok(true);
        }
        let Some(raw) = resource.cache().get(&old.namespace, &old.name) else { return Ok(false) };
        let mut stored = Value::clone(&raw.value);
        if let Some(metadata) = stored.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
        }
        Ok(is_unchanged(&resource.to_stored(new).await?, &stored))
    }

    /// What a service that goes gives back.
    pub(super) fn free_all(&self, write: &Write<'_>, object: &Value) -> Option<Changes> {
        write.is("", "services").then(|| {
            let mut changes = Changes::new(&self.pools, "");
            changes.free(alloc::held(object));
            changes
        })
    }
}

/// 409: somebody else was faster.
pub(super) fn modified(resource: &Resource, target: &Target) -> ApiError {
    ApiError::conflict(resource.gvr(), &target.name, MODIFIED)
}

/// Was only the last finalizer keeping it?
fn may_go(write: &Write<'_>, new: &Value, old: &Value) -> bool {
    let grace = old.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
    let namespace_kept = write.is("", "namespaces")
        && new.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    meta::is_deleting(old)
        && grace.unwrap_or_default() == 0
        && meta::finalizers(new).is_empty()
        && !namespace_kept
}

/// Are the two the same but for the times of the managed fields?
fn is_unchanged(new: &Value, old: &Value) -> bool {
    let strip = |object: &Value| {
        let mut object = object.clone();
        let managers = object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut);
        for manager in managers.into_iter().flatten().filter_map(Value::as_object_mut) {
            manager.remove("time");
        }
        object
    };
    // Most differences show without copying anything.
    let same = |field: &str| new.get(field) == old.get(field);
    same("spec") && same("status") && same("data") && strip(new) == strip(old)
}
