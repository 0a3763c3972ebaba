//! Deployment: ReplicaSets over time, rolled from one template to the next.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::{Error, ErrorList};
use skep_api::object::ObjectExt;

use super::pod::warnings;
use super::replica_set::selector_stays;
use super::workload::{self, SCALE_PATHS, counts};
use super::{SCALE, namespaced, status};
use crate::strategy::check::check;
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, ScalePaths, Strategy, default_text, default_to};

/// The row of the table of kinds. An annotation counts as a new generation: rollbacks are recorded there.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["deploy"],
    categories: &["all"],
    generation: &["spec", "metadata.annotations"],
    subresources: &[status("apps", "v1", "Deployment"), SCALE],
    ..namespaced("apps", "v1", "Deployment", "deployments", &Deployment)
};

struct Deployment;

impl Strategy for Deployment {
    fn default(&self, object: &mut Value) {
        workload::default_spec(
            object,
            &[
                ("replicas", json!(1)),
                ("revisionHistoryLimit", json!(10)),
                ("progressDeadlineSeconds", json!(600)),
            ],
        );
        default_text(object, &["spec", "strategy", "type"], "RollingUpdate");
        if object.text(&["spec", "strategy", "type"]) == "RollingUpdate" {
            default_to(object, &["spec", "strategy", "rollingUpdate", "maxUnavailable"], "25%");
            default_to(object, &["spec", "strategy", "rollingUpdate", "maxSurge"], "25%");
        }
        workload::default_template(object, &["spec", "template"], false);
    }

    /// Labels belong to the spec's writers.
    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        match old.at(&["metadata", "labels"]) {
            Some(labels) => new.set(&["metadata", "labels"], labels.clone()),
            None => {
                new.unset(&["metadata", "labels"]);
            }
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            counts(&spec, &["replicas"]);
            workload::selector(&spec, "deployment");
            // Upstream tells of the ReplicaSets that will be.
            workload::template(&spec, "ReplicaSet");
            let strategy = spec.child("strategy");
            let rolling = strategy.child("rollingUpdate");
            match strategy.child("type").text() {
                "Recreate" if rolling.is_set() => {
                    rolling.forbidden("may not be specified when strategy `type` is 'Recreate'");
                }
                "Recreate" => {}
                "RollingUpdate" if rolling.is_set() => workload::rolling_update(&rolling),
                "RollingUpdate" => rolling.required("this should be defaulted and never be nil"),
                _ => strategy.error(Error::not_supported(
                    strategy.path(),
                    strategy.value().clone(),
                    &["Recreate", "RollingUpdate"],
                )),
            }
            counts(&spec, &["minReadySeconds", "revisionHistoryLimit"]);
            let deadline = spec.child("progressDeadlineSeconds");
            deadline.non_negative();
            if let (Some(seconds), ready) = (deadline.int(), spec.child("minReadySeconds").int().unwrap_or(0))
                && seconds <= ready
            {
                deadline.invalid("must be greater than minReadySeconds");
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(new);
        errors.extend(selector_stays(new, old));
        errors
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> ErrorList {
        check(new, |root| {
            let status = root.child("status");
            let parts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
            counts(&status, &["observedGeneration", "replicas"]);
            counts(&status, &parts);
            counts(&status, &["unavailableReplicas", "terminatingReplicas"]);
            workload::at_most(&status, &parts, "replicas", "status.replicas");
            workload::at_most(&status, &["availableReplicas"], "readyReplicas", "readyReplicas");
            workload::collisions(&status, old);
        })
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        warnings::named_template(object, old, "spec.template")
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::text("Ready"),
            printer::text("Up-to-date"),
            printer::text("Available"),
            printer::AGE,
            printer::wide("Containers"),
            printer::wide("Images"),
            printer::wide("Selector"),
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [names, images] = printer::containers(&object["spec"]["template"]);
        let desired = object.int(&["spec", "replicas"]).unwrap_or(0);
        vec![
            object.name().into(),
            workload::ratio(object, &["status", "readyReplicas"], desired),
            printer::count(object, &["status", "updatedReplicas"]),
            printer::count(object, &["status", "availableReplicas"]),
            printer::age(object, now),
            names,
            images,
            printer::selector(object.at(&["spec", "selector"])).into(),
        ]
    }

    fn scale(&self) -> Option<ScalePaths> {
        Some(SCALE_PATHS)
    }
}
