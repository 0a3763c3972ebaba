//! DaemonSet: one pod on every node that fits.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::ErrorList;
use skep_api::object::ObjectExt;

use super::pod::warnings;
use super::replica_set::selector_stays;
use super::workload::{self, counts};
use super::{namespaced, status};
use crate::strategy::check::check;
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy, default_text, default_to};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["ds"],
    categories: &["all"],
    generation: &["spec"],
    subresources: &[status("apps", "v1", "DaemonSet")],
    ..namespaced("apps", "v1", "DaemonSet", "daemonsets", &DaemonSet)
};

struct DaemonSet;

const COUNTS: [&str; 4] =
    ["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"];

impl Strategy for DaemonSet {
    fn default(&self, object: &mut Value) {
        default_text(object, &["spec", "updateStrategy", "type"], "RollingUpdate");
        if object.text(&["spec", "updateStrategy", "type"]) == "RollingUpdate" {
            default_to(object, &["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"], 1);
            default_to(object, &["spec", "updateStrategy", "rollingUpdate", "maxSurge"], 0);
        }
        workload::default_spec(object, &[("revisionHistoryLimit", json!(10))]);
        workload::default_template(object, &["spec", "template"]);
    }

    fn prepare_for_create(&self, object: &mut Value) {
        for field in COUNTS {
            object.set(&["status", field], 0);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            workload::selector(&spec, "daemonset");
            workload::template(&spec, "DaemonSet");
            counts(&spec, &["minReadySeconds", "revisionHistoryLimit"]);
            let strategy = spec.child("updateStrategy");
            match strategy.child("type").text() {
                "OnDelete" => {}
                "RollingUpdate" if strategy.child("rollingUpdate").is_set() => {
                    workload::rolling_update(&strategy.child("rollingUpdate"));
                }
                "RollingUpdate" => strategy.child("rollingUpdate").required(""),
                _ => strategy.child("type").one_of(&["OnDelete", "RollingUpdate"]),
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(new);
        errors.extend(selector_stays(new, old));
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> ErrorList {
        check(new, |root| {
            let status = root.child("status");
            counts(&status, &COUNTS);
            counts(
                &status,
                &["observedGeneration", "updatedNumberScheduled", "numberAvailable", "numberUnavailable"],
            );
        })
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        warnings::template(object, "spec.template")
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::integer("Desired"),
            printer::integer("Current"),
            printer::integer("Ready"),
            printer::integer("Up-to-date"),
            printer::integer("Available"),
            printer::text("Node Selector"),
            printer::AGE,
            printer::wide("Containers"),
            printer::wide("Images"),
            printer::wide("Selector"),
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [names, images] = printer::containers(&object["spec"]["template"]);
        let status = |field: &str| printer::count(object, &["status", field]);
        vec![
            object.name().into(),
            status("desiredNumberScheduled"),
            status("currentNumberScheduled"),
            status("numberReady"),
            status("updatedNumberScheduled"),
            status("numberAvailable"),
            printer::labels(object.map(&["spec", "template", "spec", "nodeSelector"])).into(),
            printer::age(object, now),
            names,
            images,
            printer::selector(object.at(&["spec", "selector"])).into(),
        ]
    }
}
