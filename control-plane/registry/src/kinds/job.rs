//! Job: pods that run to completion.

pub(super) mod rules;

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::duration;
use skep_api::field::ErrorList;
use skep_api::object::ObjectExt;

use super::workload;
use super::{namespaced, pod, status};
use crate::strategy::check::check;
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy, default_text};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    categories: &["all"],
    generation: &["spec"],
    subresources: &[status("batch", "v1", "Job")],
    ..namespaced("batch", "v1", "Job", "jobs", &Job)
};

const LABELS: [[&str; 2]; 2] =
    [["controller-uid", "batch.kubernetes.io/controller-uid"], ["job-name", "batch.kubernetes.io/job-name"]];

struct Job;

/// Defaults of the spec at a path: a Job's own, or that of a CronJob's template.
pub(super) fn default(object: &mut Value, path: &[&str]) {
    let mut here = Some(object);
    for step in path {
        here = here.and_then(|value| value.get_mut(*step));
    }
    let Some(job) = here.filter(|j| j.get("spec").is_some_and(Value::is_object)) else { return };
    if job.at(&["spec", "completions"]).is_none() && job.at(&["spec", "parallelism"]).is_none() {
        workload::default_spec(job, &[("completions", json!(1)), ("parallelism", json!(1))]);
    }
    let indexed = job.at(&["spec", "backoffLimitPerIndex"]).is_some();
    let backoff = if indexed { i64::from(i32::MAX) } else { 6 };
    workload::default_spec(
        job,
        &[("parallelism", json!(1)), ("backoffLimit", json!(backoff)), ("suspend", json!(false))],
    );
    default_text(job, &["spec", "completionMode"], "NonIndexed");
    let replacement =
        if job.at(&["spec", "podFailurePolicy"]).is_some() { "Failed" } else { "TerminatingOrFailed" };
    default_text(job, &["spec", "podReplacementPolicy"], replacement);
    workload::default_template(job, &["spec", "template"]);
}

/// The state in one word.
fn state(job: &Value) -> &'static str {
    let holds = |kind: &str| {
        let conditions = job.items(&["status", "conditions"]);
        conditions.iter().any(|c| c.text(&["type"]) == kind && c.text(&["status"]) == "True")
    };
    let going = job.deletion_timestamp().is_some();
    let first = ["Complete", "Failed"].into_iter().find(|kind| holds(kind));
    let then = ["Suspended", "FailureTarget"].into_iter().find(|kind| holds(kind));
    first.or(going.then_some("Terminating")).or(then).unwrap_or("Running")
}

/// From start to completion, or until now.
fn span(job: &Value, now: Timestamp) -> String {
    let time = |field: &str| job.text(&["status", field]).parse::<Timestamp>().ok();
    match (time("startTime"), time("completionTime")) {
        (None, _) => String::new(),
        (Some(start), end) => duration::human(end.unwrap_or(now).as_second() - start.as_second()),
    }
}

impl Strategy for Job {
    fn default(&self, object: &mut Value) {
        default(object, &[]);
        let labels = object.at(&["spec", "template", "metadata", "labels"]).cloned();
        if let Some(labels) = labels
            && object.labels().is_none_or(serde_json::Map::is_empty)
        {
            object.set(&["metadata", "labels"], labels);
        }
    }

    /// Unless asked not to, a Job selects its pods by its own uid, which it stamps on the template.
    fn prepare_for_create(&self, object: &mut Value) {
        if object.flag(&["spec", "manualSelector"]) {
            return;
        }
        let (uid, name) = (object.uid().to_owned(), object.name().to_owned());
        for (keys, value) in LABELS.iter().zip([&uid, &name]) {
            for key in keys {
                object.set(&["spec", "template", "metadata", "labels", key], value.as_str());
            }
        }
        if object.at(&["spec", "selector"]).is_none() {
            object.set(&["spec", "selector", "matchLabels", LABELS[0][1]], uid);
        }
    }

    fn name_grammar(&self) -> fn(&str) -> Vec<String> {
        skep_api::names::dns1123_subdomain
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let job_spec = root.child("spec");
            let selector = job_spec.child("selector");
            if selector.is_set() {
                selector.selector();
                if let Some(parsed) = selector.parse_selector() {
                    workload::matches(&job_spec, &parsed);
                }
            } else {
                selector.required("");
            }
            rules::spec(&job_spec);
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(new);
        errors.extend(check(new, |root| {
            let job_spec = root.child("spec");
            let before = |field: &str| old.at(&["spec", field]).unwrap_or(&Value::Null);
            // An indexed job is resized by changing both counts alike.
            let elastic = new.text(&["spec", "completionMode"]) == "Indexed"
                && job_spec.child("completions").value() == job_spec.child("parallelism").value();
            if !elastic {
                job_spec.child("completions").immutable(before("completions"));
            }
            for field in
                ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "successPolicy"]
            {
                job_spec.child(field).immutable(before(field));
            }
            // A suspended job that has not started may still be steered.
            let open = old.flag(&["spec", "suspend"]) && old.at(&["status", "startTime"]).is_none();
            if !open {
                job_spec.child("template").immutable(before("template"));
            }
        }));
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> ErrorList {
        check(new, |root| {
            for field in ["active", "succeeded", "failed", "ready", "terminating"] {
                root.child("status").child(field).non_negative();
            }
        })
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let mut told = Vec::new();
        let count = |field: &str| object.int(&["spec", field]).unwrap_or(0);
        if object.text(&["spec", "completionMode"]) == "Indexed"
            && count("completions") > 100_000
            && count("parallelism") > 10_000
        {
            told.push("In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail".to_owned());
        }
        told.extend(pod::warnings::template(object, "spec.template"));
        told
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::text("Status"),
            printer::text("Completions"),
            printer::text("Duration"),
            printer::AGE,
            printer::wide("Containers"),
            printer::wide("Images"),
            printer::wide("Selector"),
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let succeeded = object.int(&["status", "succeeded"]).unwrap_or(0);
        let parallelism = object.int(&["spec", "parallelism"]).unwrap_or(0);
        let completions = match object.int(&["spec", "completions"]) {
            Some(wanted) => format!("{succeeded}/{wanted}"),
            None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
            None => format!("{succeeded}/1"),
        };
        let [names, images] = printer::containers(&object["spec"]["template"]);
        vec![
            object.name().into(),
            state(object).into(),
            completions.into(),
            span(object, now).into(),
            printer::age(object, now),
            names,
            images,
            printer::selector(object.at(&["spec", "selector"])).into(),
        ]
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["status.successful"]
    }

    fn selectable_value(&self, object: &Value, _field: &str) -> String {
        object.int(&["status", "succeeded"]).unwrap_or(0).to_string()
    }
}
