//! Validation of `metadata`, the same for every kind.

use serde_json::Value;
use skep_api::field::Error;
use skep_api::names;
use skep_api::object::ObjectExt;

use super::check::At;

const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Checks the metadata of a new object. A name has been generated before if one was asked for.
pub fn validate(metadata: &At<'_>, namespaced: bool, grammar: fn(&str) -> Vec<String>) {
    let generate = metadata.child("generateName");
    if !generate.is_empty() {
        generate.invalid_all(grammar(&names::mask_trailing_dash(generate.text())));
    }
    let name = metadata.child("name");
    if name.require_with("name or generateName is required") {
        name.invalid_all(grammar(name.text()));
    }
    let namespace = metadata.child("namespace");
    if namespaced {
        namespace.require_named(names::dns1123_label);
    } else if !namespace.is_empty() {
        namespace.forbidden("not allowed on this type");
    }
    common(metadata);
}

/// Checks the metadata of a changed object.
pub fn validate_update(metadata: &At<'_>, old: &Value) {
    for field in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        metadata.child(field).immutable(old.at(&["metadata", field]).unwrap_or(&Value::Null));
    }
    let generation = metadata.child("generation");
    if generation.int().unwrap_or(0) < old.generation() {
        generation.invalid("must not be decremented");
    }
    if old.deletion_timestamp().is_some() {
        let before = old.finalizers();
        let finalizers = metadata.child("finalizers");
        let mut added: Vec<String> = finalizers
            .items()
            .iter()
            .map(At::text)
            .filter(|f| !before.contains(f))
            .map(|f| format!("{f:?}"))
            .collect();
        if !added.is_empty() {
            added.sort();
            finalizers.forbidden(format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            ));
        }
    }
    common(metadata);
}

fn common(metadata: &At<'_>) {
    metadata.child("generation").non_negative();
    metadata.child("labels").labels();
    annotations(&metadata.child("annotations"));
    owners(&metadata.child("ownerReferences"));
    finalizers(&metadata.child("finalizers"));
}

/// A map of annotations: keys like those of labels (in any case), bounded in total size.
pub fn annotations(annotations: &At<'_>) {
    let mut size = 0;
    for (key, value) in annotations.entries() {
        size += key.len() + value.text().len();
        for detail in names::qualified_name(&key.to_lowercase()) {
            annotations.error(Error::invalid(annotations.path(), key, detail));
        }
    }
    if size > MAX_ANNOTATIONS {
        annotations.error(Error::too_long(annotations.path(), MAX_ANNOTATIONS));
    }
}

fn owners(references: &At<'_>) {
    let mut controller: Option<String> = None;
    for reference in references.items() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            reference.child(field).require_with("must not be empty");
        }
        let kind = reference.child("kind");
        if reference.child("apiVersion").text() == "v1" && kind.text() == "Event" {
            reference.invalid("/v1, Kind=Event is disallowed from being an owner");
        }
        if reference.child("controller").flag() {
            let this = format!("{}/{}", kind.text(), reference.child("name").text());
            match &controller {
                Some(first) => references.invalid(format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                )),
                None => controller = Some(this),
            }
        }
    }
}

fn finalizers(finalizers: &At<'_>) {
    let items = finalizers.items();
    for finalizer in &items {
        for detail in names::qualified_name(finalizer.text()) {
            finalizers.error(Error::invalid(finalizers.path(), finalizer.value().clone(), detail));
        }
    }
    let has = |name: &str| items.iter().any(|f| f.text() == name);
    if has("orphan") && has("foregroundDeletion") {
        finalizers.invalid("finalizer orphan and foregroundDeletion cannot be both set");
    }
}
