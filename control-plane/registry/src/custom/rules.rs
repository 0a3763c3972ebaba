//! What a CustomResourceDefinition must be, in the words of the original. An update is not refused for
//! what was wrong before: each rule that came later than the first definitions is waived where the old
//! object broke it.

mod conversion;
mod defaults;
mod names;
mod openapi;
mod validations;
mod versions;

use serde_json::Value;
use skep_api::field::{Error, ErrorList, Path};
use skep_api::object::ObjectExt;

use super::formats;
use super::names::{APPROVED, Approval, approval, is_protected};
use crate::strategy::check::{At, check};

/// Every error of a definition, metadata aside. `old`: what it replaces.
pub(crate) fn validate(object: &Value, old: Option<&Value>) -> ErrorList {
    let mut errors = check(object, |root| {
        let spec = root.child("spec");
        if old.is_none() {
            let wanted =
                format!("{}.{}", spec.child("names").child("plural").text(), spec.child("group").text());
            let name = root.child("metadata").child("name");
            if name.text() != wanted {
                name.invalid("must be spec.names.plural+\".\"+spec.group");
            }
        }
        group(&spec.child("group"));
        spec.child("scope").require_one_of(&["Cluster", "Namespaced"]);
        for (at, version) in spec.child("versions").items().iter().enumerate() {
            let schema = version.down(&["schema", "openAPIV3Schema"]);
            if !schema.is_set() {
                let path =
                    Path::new("spec").child("versions").index(at).child("schema").child("openAPIV3Schema");
                schema.error(Error::required(&path, ""));
            }
        }
        versions::named(&spec.child("versions"));
        names::validate(&spec.child("names"), true);
        conversion::validate(&spec.child("conversion"), old);
        names::validate(&root.down(&["status", "acceptedNames"]), false);
        stored_versions(root);
        let preserved = old.is_some_and(|old| old.flag(&["spec", "preserveUnknownFields"]));
        if spec.child("preserveUnknownFields").flag() && !preserved {
            spec.child("preserveUnknownFields").invalid(
                "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
            );
        }
        if let Some(old) = old {
            immutable(&spec, old);
        }
        approved(root, object, old);
    });
    errors.extend(versions::validate(object, old));
    errors
}

fn group(group: &At<'_>) {
    if !group.require() {
        return;
    }
    let wrong = skep_api::names::dns1123_subdomain(group.text());
    if !wrong.is_empty() {
        group.invalid(wrong.join(","));
    } else if !group.text().contains('.') {
        group.invalid("should be a domain with at least one dot");
    }
}

fn immutable(spec: &At<'_>, old: &Value) {
    let before = |path: &[&str]| old["spec"].at(path).cloned().unwrap_or(Value::Null);
    if super::definition::is_true(old, "Established") {
        spec.child("scope").immutable(&before(&["scope"]));
        spec.child("names").child("kind").immutable(&before(&["names", "kind"]));
    }
    spec.child("group").immutable(&before(&["group"]));
    spec.child("names").child("plural").immutable(&before(&["names", "plural"]));
}

fn stored_versions(root: &At<'_>) {
    let stored = root.child("status").child("storedVersions");
    if stored.items().is_empty() {
        return stored.invalid("must have at least one stored version");
    }
    let versions = root.child("spec").child("versions").items();
    for version in &versions {
        let name = version.child("name").text();
        if version.child("storage").flag() && !stored.items().iter().any(|stored| stored.text() == name) {
            stored.invalid(format!("must have the storage version {name}"));
        }
    }
    for stored in stored.items() {
        let name = stored.text();
        if !versions.iter().any(|version| version.child("name").text() == name) {
            stored.invalid(format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in \
                 spec.versions until a storage migration ensures no data remains persisted in {name} and \
                 removes {name} from status.storedVersions"
            ));
        }
    }
}

/// Groups of the project need an approval.
fn approved(root: &At<'_>, object: &Value, old: Option<&Value>) {
    if !is_protected(object.text(&["spec", "group"])) {
        return;
    }
    let (state, reason) = approval(object);
    if old.is_some_and(|old| approval(old).0 == state) {
        return;
    }
    let path = Path::new("metadata").child("annotations").key(APPROVED);
    match state {
        Approval::Approved | Approval::Bypassed => {}
        Approval::Missing => root.error(Error::required(&path, reason)),
        Approval::Invalid => {
            let given = object.annotation(APPROVED).unwrap_or_default().to_owned();
            root.error(Error::invalid(&path, given, reason));
        }
    }
}

/// Every error of a version's schema by itself.
pub(crate) fn schema(schema: &Value, path: &Path) -> ErrorList {
    openapi::validate(schema, path, false, None)
}

/// Every error of a status.
pub(crate) fn validate_status(object: &Value) -> ErrorList {
    check(object, |root| {
        names::validate(&root.down(&["status", "acceptedNames"]), false);
        stored_versions(root);
    })
}

/// What is not wrong but does less than it seems to.
pub(crate) fn warnings(object: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    for version in object.items(&["spec", "versions"]) {
        if let Some(schema) = version.at(&["schema", "openAPIV3Schema"]) {
            openapi::each(schema, &mut |schema| {
                let format = schema.text(&["format"]);
                let known = formats::KNOWN.contains(&format) || formats::NUMBERS.contains(&format);
                if !format.is_empty() && !known {
                    warnings.push(format!("unrecognized format {format:?}"));
                }
                let items = schema.text(&["items", "type"]);
                if schema.text(&["x-kubernetes-list-type"]) == "set" && matches!(items, "object" | "array") {
                    warnings.push(format!(
                        "x-kubernetes-list-type: set for items of type {items:?} is not supported by \
                         server-side apply or CEL validation rules"
                    ));
                }
            });
        }
    }
    warnings.dedup();
    warnings
}
