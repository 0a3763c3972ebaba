//! What of a Job may change: counts and time limits; of its template where it goes, while it is held back.

use serde_json::Value;
use skep_api::object::ObjectExt;

use crate::strategy::check::At;

/// What a scheduler reads: open while the job is suspended, with nothing running.
const PLACING: [&str; 3] = ["nodeSelector", "tolerations", "schedulingGates"];

/// The rules of a change.
pub(super) fn changes(root: &At<'_>, old: &Value) {
    let spec = root.child("spec");
    let before = |field: &str| old.at(&["spec", field]).unwrap_or(&Value::Null);
    completions(&spec, before("completions"));
    spec.child("selector").immutable(before("selector"));
    template(&spec, old);
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        spec.child(field).immutable(before(field));
    }
}

/// An indexed job is resized by changing both counts alike.
fn completions(spec: &At<'_>, before: &Value) {
    let wanted = spec.child("completions");
    if spec.child("completionMode").text() != "Indexed" {
        wanted.immutable(before);
    } else if wanted.value() != before
        && wanted.is_set()
        && wanted.value() != spec.child("parallelism").value()
    {
        wanted.invalid("can only be modified in tandem with spec.parallelism");
    }
}

/// Is the job held back with nothing of it running?
fn idle(old: &Value) -> bool {
    let suspended = old.items(&["status", "conditions"]);
    let suspended =
        suspended.iter().any(|c| c.text(&["type"]) == "Suspended" && c.text(&["status"]) == "True");
    old.flag(&["spec", "suspend"])
        && (old.at(&["status", "startTime"]).is_none() || suspended)
        && old.int(&["status", "active"]).unwrap_or(0) == 0
}

fn copy(from: &Value, to: &mut Value, path: &[&str]) {
    match from.at(path) {
        Some(value) => to.set(path, value.clone()),
        None => {
            to.unset(path);
        }
    }
}

fn template(spec: &At<'_>, old: &Value) {
    let template = spec.child("template");
    let mut before = old.at(&["spec", "template"]).cloned().unwrap_or_default();
    if !idle(old) {
        template.immutable(&before);
        return;
    }
    let now = template.value();
    for field in PLACING {
        copy(now, &mut before, &["spec", field]);
    }
    copy(now, &mut before, &["spec", "affinity", "nodeAffinity"]);
    for list in ["containers", "initContainers"] {
        let (new, old) = (now.items(&["spec", list]), before.items(&["spec", list]));
        if new.len() != old.len() {
            continue;
        }
        let mut merged = old.to_vec();
        for (old, new) in merged.iter_mut().zip(new).filter(|(old, new)| old["name"] == new["name"]) {
            copy(new, old, &["resources"]);
        }
        if !merged.is_empty() {
            before.set(&["spec", list], merged);
        }
    }
    let path = template.path().child("spec");
    template.child("spec").told_at(path).immutable(before.get("spec").unwrap_or(&Value::Null));
}
