//! What callers say to the registry, and what it answers.

use bytes::Bytes;
use serde_json::Value;
use skep_admission::Notes;
use skep_api::resource::GroupVersionResource;
use skep_api::user::UserInfo;
use skep_machinery::codec::FieldValidation;
use skep_storage::Revision;

/// Which object, or which collection when `name` is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The resource.
    pub resource: GroupVersionResource,
    /// The subresource, empty for the object itself.
    pub subresource: String,
    /// The namespace; empty for cluster-scoped objects and for lists over all namespaces.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Target {
    /// An object.
    pub fn new(
        resource: GroupVersionResource,
        namespace: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self { resource, subresource: String::new(), namespace: namespace.into(), name: name.into() }
    }

    /// The same object's subresource; empty leads back to the object.
    #[must_use]
    pub fn below(mut self, subresource: impl Into<String>) -> Self {
        self.subresource = subresource.into();
        self
    }

    /// The same collection's object of that name.
    #[must_use]
    pub fn named(&self, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into(), ..self.clone() }
    }
}

/// How a write is to be done.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Who writes.
    pub user: UserInfo,
    /// Do everything but store it.
    pub dry_run: bool,
    /// Who owns the fields.
    pub field_manager: String,
    /// Apply: take fields over from other managers.
    pub force: bool,
    /// What to do about unknown fields of a patched object.
    pub field_validation: FieldValidation,
    /// Where admission leaves warnings and audit annotations.
    pub notes: Notes,
}

/// What a write did.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object afterwards, resource version included.
    pub object: Value,
    /// It was created (and not changed).
    pub created: bool,
    /// Warnings for the client.
    pub warnings: Vec<String>,
}

/// What must hold for a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// The object's uid.
    pub uid: Option<String>,
    /// Its resource version.
    pub resource_version: Option<Revision>,
}

/// What becomes of the objects a deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They lose their owner.
    Orphan,
    /// They are deleted afterwards.
    Background,
    /// They are deleted before.
    Foreground,
}

/// How an object is to be deleted.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds a pod gets to stop.
    pub grace_period: Option<i64>,
    /// What must hold.
    pub preconditions: Preconditions,
    /// What becomes of its dependents.
    pub propagation: Option<Propagation>,
}

impl DeleteOptions {
    /// Adds them to a `DeleteOptions` object.
    pub(super) fn describe(&self, options: &mut Value) {
        if let Some(seconds) = self.grace_period {
            options["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(propagation) = self.propagation {
            options["propagationPolicy"] = match propagation {
                Propagation::Orphan => "Orphan",
                Propagation::Background => "Background",
                Propagation::Foreground => "Foreground",
            }
            .into();
        }
        if let Some(uid) = &self.preconditions.uid {
            options["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(version) = self.preconditions.resource_version {
            options["preconditions"]["resourceVersion"] = version.to_string().into();
        }
    }
}

/// What a deletion did.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// The object's last state, or its present one while it waits for its finalizers or grace period.
    pub object: Value,
    /// It is gone.
    pub gone: bool,
    /// Warnings for the client.
    pub warnings: Vec<String>,
}

/// A patch, parsed.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902, as sent: the order of keys and duplicates are the parser's business.
    Json(Bytes),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own, which knows list keys.
    Strategic(Value),
    /// Server-side apply.
    Apply(Value),
}
