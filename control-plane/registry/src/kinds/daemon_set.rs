//! DaemonSet: one pod on every node that fits.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::{Error, ErrorList};
use skep_api::object::ObjectExt;
use skep_api::selector::LabelSelector;

use super::pod::warnings;
use super::replica_set::selector_stays;
use super::workload::{self, counts};
use super::{namespaced, status};
use crate::strategy::check::{At, check, same};
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

/// Counts the changes of the template. It was a field once, and is kept as an annotation.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

struct DaemonSet;

fn template_generation(object: &Value) -> i64 {
    object.annotation(TEMPLATE_GENERATION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn update_strategy(strategy: &At<'_>) {
    let rolling = strategy.child("rollingUpdate");
    match strategy.child("type").text() {
        "OnDelete" => {}
        "RollingUpdate" if rolling.is_set() => rolling_update(&rolling),
        "RollingUpdate" => rolling.required(""),
        _ => strategy.error(Error::not_supported(
            strategy.path(),
            strategy.value().clone(),
            &["RollingUpdate", "OnDelete"],
        )),
    }
}

/// A node's pod goes before the next comes or after it: one of the two counts is 0.
fn rolling_update(rolling: &At<'_>) {
    let (unavailable, surge) = (rolling.child("maxUnavailable"), rolling.child("maxSurge"));
    for count in [&unavailable, &surge] {
        workload::int_or_percent(count);
    }
    for count in [&unavailable, &surge] {
        workload::at_most_all(count);
    }
    match (workload::none_of_them(&unavailable), workload::none_of_them(&surge)) {
        (false, false) => surge.invalid("may not be set when maxUnavailable is non-zero"),
        (true, true) => unavailable.required("cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

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
        workload::default_template(object, &["spec", "template"], false);
    }

    fn prepare_for_create(&self, object: &mut Value) {
        for field in COUNTS {
            object.set(&["status", field], 0);
        }
        let count = template_generation(object).max(1);
        object.set_annotation(TEMPLATE_GENERATION, &count.to_string());
    }

    fn prepare_for_update(&self, new: &mut Value, old: &Value) {
        let template = |object: &Value| object.at(&["spec", "template"]).cloned().unwrap_or_default();
        let changed = !same(&template(new), &template(old));
        let count = template_generation(old) + i64::from(changed);
        new.set_annotation(TEMPLATE_GENERATION, &count.to_string());
    }

    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        new.set_annotation(TEMPLATE_GENERATION, &template_generation(old).to_string());
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            let selector = spec.child("selector");
            selector.selector();
            if !selector.is_set() {
                workload::no_match(&spec);
            } else if workload::selects_all(&selector) {
                selector.invalid("empty selector is invalid for daemonset");
            } else if let Ok(parsed) = LabelSelector::from_object(Some(selector.value())) {
                workload::matches(&spec, &parsed);
            }
            workload::template(&spec, "DaemonSet");
            counts(&spec, &["minReadySeconds"]);
            update_strategy(&spec.child("updateStrategy"));
            counts(&spec, &["revisionHistoryLimit"]);
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = selector_stays(new, old);
        errors.extend(self.validate(new));
        errors
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> ErrorList {
        check(new, |root| {
            let status = root.child("status");
            counts(&status, &COUNTS);
            counts(
                &status,
                &["observedGeneration", "updatedNumberScheduled", "numberAvailable", "numberUnavailable"],
            );
            workload::collisions(&status, old);
        })
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let count = |object| template_generation(object);
        if old.is_some_and(|old| count(old) == count(object)) {
            return Vec::new();
        }
        warnings::template(object, None, "spec.template")
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
