//! Namespace: a finalizer in the spec holds it until the namespace controller has emptied it.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::ErrorList;
use skep_api::names;
use skep_api::object::ObjectExt;

use super::{cluster, status, subresource};
use crate::strategy::check::{At, check};
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy, default_text};

/// The row of the table of kinds. There is no deletecollection of namespaces.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["ns"],
    verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
    subresources: &[
        status("", "v1", "Namespace"),
        subresource("finalize", "", "v1", "Namespace", &["update"]),
    ],
    ..cluster("", "v1", "Namespace", "namespaces", &Namespace)
};

const FINALIZER: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

struct Namespace;

fn finalizer(at: &At<'_>) {
    at.invalid_text(names::qualified_name(at.text()));
    if !at.text().contains('/') && ![FINALIZER, "orphan", "foregroundDeletion"].contains(&at.text()) {
        at.invalid_text(vec![
            "name is neither a standard finalizer name nor is it fully qualified".to_owned(),
        ]);
    }
}

impl Strategy for Namespace {
    fn default(&self, object: &mut Value) {
        let name = object.name().to_owned();
        if !name.is_empty() {
            object.set_label(NAME_LABEL, &name);
        }
        default_text(object, &["status", "phase"], "Active");
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object.set(&["status"], json!({"phase": "Active"}));
        let finalizers = object.items(&["spec", "finalizers"]);
        if !finalizers.iter().any(|f| f == FINALIZER) {
            let mut finalizers = finalizers.to_vec();
            finalizers.push(FINALIZER.into());
            object.set(&["spec", "finalizers"], finalizers);
        }
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        new.set(&["spec", "finalizers"], old.items(&["spec", "finalizers"]).to_vec());
    }

    /// `finalize` changes the finalizers in the spec, and metadata.
    fn prepare_for_subresource(&self, _name: &str, new: &mut Value, old: &Value) {
        match old.get("status") {
            Some(status) => new.set(&["status"], status.clone()),
            None => {
                new.unset(&["status"]);
            }
        }
    }

    fn name_grammar(&self) -> fn(&str) -> Vec<String> {
        names::dns1123_label
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let finalizers = root.down(&["spec", "finalizers"]);
            for item in finalizers.items() {
                finalizer(&item.told_at(finalizers.path().clone()));
            }
        })
    }

    /// The finalizers were checked when they came.
    fn validate_update(&self, _new: &Value, _old: &Value) -> ErrorList {
        ErrorList::new()
    }

    fn validate_subresource(&self, _name: &str, new: &Value, _old: &Value) -> ErrorList {
        check(new, |root| root.down(&["spec", "finalizers"]).items().iter().for_each(finalizer))
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> ErrorList {
        check(new, |root| {
            let status = root.child("status");
            // Upstream writes the field with a capital.
            let phase = status.child("phase").told_at(status.path().child("Phase"));
            match (new.deletion_timestamp(), phase.text()) {
                (None, "Active") | (Some(_), "Terminating") => {}
                (None, _) => phase.invalid("may only be 'Active' if `deletionTimestamp` is empty"),
                (Some(_), _) => {
                    phase.invalid("may only be 'Terminating' if `deletionTimestamp` is not empty");
                }
            }
        })
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[printer::NAME, printer::text("Status"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), object.text(&["status", "phase"]).into(), printer::age(object, now)]
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["status.phase"]
    }
}
