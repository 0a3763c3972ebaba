//! The checklist: for every kind, how it is written, what its defaults are, and what an empty one is told.
//!
//! `checklist.txt` is what this server does; it was read against upstream's strategies and defaults, not made from
//! them. A kind that is not in it, or that says something else, fails. What discovery, tables and field selectors say
//! of a kind is in the goldens of the API server's tests and in `fields_that_selectors_may_name`.
//! After a wanted change: `SKEP_WRITE_GOLDENS=1 cargo nextest run -p skep-registry checklist`.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use skep_api::object::ObjectExt;

use crate::kinds::TABLE;
use crate::strategy::{KindRow, Storage};

/// How objects of the kind are written.
fn writes(row: &KindRow) -> String {
    let mut said = Vec::new();
    let strategy = row.strategy;
    if strategy.create_on_update() {
        said.push("a PUT creates".to_owned());
    }
    if !strategy.unconditional_update() {
        said.push("wants a resourceVersion".to_owned());
    }
    if !row.generation.is_empty() {
        said.push(format!("generation of {}", row.generation.join(", ")));
    }
    if row.has_status() {
        said.push((if strategy.empties_status() { "status apart" } else { "status at creation" }).to_owned());
    }
    if strategy.scale().is_some() {
        said.push("scales".to_owned());
    }
    if strategy.graceful_delete(&json!({"spec": {"nodeName": "n"}, "status": {}}), None).is_some() {
        said.push("goes gracefully".to_owned());
    }
    if row.deprecated.is_some() {
        said.push("deprecated".to_owned());
    }
    said.join("; ")
}

/// What the name may be, by example.
fn names(row: &KindRow) -> &'static str {
    let grammar = row.strategy.name_grammar();
    let takes = |name: &str| grammar(name).is_empty();
    match (takes("a:B"), takes("a.b"), takes("1a"), takes("10.0.0.1")) {
        (true, ..) => "path segment",
        (false, true, true, _) => "subdomain",
        (false, false, true, _) => "label",
        (false, false, false, false) => "label from a letter on",
        (false, false, false, true) => "address",
        (false, true, false, _) => "other",
    }
}

/// An object that says nothing, as it is created.
fn empty(row: &KindRow, spec: bool) -> Value {
    let mut object = if spec { json!({"spec": {}}) } else { json!({}) };
    object.set_gvk(&row.gvk());
    object.set_name("x");
    object.set_uid("u");
    if row.namespaced {
        object.set_namespace("n");
    }
    row.default(&mut object);
    row.prepare_create(&mut object);
    row.default(&mut object);
    object
}

fn entry(row: &KindRow) -> String {
    let mut text = format!("{}/{} {}\n", row.group, row.version, row.kind);
    writeln!(text, "    name: {}", names(row)).unwrap();
    writeln!(text, "    writes: {}", writes(row)).unwrap();
    let has_spec = has_spec(row);
    let mut object = empty(row, has_spec);
    let errors = row.validate_create(&object);
    for path in [&["apiVersion"][..], &["kind"], &["metadata"], &["status", "lastPhaseTransitionTime"]] {
        object.unset(path);
    }
    for condition in crate::strategy::items_mut(&mut object, &["status", "conditions"]) {
        condition.unset(&["lastTransitionTime"]);
    }
    writeln!(text, "    defaults: {object}").unwrap();
    for line in errors.lines() {
        writeln!(text, "    empty: {line}").unwrap();
    }
    text
}

/// Kinds without a spec of their own keep their fields at the top.
fn has_spec(row: &KindRow) -> bool {
    ![
        "ConfigMap",
        "Secret",
        "ServiceAccount",
        "Endpoints",
        "Event",
        "PodTemplate",
        "ControllerRevision",
        "EndpointSlice",
        "Role",
        "ClusterRole",
        "RoleBinding",
        "ClusterRoleBinding",
        "PriorityClass",
        "StorageClass",
        "VolumeAttributesClass",
        "CSIStorageCapacity",
        "RuntimeClass",
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
    ]
    .contains(&row.kind)
}

#[test]
fn checklist() {
    let kept = |row: &&&KindRow| !matches!(row.storage, Storage::Virtual);
    let entries: Vec<String> = TABLE.iter().filter(kept).map(|row| entry(row)).collect();
    let found = entries.join("\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kinds/tests/checklist.txt");
    if std::env::var_os("SKEP_WRITE_GOLDENS").is_some() {
        std::fs::write(&path, found).unwrap();
        return;
    }
    let wanted = std::fs::read_to_string(&path).unwrap();
    let wanted: Vec<&str> = wanted.split("\n\n").map(str::trim_end).collect();
    for (found, wanted) in entries.iter().zip(&wanted) {
        assert_eq!(found.trim_end(), *wanted);
    }
    assert_eq!(entries.len(), wanted.len(), "kinds came or went");
}
