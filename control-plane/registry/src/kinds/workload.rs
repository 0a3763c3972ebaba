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

/// Defaults of the template at a path.
pub(super) fn default_template(object: &mut Value, path: &[&str]) {
    let mut here = Some(object);
    for step in path.iter().chain(&["spec"]) {
        here = here.and_then(|value| value.get_mut(*step));
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
        return;
    }
    selector.selector();
    let empty = selector.child("matchLabels").is_empty() && selector.child("matchExpressions").is_empty();
    if empty {
        selector.error(Error::invalid(
            selector.path(),
            selector.value().clone(),
            format!("empty selector is invalid for {kind}"),
        ));
        return;
    }
    if let Some(parsed) = selector.parse_selector() {
        matches(spec, &parsed);
    }
}

/// The template's labels must be among those the selector selects.
pub(super) fn matches(spec: &At<'_>, selector: &LabelSelector) {
    let labels = spec.child("template").child("metadata").child("labels");
    if !selector.matches(labels.value().as_object()) {
        labels.invalid("`selector` does not match template `labels`");
    }
}

/// A template whose pods run for ever.
pub(super) fn template(spec: &At<'_>, kind: &str) {
    let template = spec.child("template");
    if template.is_set() {
        pod::spec::lasting_template(&template, kind);
    } else {
        template.required("");
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

/// `maxUnavailable` and `maxSurge` of a rolling update: not both 0, at most 100%.
pub(super) fn rolling_update(rolling: &At<'_>) {
    let unavailable = rolling.child("maxUnavailable");
    let surge = rolling.child("maxSurge");
    int_or_percent(&unavailable);
    int_or_percent(&surge);
    let zero = |at: &At<'_>| percent_or_int(at.value()).unwrap_or(0) == 0;
    if zero(&unavailable) && zero(&surge) {
        unavailable.invalid("may not be 0 when `maxSurge` is 0");
    }
    if let Value::String(_) = unavailable.value()
        && percent_or_int(unavailable.value()).is_some_and(|p| p > 100)
    {
        unavailable.invalid("must not be greater than 100%");
    }
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
