//! One row of the table of kinds: what a kind is called, where it is kept, and its strategy with what is
//! the same for every kind (metadata, generation, separation of spec and status) added to it.

use serde_json::{Value, json};
use skep_api::error::ApiError;
use skep_api::field::ErrorList;
use skep_api::object::ObjectExt;
use skep_api::resource::{GroupVersionKind, GroupVersionResource};
use skep_api::selector::FieldSelector;

use super::{Strategy, check, meta};
use crate::cache::Fields;

/// A path below an object.
#[derive(Clone, Copy, Debug)]
pub struct Subresource {
    /// The path segment.
    pub name: &'static str,
    /// What travels: group, version, kind.
    pub kind: (&'static str, &'static str, &'static str),
    /// What may be done.
    pub verbs: &'static [&'static str],
}

/// Where the objects of a kind are kept.
#[derive(Clone, Copy)]
pub enum Storage {
    /// Under its own group and plural.
    Own,
    /// As another kind of the table: `from` turns what is stored into this kind, `to` does the reverse.
    Alias {
        /// The group that stores.
        group: &'static str,
        /// The version that stores.
        version: &'static str,
        /// The plural that stores.
        plural: &'static str,
        /// Stored to served.
        from: fn(Value) -> Value,
        /// Served to stored.
        to: fn(Value) -> Value,
    },
    /// Nowhere: answered by the server (reviews).
    Virtual,
}

/// One row of the table of kinds.
pub struct KindRow {
    /// API group, empty for core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Plural, the resource in paths.
    pub plural: &'static str,
    /// Short names of kubectl.
    pub short_names: &'static [&'static str],
    /// Categories of kubectl.
    pub categories: &'static [&'static str],
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Paths of fields whose change bumps `metadata.generation`; none if the kind has no generation.
    pub generation: &'static [&'static str],
    /// Paths below an object.
    pub subresources: &'static [Subresource],
    /// What may be done.
    pub verbs: &'static [&'static str],
    /// Where objects are kept.
    pub storage: Storage,
    /// Since when it is going, and what takes its place, as clients are told: `deprecated in v1.33+; use …`.
    pub deprecated: Option<&'static str>,
    /// The rules.
    pub strategy: &'static dyn Strategy,
}

impl std::fmt::Debug for KindRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KindRow({})", self.gvk())
    }
}

impl KindRow {
    /// Its group, version and kind.
    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(self.group, self.version, self.kind)
    }

    /// Its group, version and resource.
    pub fn gvr(&self) -> GroupVersionResource {
        GroupVersionResource::new(self.group, self.version, self.plural)
    }

    /// The singular name: the kind in lower case.
    pub fn singular(&self) -> String {
        self.kind.to_lowercase()
    }

    /// A subresource.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// The warning to whoever uses it, of a kind that is going.
    pub fn deprecation(&self) -> Option<String> {
        let slash = if self.group.is_empty() { "" } else { "/" };
        self.deprecated.map(|fate| format!("{}{slash}{} {} is {fate}", self.group, self.version, self.kind))
    }

    /// Whether the status is written on its own.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Whether the server answers without storing.
    pub fn is_virtual(&self) -> bool {
        matches!(self.storage, Storage::Virtual)
    }

    /// Whether a verb is served.
    pub fn serves(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// Fills in defaults.
    pub fn default(&self, object: &mut Value) {
        self.strategy.default(object);
    }

    /// What the system decides about a new object.
    pub fn prepare_create(&self, object: &mut Value) {
        if self.has_status() && self.strategy.empties_status() {
            object.set(&["status"], json!({}));
        }
        if self.generation.is_empty() {
            object.unset(&["metadata", "generation"]);
        } else {
            object.set_generation(1);
        }
        self.strategy.prepare_for_create(object);
    }

    /// What the system decides about a changed object: the status stays, the generation counts.
    pub fn prepare_update(&self, new: &mut Value, old: &Value) {
        if self.has_status() {
            restore(new, old, "status");
        }
        self.strategy.prepare_for_update(new, old);
        self.count_generation(new, old);
    }

    /// What another subresource may change, put into what is stored.
    pub fn prepare_subresource(&self, name: &str, new: &mut Value, old: &Value) {
        // Who manages what is noted apart from what may change.
        let managers = new.at(&["metadata", "managedFields"]).cloned();
        self.strategy.prepare_for_subresource(name, new, old);
        if let Some(managers) = managers {
            new.set(&["metadata", "managedFields"], managers);
        }
        self.count_generation(new, old);
    }

    /// Bumps the generation when a field it counts has changed, and keeps it otherwise.
    fn count_generation(&self, new: &mut Value, old: &Value) {
        let changed = |field: &&str| {
            let path: Vec<&str> = field.split('.').collect();
            let at = |object: &Value| object.at(&path).cloned().unwrap_or(Value::Null);
            !check::same(&at(new), &at(old))
        };
        if self.generation.iter().any(changed) {
            new.set_generation(old.generation() + 1);
        } else if old.generation() > 0 {
            new.set_generation(old.generation());
        } else {
            new.unset(&["metadata", "generation"]);
        }
    }

    /// What the system decides about a changed status: everything but status and metadata stays.
    pub fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        let fields: Vec<String> = new
            .as_object()
            .into_iter()
            .chain(old.as_object())
            .flat_map(|map| map.keys().cloned())
            .filter(|key| !["apiVersion", "kind", "metadata", "status"].contains(&key.as_str()))
            .collect();
        for field in fields {
            restore(new, old, &field);
        }
        for field in
            ["generation", "ownerReferences", "finalizers", "deletionTimestamp", "deletionGracePeriodSeconds"]
        {
            match old.at(&["metadata", field]) {
                Some(value) => new.set(&["metadata", field], value.clone()),
                None => {
                    new.unset(&["metadata", field]);
                }
            }
        }
        self.strategy.prepare_for_status_update(new, old);
    }

    /// Every error of a new object.
    pub fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = check::check(object, |root| {
            meta::validate(&root.child("metadata"), self.namespaced, self.strategy.name_grammar());
        });
        errors.extend(self.strategy.validate_create(object));
        errors
    }

    /// Every error of a changed object.
    pub fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = check::check(new, |root| meta::validate_update(&root.child("metadata"), old));
        errors.extend(self.strategy.validate_update(new, old));
        errors
    }

    /// Every error of a changed status.
    pub fn validate_status_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = check::check(new, |root| meta::validate_update(&root.child("metadata"), old));
        errors.extend(self.strategy.validate_status_update(new, old));
        errors
    }

    /// Every error of what another subresource changed.
    pub fn validate_subresource(&self, name: &str, new: &Value, old: &Value) -> ErrorList {
        let mut errors = check::check(new, |root| meta::validate_update(&root.child("metadata"), old));
        errors.extend(self.strategy.validate_subresource(name, new, old));
        errors
    }

    /// A validation result as an error for the client.
    pub fn reject(&self, object: &Value, errors: &ErrorList) -> Result<(), ApiError> {
        if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(&self.gvk(), object.name(), errors)) }
    }

    /// The fields a selector may name, with their values.
    pub fn fields(&self, object: &Value) -> Fields {
        let mut fields: Fields = vec![("metadata.name".into(), object.name().to_owned())];
        if self.namespaced {
            fields.push(("metadata.namespace".into(), object.namespace().to_owned()));
        }
        let value = |field: &&'static str| ((*field).into(), self.strategy.selectable_value(object, field));
        fields.extend(self.strategy.selectable().iter().map(value));
        fields
    }

    /// Refuses a selector over fields this kind does not offer.
    pub fn check_field_selector(&self, selector: &FieldSelector) -> Result<(), ApiError> {
        for requirement in selector.requirements() {
            let field = requirement.field.as_str();
            let known = field == "metadata.name"
                || (field == "metadata.namespace" && self.namespaced)
                || self.strategy.selectable().contains(&field);
            if !known {
                let why = if self.strategy.selectable().is_empty() {
                    format!(
                        "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    )
                } else {
                    format!("field label not supported: {field}")
                };
                return Err(ApiError::bad_request(format!(
                    "Unable to find {:?} that match label selector \"\", field selector {:?}: {why}",
                    self.gvr().to_string(),
                    selector.to_string()
                )));
            }
        }
        Ok(())
    }
}

/// Puts a top-level field back as it was.
fn restore(new: &mut Value, old: &Value, field: &str) {
    match old.get(field) {
        Some(value) => new.set(&[field], value.clone()),
        None => {
            new.unset(&[field]);
        }
    }
}
