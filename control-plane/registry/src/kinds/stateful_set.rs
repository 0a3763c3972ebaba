//! StatefulSet: pods with names and volumes of their own, in order.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::ErrorList;
use skep_api::object::ObjectExt;

use super::pod::warnings;
use super::workload::{self, SCALE_PATHS, counts};
use super::{SCALE, namespaced, pvc, status};
use crate::strategy::check::{check, same};
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, ScalePaths, Strategy, default_text, default_to, items_mut};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["sts"],
    categories: &["all"],
    generation: &["spec"],
    subresources: &[status("apps", "v1", "StatefulSet"), SCALE],
    ..namespaced("apps", "v1", "StatefulSet", "statefulsets", &StatefulSet)
};

struct StatefulSet;

const MUTABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];
const FROZEN: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

impl Strategy for StatefulSet {
    fn default(&self, object: &mut Value) {
        default_text(object, &["spec", "podManagementPolicy"], "OrderedReady");
        default_text(object, &["spec", "updateStrategy", "type"], "RollingUpdate");
        if object.text(&["spec", "updateStrategy", "type"]) == "RollingUpdate" {
            default_to(object, &["spec", "updateStrategy", "rollingUpdate", "partition"], 0);
        }
        for field in ["whenDeleted", "whenScaled"] {
            default_text(object, &["spec", "persistentVolumeClaimRetentionPolicy", field], "Retain");
        }
        workload::default_spec(object, &[("replicas", json!(1)), ("revisionHistoryLimit", json!(10))]);
        workload::default_template(object, &["spec", "template"]);
        for claim in items_mut(object, &["spec", "volumeClaimTemplates"]) {
            default_text(claim, &["apiVersion"], "v1");
            default_text(claim, &["kind"], "PersistentVolumeClaim");
            pvc::default(claim);
            default_text(claim, &["status", "phase"], "Pending");
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object.set(&["status"], json!({"replicas": 0, "availableReplicas": 0}));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            spec.child("podManagementPolicy").require_one_of(&["OrderedReady", "Parallel"]);
            let strategy = spec.child("updateStrategy");
            match strategy.child("type").text() {
                "" => strategy.required(""),
                "OnDelete" if strategy.child("rollingUpdate").is_set() => {
                    strategy
                        .child("rollingUpdate")
                        .invalid("only allowed for updateStrategy 'RollingUpdate'");
                }
                "OnDelete" => {}
                "RollingUpdate" => strategy.child("rollingUpdate").child("partition").non_negative(),
                _ => strategy.invalid("must be 'RollingUpdate' or 'OnDelete'"),
            }
            let retention = spec.child("persistentVolumeClaimRetentionPolicy");
            for field in ["whenDeleted", "whenScaled"] {
                retention.child(field).one_of(&["Retain", "Delete"]);
            }
            counts(&spec, &["replicas", "minReadySeconds", "revisionHistoryLimit"]);
            spec.child("ordinals").child("start").non_negative();
            workload::selector(&spec, "statefulset");
            // The pods of a StatefulSet are named after it, so its template has the volumes of its claims.
            let mut with_claims = object.clone();
            let claims = object.items(&["spec", "volumeClaimTemplates"]);
            let mut volumes = object.items(&["spec", "template", "spec", "volumes"]).to_vec();
            volumes.retain(|v| !claims.iter().any(|c| c.name() == v.text(&["name"])));
            volumes.extend(
                claims
                    .iter()
                    .map(|c| json!({"name": c.name(), "persistentVolumeClaim": {"claimName": c.name()}})),
            );
            with_claims.set(&["spec", "template", "spec", "volumes"], volumes);
            for error in &check(&with_claims, |root| workload::template(&root.child("spec"), "StatefulSet")) {
                root.error(error.clone());
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(new);
        errors.extend(check(new, |root| {
            let spec = root.child("spec");
            let (mut now, mut before) = (spec.value().clone(), old["spec"].clone());
            for field in MUTABLE {
                now.unset(&[field]);
                before.unset(&[field]);
            }
            if !same(&now, &before) {
                spec.forbidden(FROZEN);
            }
        }));
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> ErrorList {
        check(new, |root| {
            let status = root.child("status");
            let all = status.child("replicas").int().unwrap_or(0);
            let fields = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
            counts(&status, &["replicas", "observedGeneration", "collisionCount"]);
            counts(&status, &fields);
            for field in fields {
                if status.child(field).int().unwrap_or(0) > all {
                    status.child(field).invalid("cannot be greater than status.replicas");
                }
            }
        })
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let mut told = warnings::template(object, "spec.template");
        if object.int(&["spec", "revisionHistoryLimit"]).is_some_and(|limit| limit < 0) {
            told.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned());
        }
        told
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::text("Ready"),
            printer::AGE,
            printer::wide("Containers"),
            printer::wide("Images"),
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [names, images] = printer::containers(&object["spec"]["template"]);
        let desired = object.int(&["spec", "replicas"]).unwrap_or(0);
        let ready = workload::ratio(object, &["status", "readyReplicas"], desired);
        vec![object.name().into(), ready, printer::age(object, now), names, images]
    }

    fn scale(&self) -> Option<ScalePaths> {
        Some(SCALE_PATHS)
    }
}
