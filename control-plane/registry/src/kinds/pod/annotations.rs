//! Annotations of pods that mean something to the system: mirror pods, deletion cost, profiles of old.

use serde_json::Value;
use skep_api::field::Error;

use super::mounts::relative;
use crate::strategy::check::At;

/// The copy of a pod that a node runs by itself.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

fn containers<'a>(spec: &At<'a>) -> Vec<At<'a>> {
    LISTS.iter().flat_map(|list| spec.child(list).items()).collect()
}

/// The annotations by themselves and against the spec.
pub(super) fn validate(annotations: &At<'_>, spec: &At<'_>) {
    for (key, value) in annotations.entries() {
        let text = value.text();
        if key == MIRROR && spec.child("nodeName").is_empty() {
            value.invalid("must set spec.nodeName if mirror pod annotation is set");
        }
        let bad_cost = || {
            let plain = text.strip_prefix('-').unwrap_or(text);
            let leading = plain.len() > 1 && plain.starts_with('0');
            text.starts_with('+') || leading || text.parse::<i32>().is_err()
        };
        if key == COST && bad_cost() {
            value.invalid("must be a 32bit integer");
        }
        if key == SECCOMP_POD || key.starts_with(SECCOMP) {
            let told = value.told_at(annotations.path().child(key));
            match text.strip_prefix("localhost/") {
                Some(_) => relative(&told),
                None if ["runtime/default", "docker/default", "unconfined"].contains(&text) => {}
                None => told.invalid("must be a valid seccomp profile"),
            }
        }
        if let Some(name) = key.strip_prefix(APP_ARMOR) {
            if !containers(spec).iter().any(|container| container.child("name").text() == name) {
                value.error(Error::invalid(value.path(), name, "container not found"));
            }
            let known =
                ["", "runtime/default", "unconfined"].contains(&text) || text.starts_with("localhost/");
            if !known {
                value.invalid(format!("invalid AppArmor profile name: {text:?}"));
            }
        }
    }
}

/// Where a profile is given both ways, both must say the same.
pub(super) fn match_fields(annotations: &At<'_>, spec: &At<'_>) {
    let annotation = |key: &str| annotations.value().get(key).and_then(Value::as_str);
    let context = spec.child("securityContext");
    if let Some(text) = annotation(SECCOMP_POD) {
        matches(&context.child("seccompProfile"), text, "seccomp", "seccomp");
    }
    let windows = spec.child("os").child("name").text() == "windows";
    for container in containers(spec) {
        let name = container.child("name").text();
        let own = container.child("securityContext");
        if let Some(text) = annotation(&format!("{SECCOMP}{name}")) {
            matches(&own.child("seccompProfile"), text, "seccomp", "seccomp");
        }
        if let Some(text) = annotation(&format!("{APP_ARMOR}{name}"))
            && !windows
        {
            let profile = own.child("appArmorProfile");
            let inherited = context.child("appArmorProfile");
            let effective =
                if profile.is_set() { profile } else { inherited.told_at(profile.path().clone()) };
            matches(&effective, text, "apparmor", "apparmor");
        }
    }
}

fn matches(profile: &At<'_>, annotation: &str, kind: &str, noun: &str) {
    if !profile.is_set() {
        return;
    }
    let local = annotation.strip_prefix("localhost/");
    let same_type = match profile.child("type").text() {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => {
            annotation == "runtime/default" || (kind == "seccomp" && annotation == "docker/default")
        }
        "Localhost" => local.is_some(),
        _ => true,
    };
    if !same_type {
        profile.child("type").forbidden(format!("{noun} type in annotation and field must match"));
    } else if profile.child("type").text() == "Localhost"
        && local != profile.child("localhostProfile").value().as_str()
    {
        profile
            .child("localhostProfile")
            .forbidden(format!("{noun} profile in annotation and field must match"));
    }
}

/// What may not be added, changed or removed.
pub(super) fn update(annotations: &At<'_>, old: &Value) {
    let before = old.pointer("/metadata/annotations").and_then(Value::as_object);
    let guarded = |key: &str| key.starts_with(APP_ARMOR) || key == MIRROR;
    let noun = |key: &str| if key == MIRROR { "mirror pod annotation" } else { "AppArmor annotations" };
    for (key, value) in before.into_iter().flatten().filter(|(key, _)| guarded(key)) {
        if annotations.value().get(key) != Some(value) {
            let path = annotations.path().key(key);
            annotations.error(Error::forbidden(&path, format!("may not remove or update {}", noun(key))));
        }
    }
    for (key, value) in annotations.entries() {
        if guarded(key) && before.is_none_or(|before| !before.contains_key(key)) {
            value.forbidden(format!("may not add {}", noun(key)));
        }
    }
}
