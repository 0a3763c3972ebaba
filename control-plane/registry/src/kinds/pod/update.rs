//! What may change in a pod that exists: images, a few durations, more tolerations, fewer gates; by its subresources
//! also resources and more ephemeral containers.

use serde_json::{Value, json};
use skep_api::field::Error;
use skep_api::object::ObjectExt;
use skep_api::quantity::Quantity;

use super::annotations::{self, MIRROR};
use crate::strategy::check::{At, same};
use crate::strategy::items_mut;

const FROZEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const HARD: [&str; 3] = ["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
const LISTS: [&str; 2] = ["containers", "initContainers"];

/// An update of the pod itself.
pub(super) fn pod(root: &At<'_>, old: &Value) {
    let spec = root.child("spec");
    let old_spec = old.get("spec").unwrap_or(&Value::Null);
    annotations::update(&root.child("metadata").child("annotations"), old);
    for list in LISTS {
        let here = spec.child(list);
        if here.items().len() != old_spec.items(&[list]).len() {
            here.forbidden("pod updates may not add or remove containers");
            return;
        }
    }
    if !deadline(&spec.child("activeDeadlineSeconds"), old_spec) {
        return;
    }
    tolerations(&spec.child("tolerations"), old_spec);
    gates(&spec.child("schedulingGates"), old_spec);

    // Put back everything that may change: what still differs may not.
    let mut munged = spec.value().clone();
    for list in LISTS {
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
        steered(&spec, &mut munged, old_spec);
    }
    if !same(&munged, old_spec) {
        spec.forbidden(FROZEN);
    }
}

/// What a gated pod may still be given: where it may run, as long as it is more narrow than before.
fn steered(spec: &At<'_>, munged: &mut Value, old_spec: &Value) {
    let empty = json!({});
    let before = old_spec.get("nodeSelector").unwrap_or(&empty);
    let now = spec.child("nodeSelector");
    let kept = |(key, value): (&String, &Value)| now.value().get(key) == Some(value);
    if !before.as_object().into_iter().flatten().all(kept) {
        now.invalid("only additions to spec.nodeSelector are allowed (no mutations or deletions)");
    }
    munged.set(&["nodeSelector"], old_spec.get("nodeSelector").cloned().unwrap_or(Value::Null));

    let wanted = spec.child("affinity").child("nodeAffinity");
    let old_affinity = old_spec.at(&HARD[..2]).unwrap_or(&Value::Null);
    if same(wanted.value(), old_affinity) {
        return;
    }
    let hard = wanted.child(HARD[2]);
    let old_terms = old_spec.items(&[HARD[0], HARD[1], HARD[2], "nodeSelectorTerms"]);
    if !old_terms.is_empty() {
        let terms = hard.child("nodeSelectorTerms");
        if terms.items().len() == old_terms.len() {
            for (term, old_term) in terms.items().iter().zip(old_terms) {
                let grows = ["matchExpressions", "matchFields"].iter().all(|list| {
                    let new = term.value().items(&[list]);
                    old_term.items(&[list]).iter().all(|was| new.iter().any(|is| same(is, was)))
                });
                if !grows {
                    term.invalid("only additions are allowed (no mutations or deletions)");
                }
            }
        } else {
            terms.invalid("no additions/deletions to non-empty NodeSelectorTerms list are allowed");
        }
    }
    if let Some(affinity) = old_spec.get("affinity") {
        munged.set(&HARD[..2], affinity.get("nodeAffinity").cloned().unwrap_or(Value::Null));
    } else {
        munged.unset(&HARD[..2]);
    }
}

/// Says whether the rest is worth checking.
fn deadline(here: &At<'_>, old_spec: &Value) -> bool {
    match (here.int(), old_spec.int(&["activeDeadlineSeconds"])) {
        (Some(new), Some(old)) if new > old => {
            here.invalid("must be less than or equal to previous value");
            return false;
        }
        (None, Some(_)) => here.invalid("must not update from a positive integer to nil value"),
        _ => {}
    }
    true
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
            name.forbidden(format!(
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
            for list in LISTS {
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

/// A mirror pod is its node's: the API does not change it.
fn is_mirror(old: &Value) -> bool {
    old.annotations().is_some_and(|annotations| annotations.contains_key(MIRROR))
}

/// Ephemeral containers are added, never changed or removed.
pub(super) fn ephemeral_containers(root: &At<'_>, old: &Value) {
    if is_mirror(old) {
        root.forbidden("static pods do not support ephemeral containers");
        return;
    }
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

/// A resize changes cpu and memory, keeps the quality of service class, and takes nothing away.
pub(super) fn resize(root: &At<'_>, old: &Value) {
    let windows = old.text(&["spec", "os", "name"]) == "windows";
    let refusal = if is_mirror(old) {
        Some("static pods cannot be resized")
    } else if windows {
        Some("windows pods cannot be resized")
    } else {
        None
    };
    if let Some(refusal) = refusal {
        root.forbidden(refusal);
        return;
    }
    let spec = root.child("spec");
    let class = super::resources::quality(spec.value());
    let before = old.text(&["status", "qosClass"]);
    let before = if before.is_empty() { super::resources::quality(&old["spec"]) } else { before };
    if before != class {
        let detail = "Pod QOS Class may not change as a result of resizing";
        spec.error(Error::invalid(spec.path(), before, detail));
    }
    let running = |status: &&Value| status.at(&["state", "running"]).is_some();
    let first = old.items(&["status", "containerStatuses"]).iter().find(running);
    if first.is_some_and(|status| status.get("resources").is_none()) {
        spec.forbidden("Pod running on node without support for resize");
    }
    for list in ["initContainers", "containers"] {
        for (container, was) in spec.child(list).items().iter().zip(old.items(&["spec", list])) {
            let sidecar = was.text(&["restartPolicy"]) == "Always";
            if list == "containers" || sidecar {
                resize_one(container, was);
                let detail = if sidecar && list == "initContainers" {
                    "only cpu and memory resources for sidecar containers are mutable"
                } else {
                    "only cpu and memory resources are mutable"
                };
                if !same(&without_cpu_memory(container.value(), was), was) {
                    spec.forbidden(detail);
                }
            } else if !same(container.value(), was) {
                spec.forbidden("resources for non-sidecar init containers are immutable");
            }
        }
    }
}

fn resize_one(container: &At<'_>, was: &Value) {
    let resources = container.child("resources");
    for (list, noun) in [("requests", "requests"), ("limits", "limits")] {
        let here = resources.child(list);
        let mut before = was.map(&["resources", list]).into_iter().flatten();
        if before.any(|(name, _)| !here.child(name).is_set()) {
            here.forbidden(format!("resource {noun} cannot be removed"));
        }
    }
    let policy = was.items(&["resizePolicy"]).iter().find(|p| p.text(&["resourceName"]) == "memory");
    let restarts = policy.is_some_and(|policy| policy.text(&["restartPolicy"]) == "RestartContainer");
    let limits = resources.child("limits");
    let amount =
        |value: Option<&Value>| value.and_then(Value::as_str).and_then(|text| text.parse::<Quantity>().ok());
    let now = amount(limits.value().get("memory"));
    if restarts {
        return;
    }
    if now.is_some() && was.at(&["resources", "limits", "memory"]).is_none() {
        let path = limits.path().key("memory");
        let detail = "memory limits cannot be added unless resizePolicy is RestartContainer";
        limits.error(Error::forbidden(&path, detail));
    }
}

/// The container with the amounts of cpu and memory it had.
fn without_cpu_memory(container: &Value, was: &Value) -> Value {
    let mut container = container.clone();
    for list in ["limits", "requests"] {
        for resource in ["cpu", "memory"] {
            let path = ["resources", list, resource];
            match was.at(&path) {
                Some(amount) => container.set(&path, amount.clone()),
                None => {
                    container.unset(&path);
                }
            }
        }
    }
    container
}
