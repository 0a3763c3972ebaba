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

/// Bytes of the reason of a condition, and of its message.
const MAX_REASON: usize = 1024;
const MAX_MESSAGE: usize = 32 * 1024;

/// A list of `metav1.Condition`.
pub fn conditions(conditions: &At<'_>) {
    let mut types: Vec<&str> = Vec::new();
    for condition in conditions.items() {
        let kind = condition.child("type");
        if types.contains(&kind.text()) {
            kind.duplicate();
        }
        types.push(kind.text());
        kind.invalid_text(names::qualified_name(kind.text()));
        let status = condition.child("status");
        if !["False", "True", "Unknown"].contains(&status.text()) {
            let known = &["False", "True", "Unknown"];
            status.error(Error::not_supported(status.path(), status.text(), known));
        }
        let generation = condition.child("observedGeneration");
        if generation.int().is_some_and(|generation| generation < 0) {
            generation.invalid("must be greater than or equal to zero");
        }
        condition.child("lastTransitionTime").require_with("must be set");
        let (reason, message) = (condition.child("reason"), condition.child("message"));
        if reason.require_with("must be set") {
            let inner = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let fine = reason.text().starts_with(|c: char| c.is_ascii_alphabetic())
                && reason.text().ends_with(inner)
                && reason.text().chars().all(|c| inner(c) || c == ',' || c == ':');
            if !fine {
                reason.invalid("a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')");
            }
            if reason.text().len() > MAX_REASON {
                reason.error(Error::too_long(reason.path(), MAX_REASON));
            }
        }
        if message.text().len() > MAX_MESSAGE {
            message.error(Error::too_long(message.path(), MAX_MESSAGE));
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
