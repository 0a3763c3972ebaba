//! Job: pods that run to completion.

pub(super) mod rules;
mod status;
mod update;

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::duration;
use skep_api::field::ErrorList;
use skep_api::object::ObjectExt;

use super::workload;
use super::{namespaced, pod};
use crate::strategy::check::check;
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy, default_text, default_to};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    categories: &["all"],
    generation: &["spec"],
    subresources: &[super::status("batch", "v1", "Job")],
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
    workload::default_template(job, &["spec", "template"], false);
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
                default_to(object, &["spec", "template", "metadata", "labels", key], value.as_str());
            }
        }
        default_to(object, &["spec", "selector", "matchLabels", LABELS[0][1]], uid);
    }

    fn name_grammar(&self) -> fn(&str) -> Vec<String> {
        skep_api::names::dns1123_subdomain
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, rules::job)
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            rules::generated_selector(root);
            rules::job(root);
            rules::host_names(root);
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        check(new, |root| {
            rules::job(root);
            update::changes(root, old);
        })
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> ErrorList {
        check(new, |root| status::update(root, old))
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        pod::warnings::named_job(object, old, "spec")
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
