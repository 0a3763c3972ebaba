//! ReplicationController: the first of the controllers, with a plain map as selector.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::ErrorList;
use skep_api::object::ObjectExt;
use skep_api::selector::LabelSelector;

use super::pod::warnings;
use super::workload::{self, SCALE_PATHS, counts};
use super::{SCALE, namespaced, status};
use crate::strategy::check::check;
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, ScalePaths, Strategy};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["rc"],
    categories: &["all"],
    generation: &["spec"],
    subresources: &[status("", "v1", "ReplicationController"), SCALE],
    ..namespaced("", "v1", "ReplicationController", "replicationcontrollers", &ReplicationController)
};

/// Columns of ReplicationControllers and ReplicaSets.
pub(super) static COLUMNS: &[Column] = &[
    printer::NAME,
    printer::integer("Desired"),
    printer::integer("Current"),
    printer::integer("Ready"),
    printer::AGE,
    printer::wide("Containers"),
    printer::wide("Images"),
    printer::wide("Selector"),
];

/// Their row.
pub(super) fn row(object: &Value, now: Timestamp, selector: String) -> Vec<Value> {
    let [names, images] = printer::containers(&object["spec"]["template"]);
    vec![
        object.name().into(),
        printer::count(object, &["spec", "replicas"]),
        printer::count(object, &["status", "replicas"]),
        printer::count(object, &["status", "readyReplicas"]),
        printer::age(object, now),
        names,
        images,
        selector.into(),
    ]
}

struct ReplicationController;

impl Strategy for ReplicationController {
    fn default(&self, object: &mut Value) {
        let labels = object.at(&["spec", "template", "metadata", "labels"]).cloned();
        if let Some(labels) = labels.filter(|l| l.as_object().is_some_and(|m| !m.is_empty())) {
            if object.map(&["spec", "selector"]).is_none_or(serde_json::Map::is_empty) {
                object.set(&["spec", "selector"], labels.clone());
            }
            if object.labels().is_none_or(serde_json::Map::is_empty) {
                object.set(&["metadata", "labels"], labels);
            }
        }
        workload::default_spec(object, &[("replicas", json!(1))]);
        workload::default_template(object, &["spec", "template"], true);
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object.set(&["status"], json!({"replicas": 0}));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            counts(&spec, &["minReadySeconds", "replicas"]);
            let selector = spec.child("selector");
            if selector.require() {
                selector.labels();
                if let Some(map) = selector.value().as_object() {
                    workload::matches(&spec, &LabelSelector::from_map(map));
                }
            }
            if spec.child("template").is_set() {
                workload::template(&spec, "ReplicationController");
            } else {
                spec.child("template").required("");
            }
        })
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> ErrorList {
        replica_status(new)
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        warnings::named_template(object, old, "spec.template")
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        row(object, now, printer::labels(object.map(&["spec", "selector"])))
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

/// Replica counts of a status are 0 or more and fit each other.
pub(super) fn replica_status(object: &Value) -> ErrorList {
    check(object, |root| {
        let status = root.child("status");
        let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        counts(&status, &["replicas"]);
        counts(&status, &parts);
        counts(&status, &["observedGeneration", "terminatingReplicas"]);
        workload::at_most(&status, &parts, "replicas", "status.replicas");
        workload::at_most(&status, &["availableReplicas"], "readyReplicas", "readyReplicas");
    })
}
