//! What a kind says about itself: defaults, rules, what may change, how it prints.
//!
//! The generic store drives a [`KindRow`], never a [`Strategy`] directly: the row adds what is the same for
//! every kind (metadata, generation, separation of spec and status). Strategies are pure: no I/O,
//! and no clock but for the stamps that the API itself puts on conditions and phases.
//! Order of a create: `default`, `prepare_create`, (admission), `default`, `validate_create`.
//! Order of an update: `default`, `prepare_update` or `prepare_status_update`, (admission),
//! `validate_update` or `validate_status_update`.

pub mod address;
pub mod check;
mod kind;
pub mod meta;
pub mod printer;
mod row;
mod versions;

pub use kind::{Below, Kind};
pub use row::{KindRow, Storage, Subresource};

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::ErrorList;
use skep_api::names;
use skep_api::object::ObjectExt;

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

    /// What is wrong with a new object, where more is asked of new ones.
    fn validate_create(&self, object: &Value) -> ErrorList {
        self.validate(object)
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

    /// Warnings to a client that writes this object over the old one, if there is one.
    fn warnings(&self, _object: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// Warnings to a client that writes this status.
    fn status_warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }

    /// The grace period of a deletion in seconds, given the one asked for. `None`: this kind is deleted at
    /// once; `Some(0)`: at once although the kind has graceful deletion.
    fn graceful_delete(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// Notes in an object that its deletion begins: finalizers, conditions.
    fn begin_delete(&self, _object: &mut Value) {}

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
