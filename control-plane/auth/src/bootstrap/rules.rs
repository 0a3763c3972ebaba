//! Short ways to write policy rules.

use serde_json::{Value, json};

pub(super) const READ: &str = "get list watch";
pub(super) const WRITE: &str = "create delete deletecollection patch update";
pub(super) const ALL: &str = "create delete deletecollection get list patch update watch";

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// `verbs` on `resources` of one group; each a list of words.
pub(super) fn on(group: &str, resources: &str, verbs: &str) -> Value {
    json!({ "apiGroups": [group], "resources": words(resources), "verbs": words(verbs) })
}

/// The same for some names only.
pub(super) fn on_named(group: &str, resources: &str, names: &str, verbs: &str) -> Value {
    json!({
        "apiGroups": [group],
        "resources": words(resources),
        "resourceNames": words(names),
        "verbs": words(verbs),
    })
}

/// `verbs` on paths.
pub(super) fn paths(paths: &str, verbs: &str) -> Value {
    json!({ "nonResourceURLs": words(paths), "verbs": words(verbs) })
}

/// Writing events, in both groups.
pub(super) fn events() -> Vec<Value> {
    vec![on("", "events", "create patch update"), on("events.k8s.io", "events", "create patch update")]
}

/// Electing a leader by a lease of one's own.
pub(super) fn leader(name: &str) -> Vec<Value> {
    vec![
        on("coordination.k8s.io", "leases", "create"),
        on_named("coordination.k8s.io", "leases", name, "get update patch"),
    ]
}
