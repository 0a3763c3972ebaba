//! What the controllers of pods share: replicas, selectors over the labels of a template, rolling updates.

use serde_json::Value;
use skep_api::field::Error;
use skep_api::object::ObjectExt;
use skep_api::selector::LabelSelector;

use super::pod;
use crate::strategy::check::At;
use crate::strategy::{ScalePaths, default_to};

/// Where all but Jobs keep their replica counts.
pub(super) const SCALE_PATHS: ScalePaths = ScalePaths {
    spec_replicas: &["spec", "replicas"],
    status_replicas: &["status", "replicas"],
    selector: &["spec", "selector"],
};

/// Defaults of the template at a path. A template that was left out is as good as an empty one, as its fields are
/// told to be missing then; `optional` ones stay away.
pub(super) fn default_template(object: &mut Value, path: &[&str], optional: bool) {
    let Some((_, parents)) = path.split_last() else { return };
    let absent = object.at(path).is_none();
    if (absent && optional) || !object.at(parents).is_some_and(Value::is_object) {
        return;
    }
    let spec: Vec<&str> = path.iter().copied().chain(["spec"]).collect();
    default_to(object, &spec, serde_json::json!({}));
    let mut here = Some(object);
    for step in spec {
        here = here.and_then(|value| value.get_mut(step));
    }
    if let Some(spec) = here.filter(|s| s.is_object()) {
        pod::defaults::spec(spec);
    }
}

/// A `metav1.LabelSelector` that must select something and match the labels of the template.
pub(super) fn selector(spec: &At<'_>, kind: &str) {
    let selector = spec.child("selector");
    if !selector.is_set() {
        selector.required("");
        no_match(spec);
        return;
    }
    selector.selector();
    if selects_all(&selector) {
        selector.invalid(format!("empty selector is invalid for {kind}"));
        return;
    }
    if let Some(parsed) = selector.parse_selector() {
        matches(spec, &parsed);
    }
}

/// A selector without a word.
pub(super) fn selects_all(selector: &At<'_>) -> bool {
    selector.child("matchLabels").is_empty() && selector.child("matchExpressions").is_empty()
}

/// The template's labels must be among those the selector selects.
pub(super) fn matches(spec: &At<'_>, selector: &LabelSelector) {
    let labels = spec.child("template").child("metadata").child("labels");
    if !selector.matches(labels.value().as_object()) {
        no_match(spec);
    }
}

/// The selector does not select what the template makes.
pub(super) fn no_match(spec: &At<'_>) {
    let labels = spec.child("template").child("metadata").child("labels");
    labels.invalid("`selector` does not match template `labels`");
}

/// A template whose pods run for ever.
pub(super) fn template(spec: &At<'_>, kind: &str) {
    pod::spec::lasting_template(&spec.child("template"), kind);
}

/// A count of collisions only rises.
pub(super) fn collisions(status: &At<'_>, old: &Value) {
    let count = status.child("collisionCount");
    count.non_negative();
    let before = old.int(&["status", "collisionCount"]).unwrap_or(0);
    if count.int().unwrap_or(0) < before {
        let value = count.int().unwrap_or(0);
        count.error(Error::invalid(count.path(), value, "cannot be decremented"));
    }
}

/// Counts of a status that cannot be more than another of its counts.
pub(super) fn at_most(status: &At<'_>, fields: &[&str], most: &str, words: &str) {
    for field in fields {
        let here = status.child(field);
        if here.int().unwrap_or(0) > status.child(most).int().unwrap_or(0) {
            here.invalid(format!("cannot be greater than {words}"));
        }
    }
}

/// Counts and durations that are 0 or more.
pub(super) fn counts(spec: &At<'_>, fields: &[&str]) {
    for field in fields {
        spec.child(field).non_negative();
    }
}

/// A number of pods, or a percentage of them.
pub(super) fn int_or_percent(at: &At<'_>) {
    match at.value() {
        Value::String(text) => {
            if !skep_api::names::is_percent(text) {
                at.invalid(
                    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                );
            }
        }
        _ => at.non_negative(),
    }
}

fn percent_or_int(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => text.trim_end_matches('%').parse().ok(),
        other => other.as_i64(),
    }
}

/// No pods, in number or percentage.
pub(super) fn none_of_them(at: &At<'_>) -> bool {
    percent_or_int(at.value()).unwrap_or(0) == 0
}

/// A percentage is at most 100.
pub(super) fn at_most_all(at: &At<'_>) {
    if let Value::String(text) = at.value()
        && skep_api::names::is_percent(text)
        && percent_or_int(at.value()).is_some_and(|p| p > 100)
    {
        at.invalid("must not be greater than 100%");
    }
}

/// `maxUnavailable` and `maxSurge` of a rolling update: not both 0, at most 100%.
pub(super) fn rolling_update(rolling: &At<'_>) {
    let unavailable = rolling.child("maxUnavailable");
    let surge = rolling.child("maxSurge");
    int_or_percent(&unavailable);
    int_or_percent(&surge);
    if none_of_them(&unavailable) && none_of_them(&surge) {
        unavailable.invalid("may not be 0 when `maxSurge` is 0");
    }
    at_most_all(&unavailable);
}

/// Sets a default at `spec.FIELD`.
pub(super) fn default_spec(object: &mut Value, defaults: &[(&str, Value)]) {
    for (field, value) in defaults {
        default_to(object, &["spec", field], value.clone());
    }
}

/// `current/desired`.
pub(super) fn ratio(object: &Value, current: &[&str], desired: i64) -> Value {
    format!("{}/{desired}", object.int(current).unwrap_or(0)).into()
}
