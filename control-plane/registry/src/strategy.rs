//! What a kind says about itself: defaults, rules, what may change, how it prints.
//!
//! The generic store drives a [`KindRow`], never a [`Strategy`] directly: the row adds what is the same for
//! every kind (metadata, generation, separation of spec and status). Strategies are pure: no I/O, no clock.
//! Order of a create: `default`, `prepare_create`, (admission), `default`, `validate_create`.
//! Order of an update: `default`, `prepare_update` or `prepare_status_update`, (admission),
//! `validate_update` or `validate_status_update`.

pub mod check;
pub mod meta;
pub mod printer;

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::error::ApiError;
use skep_api::field::ErrorList;
use skep_api::names;
use skep_api::object::ObjectExt;
use skep_api::resource::{GroupVersionKind, GroupVersionResource};
use skep_api::selector::FieldSelector;

use printer::Column;

/// The rules of one kind. Every method has a body for the plainest kind; a kind overrides what differs.
pub trait Strategy: Send + Sync {
    /// Fills in defaults. Idempotent.
    fn default(&self, _object: &mut Value) {}

    /// Last changes before a create is validated, after the status was emptied.
    fn prepare_for_create(&self, _object: &mut Value) {}

    /// Last changes before an update is validated, after the old status was put back.
    fn prepare_for_update(&self, _new: &mut Value, _old: &Value) {}

    /// Last changes before a status update is validated, after everything but the status was put back.
    fn prepare_for_status_update(&self, _new: &mut Value, _old: &Value) {}

    /// Whether a create drops the status that came with it. Nodes register with theirs.
    fn empties_status(&self) -> bool {
        true
    }

    /// The grammar of names.
    fn name_grammar(&self) -> fn(&str) -> Vec<String> {
        names::dns1123_subdomain
    }

    /// What is wrong with an object, metadata aside.
    fn validate(&self, _object: &Value) -> ErrorList {
        ErrorList::new()
    }

    /// What is wrong with a change, metadata aside.
    fn validate_update(&self, new: &Value, _old: &Value) -> ErrorList {
        self.validate(new)
    }

    /// What is wrong with a change of the status.
    fn validate_status_update(&self, _new: &Value, _old: &Value) -> ErrorList {
        ErrorList::new()
    }

    /// The columns of its table.
    fn columns(&self) -> &'static [Column] {
        printer::PLAIN
    }

    /// One cell for each of [`Strategy::columns`].
    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        printer::plain(object)
    }

    /// Fields a field selector may name, beside `metadata.name` and `metadata.namespace`.
    fn selectable(&self) -> &'static [&'static str] {
        &[]
    }

    /// The value of one of [`Strategy::selectable`]; by default what the path leads to.
    fn selectable_value(&self, object: &Value, field: &str) -> String {
        let path: Vec<&str> = field.split('.').collect();
        match object.at(&path) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Bool(flag)) => flag.to_string(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        }
    }

    /// Last changes before a write to another subresource (`finalize`, `approval`, `ephemeralcontainers`,
    /// `resize`): takes over what that path may change. By default nothing.
    fn prepare_for_subresource(&self, _name: &str, new: &mut Value, old: &Value) {
        let version = new.resource_version().to_owned();
        *new = old.clone();
        new.set_resource_version(&version);
    }

    /// What is wrong with a write to another subresource.
    fn validate_subresource(&self, _name: &str, _new: &Value, _old: &Value) -> ErrorList {
        ErrorList::new()
    }

    /// Where the scale subresource finds its numbers.
    fn scale(&self) -> Option<ScalePaths> {
        None
    }

    /// Warnings to a client that writes this object.
    fn warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }

    /// The grace period of a deletion in seconds, given the one asked for. `None`: this kind is deleted at
    /// once; `Some(0)`: at once although the kind has graceful deletion.
    fn graceful_delete(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// Whether a PUT may create.
    fn create_on_update(&self) -> bool {
        false
    }

    /// Whether an update may come without a resourceVersion.
    fn unconditional_update(&self) -> bool {
        true
    }
}

/// Where a scalable kind keeps its replica counts.
#[derive(Clone, Copy, Debug)]
pub struct ScalePaths {
    /// Wanted replicas.
    pub spec_replicas: &'static [&'static str],
    /// Replicas there are.
    pub status_replicas: &'static [&'static str],
    /// The selector: a `metav1.LabelSelector`, or a plain map of labels.
    pub selector: &'static [&'static str],
}

impl ScalePaths {
    /// The `autoscaling/v1 Scale` of an object.
    pub fn read(&self, object: &Value) -> Value {
        use skep_api::selector::LabelSelector;
        let selector = object.at(self.selector);
        let is_object =
            selector.is_some_and(|s| s.get("matchLabels").or(s.get("matchExpressions")).is_some());
        let text = if is_object {
            LabelSelector::from_object(selector).map(|s| s.to_string()).unwrap_or_default()
        } else {
            selector
                .and_then(Value::as_object)
                .map(|m| LabelSelector::from_map(m).to_string())
                .unwrap_or_default()
        };
        let mut metadata = json!({});
        for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
            if let Some(value) = object.at(&["metadata", field]) {
                metadata.set(&[field], value.clone());
            }
        }
        let mut status = json!({"replicas": object.int(self.status_replicas).unwrap_or(0)});
        if !text.is_empty() {
            status.set(&["selector"], text);
        }
        json!({
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": metadata,
            "spec": {"replicas": object.int(self.spec_replicas).unwrap_or(0)},
            "status": status,
        })
    }

    /// Writes `spec.replicas` of a Scale (validated before) into an object.
    pub fn write(&self, object: &mut Value, scale: &Value) {
        object.set(self.spec_replicas, scale.int(&["spec", "replicas"]).unwrap_or(0));
    }

    /// What is wrong with a Scale.
    pub fn validate(scale: &Value) -> ErrorList {
        check::check(scale, |root| root.down(&["spec", "replicas"]).non_negative())
    }
}

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
        self.strategy.prepare_for_subresource(name, new, old);
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
        errors.extend(self.strategy.validate(object));
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
    pub fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let mut fields = vec![("metadata.name", object.name().to_owned())];
        if self.namespaced {
            fields.push(("metadata.namespace", object.namespace().to_owned()));
        }
        let value = |field: &&'static str| (*field, self.strategy.selectable_value(object, field));
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

/// Sets a field that is absent or null (defaulting).
pub fn default_to(object: &mut Value, path: &[&str], value: impl Into<Value>) {
    if object.at(path).is_none() {
        object.set(path, value);
    }
}

/// Sets a string that is absent or empty (defaulting).
pub fn default_text(object: &mut Value, path: &[&str], value: &str) {
    if object.text(path).is_empty() {
        object.set(path, value);
    }
}

/// The items of a list at a path, to change.
pub fn items_mut<'a>(object: &'a mut Value, path: &[&str]) -> impl Iterator<Item = &'a mut Value> {
    let mut here = Some(object);
    for step in path {
        here = here.and_then(|value| value.get_mut(step));
    }
    here.and_then(Value::as_array_mut).into_iter().flatten()
}
