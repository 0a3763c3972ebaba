//! What the status of a Job may become. Whoever manages a job by another controller (`managedBy`) is held to it too.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::{Error, ErrorType, Path};
use skep_api::object::ObjectExt;

use super::rules::intervals;
use crate::strategy::check::{At, same};

/// Two states of a job, and what is different.
struct Change<'a> {
    root: &'a At<'a>,
    status: At<'a>,
    new: &'a Value,
    old: &'a Value,
}

fn holds(job: &Value, kind: &str, state: &str) -> bool {
    let conditions = job.items(&["status", "conditions"]);
    conditions.iter().any(|c| c.text(&["type"]) == kind && c.text(&["status"]) == state)
}

fn is(job: &Value, kind: &str) -> bool {
    holds(job, kind, "True")
}

fn finished(job: &Value) -> bool {
    is(job, "Complete") || is(job, "Failed")
}

impl Change<'_> {
    /// Is the field of the status another than before?
    fn changed(&self, field: &str) -> bool {
        let at = |job: &Value| job.at(&["status", field]).cloned().unwrap_or(Value::Null);
        !same(&at(self.new), &at(self.old))
    }

    /// Has the answer to a question changed?
    fn turned(&self, question: impl Fn(&Value) -> bool) -> bool {
        question(self.new) != question(self.old)
    }

    fn int(&self, field: &str) -> i64 {
        self.status.child(field).int().unwrap_or(0)
    }

    /// Complains about the conditions, whose value is not told.
    fn conditions(&self, detail: impl Into<String>) {
        let field: Path = self.status.child("conditions").path().clone();
        self.root.error(Error { kind: ErrorType::Invalid, field, value: None, detail: detail.into() });
    }

    fn time(&self, field: &str) -> Option<Timestamp> {
        self.new.text(&["status", field]).parse().ok()
    }
}

/// The rules of a change of the status.
pub(super) fn update(root: &At<'_>, old: &Value) {
    let change = Change { root, status: root.child("status"), new: root.value(), old };
    counts(&change);
    uncounted(&change);
    conditions(&change);
    times(&change);
    ended(&change);
    indexes(&change);
    policies(&change);
    only_forward(&change);
}

fn counts(change: &Change<'_>) {
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        change.status.child(field).non_negative();
    }
}

fn uncounted(change: &Change<'_>) {
    let mut seen = BTreeSet::new();
    for list in ["succeeded", "failed"] {
        for uid in change.status.child("uncountedTerminatedPods").child(list).items() {
            if uid.is_empty() {
                uid.invalid("must not be empty");
            } else if !seen.insert(uid.text()) {
                uid.duplicate();
            }
        }
    }
}

/// Ends exclude each other.
fn conditions(change: &Change<'_>) {
    let new = change.new;
    let complete = change.turned(|job| is(job, "Complete"));
    if (complete || change.turned(|job| is(job, "Failed"))) && is(new, "Complete") && is(new, "Failed") {
        change.conditions("cannot set Complete=True and Failed=true conditions");
    }
    let target = change.turned(|job| is(job, "FailureTarget"));
    if (complete || target) && is(new, "Complete") && is(new, "FailureTarget") {
        change.conditions("cannot set Complete=True and FailureTarget=true conditions");
    }
}

fn times(change: &Change<'_>) {
    let new = change.new;
    let end = change.status.child("completionTime");
    let complete = is(new, "Complete");
    if change.turned(|job| is(job, "Complete")) || change.changed("completionTime") {
        if end.is_set() && !complete {
            end.invalid("cannot set completionTime when there is no Complete=True condition");
        }
        if !end.is_set() && complete {
            end.required("completionTime is required for Complete jobs");
        }
    }
    if (change.changed("startTime") || change.changed("completionTime"))
        && let (Some(start), Some(stop)) = (change.time("startTime"), change.time("completionTime"))
        && stop < start
    {
        end.invalid("must be equal to or after `startTime`");
    }
    let failed = change.turned(|job| is(job, "Failed")) || change.changed("failedIndexes");
    if failed && is(new, "Failed") && !is(new, "FailureTarget") {
        change.conditions("cannot set Failed=True condition without the FailureTarget=true condition");
    }
    let met = change.turned(|job| is(job, "Complete")) || change.turned(|job| is(job, "SuccessCriteriaMet"));
    if met && complete && !is(new, "SuccessCriteriaMet") {
        change.conditions("cannot set Complete=True condition without the SuccessCriteriaMet=true condition");
    }
}

/// A job that has ended has no pods left to wait for.
fn ended(change: &Change<'_>) {
    let new = change.new;
    let turned = change.turned(finished);
    if !finished(new) {
        return;
    }
    if (turned || change.changed("active")) && change.int("active") > 0 {
        change.status.child("active").invalid("active>0 is invalid for finished job");
    }
    let nothing_to_do =
        new.flag(&["spec", "suspend"]) && new.int(&["spec", "completions"]).is_some_and(|count| count == 0);
    if (turned || change.changed("startTime")) && !nothing_to_do && !change.status.child("startTime").is_set()
    {
        change.status.child("startTime").required("startTime is required for finished job");
    }
    let open = change.status.child("uncountedTerminatedPods");
    let waiting = ["failed", "succeeded"].iter().any(|list| !open.child(list).is_empty());
    if (turned || change.changed("uncountedTerminatedPods")) && waiting {
        open.invalid("must be empty for finished job");
    }
}

fn indexes(change: &Change<'_>) {
    let new = change.new;
    let (done, failed) = (change.status.child("completedIndexes"), change.status.child("failedIndexes"));
    let (done_changed, failed_changed) =
        (change.changed("completedIndexes"), change.changed("failedIndexes"));
    let completions = new.int(&["spec", "completions"]);
    let per_index = new.at(&["spec", "backoffLimitPerIndex"]).is_some();
    if let Some(completions) = completions {
        if let (true, Err(detail)) = (done_changed, intervals(done.text(), completions)) {
            done.invalid_text(vec![format!("error parsing completedIndexes: {detail}")]);
        }
        if failed_changed
            && per_index
            && failed.is_set()
            && let Err(detail) = intervals(failed.text(), completions)
        {
            failed.invalid(format!("error parsing failedIndexes: {detail}"));
        }
    }
    if done_changed && !done.is_empty() && new.text(&["spec", "completionMode"]) != "Indexed" {
        done.invalid("cannot set non-empty completedIndexes when non-indexed completion mode");
    }
    if failed_changed && !per_index && failed.is_set() {
        failed.invalid("cannot set non-null failedIndexes when backoffLimitPerIndex is null");
    }
    if (failed_changed || done_changed)
        && let Some(completions) = completions
        && let (Ok(done), Ok(lost)) =
            (intervals(done.text(), completions), intervals(failed.text(), completions))
    {
        let overlaps = done.iter().flat_map(|a| lost.iter().map(move |b| (a.0.max(b.0), a.1.min(b.1))));
        if let Some((first, _)) = overlaps.filter(|(first, last)| first <= last).min() {
            failed.invalid(format!("failedIndexes and completedIndexes overlap at index: {first}"));
        }
    }
    let turned = change.turned(finished);
    if (turned || change.changed("terminating")) && finished(new) && change.int("terminating") > 0 {
        change.status.child("terminating").invalid("terminating>0 is invalid for finished job");
    }
    if (change.changed("ready") || change.changed("active")) && change.int("ready") > change.int("active") {
        change.status.child("ready").invalid("cannot set more ready pods than active");
    }
}

fn policies(change: &Change<'_>) {
    let new = change.new;
    let met = is(new, "SuccessCriteriaMet");
    if met && is(new, "Failed") {
        change.conditions("cannot set SuccessCriteriaMet=True and Failed=true conditions");
    }
    if met && is(new, "FailureTarget") {
        change.conditions("cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
    }
    if new.at(&["spec", "successPolicy"]).is_some() && !met && is(new, "Complete") {
        change
            .conditions("cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True");
    }
}

/// What was told once is not taken back.
fn only_forward(change: &Change<'_>) {
    let (new, old) = (change.new, change.old);
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if is(old, kind) && !is(new, kind) {
            change.conditions(format!("cannot disable the terminal {kind}=True condition"));
        }
    }
    let elastic = new.text(&["spec", "completionMode"]) == "Indexed"
        && new.at(&["spec", "completions"]) == new.at(&["spec", "parallelism"]);
    for (field, held) in [("failed", true), ("succeeded", !elastic)] {
        if held && change.int(field) < old.int(&["status", field]).unwrap_or(0) {
            let value = change.int(field);
            let here = change.status.child(field);
            here.error(Error::invalid(here.path(), value, format!("cannot decrease the {field} counter")));
        }
    }
    let (start, end) = (change.status.child("startTime"), change.status.child("completionTime"));
    let before = |field: &str| old.at(&["status", field]);
    if end.is_set() && before("completionTime").is_some() && change.changed("completionTime") {
        end.invalid("field is immutable");
    }
    let resumes = is(old, "Suspended") && holds(new, "Suspended", "False");
    if before("startTime").is_some()
        && change.changed("startTime")
        && !resumes
        && !new.flag(&["spec", "suspend"])
    {
        start.invalid("field is immutable for unsuspended job once set");
    }
    let (met, meets) = (is(old, "SuccessCriteriaMet"), is(new, "SuccessCriteriaMet"));
    if met && !meets {
        change.conditions("cannot disable the SuccessCriteriaMet=True condition");
    }
    if is(old, "Complete") && !met && meets {
        change.conditions("cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions");
    }
}
