//! StatefulSet: pods with names and volumes of their own, in order.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::ErrorList;
use skep_api::names;
use skep_api::object::ObjectExt;

use super::pod::{self, warnings};
use super::workload::{self, SCALE_PATHS, counts};
use super::{SCALE, namespaced, pvc, status};
use crate::strategy::check::{At, check, same};
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
/// What of the rules applies: some hold for new objects only.
#[derive(Clone, Copy)]
struct Scope {
    new: bool,
    template: bool,
}

const FROZEN: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

impl Strategy for StatefulSet {
    fn default(&self, object: &mut Value) {
        default_text(object, &["spec", "podManagementPolicy"], "OrderedReady");
        // Whoever names the type and nothing more gets no partition.
        if object.text(&["spec", "updateStrategy", "type"]).is_empty() {
            object.set(&["spec", "updateStrategy", "type"], "RollingUpdate");
            default_to(object, &["spec", "updateStrategy", "rollingUpdate"], json!({}));
        }
        if object.text(&["spec", "updateStrategy", "type"]) == "RollingUpdate"
            && object.at(&["spec", "updateStrategy", "rollingUpdate"]).is_some()
        {
            default_to(object, &["spec", "updateStrategy", "rollingUpdate", "partition"], 0);
        }
        for field in ["whenDeleted", "whenScaled"] {
            default_text(object, &["spec", "persistentVolumeClaimRetentionPolicy", field], "Retain");
        }
        workload::default_spec(object, &[("replicas", json!(1)), ("revisionHistoryLimit", json!(10))]);
        workload::default_template(object, &["spec", "template"], false);
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

    fn name_grammar(&self) -> fn(&str) -> Vec<String> {
        names::dns1123_label
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        rules(object, Scope { new: true, template: true })
    }

    fn validate(&self, object: &Value) -> ErrorList {
        rules(object, Scope { new: false, template: true })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        // A template that was stored before a rule came may stay as it is.
        let template = self.validate(old).is_empty();
        let mut errors = rules(new, Scope { new: false, template });
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

    fn validate_status_update(&self, new: &Value, old: &Value) -> ErrorList {
        check(new, |root| {
            let status = root.child("status");
            let parts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
            counts(&status, &["replicas"]);
            counts(&status, &parts);
            counts(&status, &["observedGeneration"]);
            workload::at_most(&status, &parts, "replicas", "status.replicas");
            workload::at_most(&status, &["availableReplicas"], "readyReplicas", "status.readyReplicas");
            workload::collisions(&status, old);
        })
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut told = warnings::template(object, old, "spec.template");
        for (index, claim) in object.items(&["spec", "volumeClaimTemplates"]).iter().enumerate() {
            // Upstream tells it of a change below `Spec`.
            let below = if old.is_some() { ".Spec" } else { "" };
            if let Some(spec) = claim.get("spec") {
                warnings::claim_spec(&mut told, spec, &format!("spec.volumeClaimTemplates[{index}]{below}"));
            }
        }
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

fn rules(object: &Value, scope: Scope) -> ErrorList {
    check(object, |root| {
        let spec = root.child("spec");
        let policy = spec.child("podManagementPolicy");
        if policy.require() && !["OrderedReady", "Parallel"].contains(&policy.text()) {
            policy.invalid("must be 'OrderedReady' or 'Parallel'");
        }
        update_strategy(&spec.child("updateStrategy"));
        let retention = spec.child("persistentVolumeClaimRetentionPolicy");
        for field in ["whenDeleted", "whenScaled"] {
            retention.child(field).one_of(&["Retain", "Delete"]);
        }
        if scope.new {
            for claim in spec.child("volumeClaimTemplates").items() {
                pvc::spec(&claim.child("spec"));
            }
        }
        counts(&spec, &["replicas", "minReadySeconds"]);
        spec.child("ordinals").child("start").non_negative();
        if scope.new {
            spec.child("serviceName").named(names::dns1123_label);
        }
        workload::selector(&spec, "statefulset");
        template(root, object, scope);
    })
}

fn update_strategy(strategy: &At<'_>) {
    let rolling = strategy.child("rollingUpdate");
    match strategy.child("type").text() {
        "" => strategy.required(""),
        "OnDelete" if rolling.is_set() => rolling.invalid("only allowed for updateStrategy 'RollingUpdate'"),
        "OnDelete" => {}
        "RollingUpdate" => {
            rolling.child("partition").non_negative();
            let unavailable = rolling.child("maxUnavailable");
            if unavailable.is_set() {
                workload::int_or_percent(&unavailable);
                if workload::none_of_them(&unavailable) {
                    unavailable.invalid("cannot be 0");
                }
                workload::at_most_all(&unavailable);
            }
        }
        _ => strategy.invalid("must be 'RollingUpdate' or 'OnDelete'"),
    }
}

/// The template as its pods will have it: with a volume for each claim, and names that the controller gives.
fn template(root: &At<'_>, object: &Value, scope: Scope) {
    let mut made = object.clone();
    let claims = object.items(&["spec", "volumeClaimTemplates"]);
    let mut volumes = object.items(&["spec", "template", "spec", "volumes"]).to_vec();
    volumes.retain(|v| !claims.iter().any(|c| c.name() == v.text(&["name"])));
    volumes.extend(
        claims.iter().map(|c| json!({"name": c.name(), "persistentVolumeClaim": {"claimName": c.name()}})),
    );
    made.set(&["spec", "template", "spec", "volumes"], volumes);
    for field in ["subdomain", "hostname"] {
        made.unset(&["spec", "template", "spec", field]);
    }
    let found = check(&made, |root| {
        let spec = root.child("spec");
        if scope.template {
            workload::template(&spec, "StatefulSet");
        }
        pod::spec::template_metadata(&spec.child("template"));
    });
    root.errors(found);
}
