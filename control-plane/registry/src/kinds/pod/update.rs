//! What may change in a pod that exists: images, a few durations, more tolerations, fewer gates.

use serde_json::{Value, json};
use skep_api::field::Error;
use skep_api::object::ObjectExt;

use crate::strategy::check::{At, same};
use crate::strategy::items_mut;

const FROZEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// An update of the pod itself.
pub(super) fn pod(root: &At<'_>, old: &Value) {
    let spec = root.child("spec");
    let old_spec = old.get("spec").unwrap_or(&Value::Null);
    for (list, noun) in [("containers", "containers"), ("initContainers", "init containers")] {
        let here = spec.child(list);
        if here.items().len() != old_spec.items(&[list]).len() {
            here.forbidden(format!("pod updates may not add or remove {noun}"));
            return;
        }
        for container in here.items() {
            container.child("image").require();
        }
    }
    deadline(&spec.child("activeDeadlineSeconds"), old_spec);
    tolerations(&spec.child("tolerations"), old_spec);
    gates(&spec.child("schedulingGates"), old_spec);

    // Put back everything that may change: what still differs may not.
    let mut munged = spec.value().clone();
    for list in ["containers", "initContainers"] {
        for (container, before) in items_mut(&mut munged, &[list]).zip(old_spec.items(&[list])) {
            container.set(&["image"], before.text(&["image"]));
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        munged.set(&[field], old_spec.get(field).cloned().unwrap_or(Value::Null));
    }
    let grace = "terminationGracePeriodSeconds";
    if old_spec.int(&[grace]).is_some_and(|s| s < 0) && munged.int(&[grace]) == Some(1) {
        munged.set(&[grace], old_spec[grace].clone());
    }
    if !old_spec.items(&["schedulingGates"]).is_empty() {
        // A gated pod may be steered more narrowly.
        let narrows = old_spec.map(&["nodeSelector"]).is_none_or(|before| {
            before.iter().all(|(key, value)| munged.at(&["nodeSelector", key]) == Some(value))
        });
        if narrows {
            munged.set(&["nodeSelector"], old_spec.get("nodeSelector").cloned().unwrap_or(Value::Null));
        }
    }
    if !same(&munged, old_spec) {
        spec.forbidden(FROZEN);
    }
}

fn deadline(here: &At<'_>, old_spec: &Value) {
    match (here.int(), old_spec.int(&["activeDeadlineSeconds"])) {
        (Some(new), Some(old)) if new > old => {
            here.invalid("must be less than or equal to previous value");
        }
        (None, Some(_)) => here.invalid("must not update from a positive integer to nil value"),
        _ => {}
    }
}

fn tolerations(here: &At<'_>, old_spec: &Value) {
    let bare = |toleration: &Value| {
        let mut toleration = toleration.clone();
        toleration.unset(&["tolerationSeconds"]);
        toleration
    };
    let now: Vec<Value> = here.items().iter().map(|t| bare(t.value())).collect();
    let kept = |old: &Value| now.iter().any(|new| same(new, &bare(old)));
    if !old_spec.items(&["tolerations"]).iter().all(kept) {
        here.forbidden("existing toleration can not be modified except its tolerationSeconds");
    }
}

fn gates(here: &At<'_>, old_spec: &Value) {
    let before = old_spec.items(&["schedulingGates"]);
    for gate in here.items() {
        let name = gate.child("name");
        if !before.iter().any(|old| old.text(&["name"]) == name.text()) {
            here.forbidden(format!(
                "only deletion is allowed, but found new scheduling gate '{}'",
                name.text()
            ));
        }
    }
}

/// Takes over what the `ephemeralcontainers` or `resize` subresource may change, and nothing else.
pub(super) fn prepare_subresource(name: &str, new: &mut Value, old: &Value) {
    let asked = std::mem::replace(new, old.clone());
    match name {
        "ephemeralcontainers" => {
            let list = asked.items(&["spec", "ephemeralContainers"]).to_vec();
            new.set(&["spec", "ephemeralContainers"], list);
        }
        "resize" => {
            for list in ["containers", "initContainers"] {
                for container in items_mut(new, &["spec", list]) {
                    let twin = |c: &&Value| c.get("name") == container.get("name");
                    let Some(wish) = asked.items(&["spec", list]).iter().find(twin) else { continue };
                    for field in ["resources", "resizePolicy"] {
                        match wish.get(field) {
                            Some(value) => container.set(&[field], value.clone()),
                            None => {
                                container.unset(&[field]);
                            }
                        }
                    }
                }
            }
        }
        _ => {}
    }
}

/// Ephemeral containers are added, never changed or removed.
pub(super) fn ephemeral_containers(root: &At<'_>, old: &Value) {
    let here = root.child("spec").child("ephemeralContainers");
    let null = json!(null);
    for before in old.items(&["spec", "ephemeralContainers"]) {
        let name = before.text(&["name"]);
        let items = here.items();
        let now = items.iter().find(|c| c.child("name").text() == name);
        let value = now.map_or(&null, At::value);
        if now.is_none() {
            here.forbidden(format!("existing ephemeral containers {name:?} may not be removed\n"));
        } else if !same(value, before) {
            here.forbidden(format!("existing ephemeral containers {name:?} may not be changed\n"));
        }
    }
}

/// A resize keeps the quality of service class.
pub(super) fn resize(root: &At<'_>, old: &Value) {
    let class = super::resources::quality(root.child("spec").value());
    if old.at(&["status", "qosClass"]).is_some_and(|before| before != class) {
        let spec = root.child("spec");
        spec.error(Error::invalid(
            spec.path(),
            class,
            "Pod QOS Class may not change as a result of resizing",
        ));
    }
}
