//! ReplicaSet: so many pods of one template.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::ErrorList;
use skep_api::object::ObjectExt;

use super::pod::warnings;
use super::replication_controller::{self, replica_status};
use super::workload::{self, SCALE_PATHS, counts};
use super::{SCALE, namespaced, status};
use crate::strategy::check::check;
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, ScalePaths, Strategy};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["rs"],
    categories: &["all"],
    generation: &["spec"],
    subresources: &[status("apps", "v1", "ReplicaSet"), SCALE],
    ..namespaced("apps", "v1", "ReplicaSet", "replicasets", &ReplicaSet)
};

struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn default(&self, object: &mut Value) {
        workload::default_spec(object, &[("replicas", json!(1))]);
        workload::default_template(object, &["spec", "template"], false);
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object.set(&["status"], json!({"replicas": 0}));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            counts(&spec, &["replicas", "minReadySeconds"]);
            // Upstream says deployment here.
            workload::selector(&spec, "deployment");
            workload::template(&spec, "ReplicaSet");
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(new);
        errors.extend(selector_stays(new, old));
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> ErrorList {
        replica_status(new)
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        warnings::named_template(object, old, "spec.template")
    }

    fn columns(&self) -> &'static [Column] {
        replication_controller::COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        replication_controller::row(object, now, printer::selector(object.at(&["spec", "selector"])))
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn selectable_value(&self, object: &Value, _field: &str) -> String {
        object.int(&["status", "replicas"]).unwrap_or(0).to_string()
    }

    fn scale(&self) -> Option<ScalePaths> {
        Some(SCALE_PATHS)
    }
}

/// In apps/v1 the selector is for ever.
pub(super) fn selector_stays(new: &Value, old: &Value) -> ErrorList {
    check(new, |root| {
        let selector = root.child("spec").child("selector");
        selector.immutable(old.at(&["spec", "selector"]).unwrap_or(&Value::Null));
    })
}
