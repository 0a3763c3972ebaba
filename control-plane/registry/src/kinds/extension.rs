//! What adds kinds: CustomResourceDefinition and APIService.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::{Error, ErrorList};
use skep_api::names;
use skep_api::object::ObjectExt;

use super::{cluster, status};
use crate::strategy::check::{At, check};
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy, default_text, default_to};

/// CustomResourceDefinition.
pub(super) static DEFINITION: KindRow = KindRow {
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    generation: &["spec"],
    subresources: &[status("apiextensions.k8s.io", "v1", "CustomResourceDefinition")],
    ..cluster(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        &Definition,
    )
};

/// APIService.
pub(super) static API_SERVICE: KindRow = KindRow {
    categories: &["api-extensions"],
    subresources: &[status("apiregistration.k8s.io", "v1", "APIService")],
    ..cluster("apiregistration.k8s.io", "v1", "APIService", "apiservices", &ApiService)
};

struct Definition;

fn stored_version(definition: &Value) -> Option<&str> {
    let versions = definition.items(&["spec", "versions"]);
    versions.iter().find(|v| v.flag(&["storage"])).map(|v| v.text(&["name"]))
}

fn remember_stored_version(definition: &mut Value) {
    let Some(version) = stored_version(definition).map(str::to_owned) else { return };
    let mut stored = definition.items(&["status", "storedVersions"]).to_vec();
    if !stored.iter().any(|v| v == version.as_str()) {
        stored.push(version.into());
    }
    definition.set(&["status", "storedVersions"], stored);
}

fn versions(versions: &At<'_>) {
    let items = versions.items();
    if items.iter().filter(|v| v.child("storage").flag()).count() != 1 {
        versions.invalid("must have exactly one version marked as storage version");
    }
    let mut taken = Vec::new();
    for version in items {
        let name = version.child("name");
        name.require_named(names::dns1035_label);
        if taken.contains(&name.text()) {
            versions.invalid("must contain unique version names");
        }
        taken.push(name.text());
        let schema = version.child("schema").child("openAPIV3Schema");
        if !schema.is_set() {
            schema.required("schemas are required");
        } else if schema.child("type").text() != "object" {
            let kind = schema.child("type");
            if kind.is_empty() {
                kind.required("must not be empty at the root");
            } else {
                kind.invalid("must be object at the root");
            }
        }
    }
}

impl Strategy for Definition {
    fn default(&self, object: &mut Value) {
        let kind = object.text(&["spec", "names", "kind"]).to_owned();
        default_text(object, &["spec", "names", "singular"], &kind.to_lowercase());
        default_text(object, &["spec", "names", "listKind"], &format!("{kind}List"));
        default_text(object, &["spec", "conversion", "strategy"], "None");
        if object.at(&["spec", "conversion", "webhook", "clientConfig", "service"]).is_some() {
            default_to(object, &["spec", "conversion", "webhook", "clientConfig", "service", "port"], 443);
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object.set(&["status"], json!({"acceptedNames": {"kind": "", "plural": ""}, "conditions": []}));
        remember_stored_version(object);
    }

    fn prepare_for_update(&self, new: &mut Value, _old: &Value) {
        remember_stored_version(new);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            let (group, plural) = (spec.child("group"), spec.child("names").child("plural"));
            if group.require() {
                group.named(names::dns1123_subdomain);
                if !group.text().contains('.') {
                    group.invalid("should be a domain with at least one dot");
                }
            }
            let name = root.child("metadata").child("name");
            if name.text() != format!("{}.{}", plural.text(), group.text()) {
                name.invalid("must be spec.names.plural+\".\"+spec.group");
            }
            spec.child("scope").require_one_of(&["Cluster", "Namespaced"]);
            for field in ["plural", "singular"] {
                spec.child("names").child(field).require_named(names::dns1035_label);
            }
            for field in ["kind", "listKind"] {
                let here = spec.child("names").child(field);
                if here.require() {
                    let errors = names::dns1035_label(&here.text().to_lowercase());
                    if !errors.is_empty() {
                        here.invalid(format!(
                            "may have mixed case, but should otherwise match: {}",
                            errors.join(",")
                        ));
                    }
                }
            }
            if spec.child("names").child("kind").text() == spec.child("names").child("listKind").text() {
                spec.child("names").child("listKind").invalid("kind and listKind may not be the same");
            }
            versions(&spec.child("versions"));
            let conversion = spec.child("conversion");
            conversion.child("strategy").require_one_of(&["None", "Webhook"]);
            if conversion.child("strategy").text() == "Webhook" {
                conversion.child("webhook").require_with("required when strategy is set to Webhook");
            }
            if spec.child("preserveUnknownFields").flag() {
                spec.child("preserveUnknownFields").invalid(
                    "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
                );
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(new);
        errors.extend(check(new, |root| {
            let spec = root.child("spec");
            let before = |path: &[&str]| old["spec"].at(path).cloned().unwrap_or(Value::Null);
            spec.child("group").immutable(&before(&["group"]));
            spec.child("scope").immutable(&before(&["scope"]));
            spec.child("names").child("kind").immutable(&before(&["names", "kind"]));
            spec.child("names").child("plural").immutable(&before(&["names", "plural"]));
            for stored in root.child("status").child("storedVersions").items() {
                let known = spec.child("versions").items();
                if !known.iter().any(|v| v.child("name").text() == stored.text()) {
                    stored.error(Error::invalid(
                        stored.path(),
                        stored.text(),
                        "missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 from status.storedVersions"
                            .replace("v1", stored.text()),
                    ));
                }
            }
        }));
        errors
    }
}

struct ApiService;

impl Strategy for ApiService {
    /// `v1.`, of the group without a name, is no subdomain.
    fn name_grammar(&self) -> fn(&str) -> Vec<String> {
        names::path_segment
    }

    fn default(&self, object: &mut Value) {
        if object.at(&["spec", "service"]).is_some() {
            default_to(object, &["spec", "service", "port"], 443);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            let (group, version) = (spec.child("group"), spec.child("version"));
            let wanted = format!("{}.{}", version.text(), group.text());
            let name = root.child("metadata").child("name");
            if name.text() != wanted {
                name.invalid(format!("must be `spec.version+\".\"+spec.group`: {wanted:?}"));
            }
            group.named(names::dns1123_subdomain);
            if group.is_empty() && version.text() != "v1" {
                group.required("only v1 may have an empty group and it better be legacy kube");
            }
            version.require_named(names::dns1035_label);
            let priority = spec.child("groupPriorityMinimum");
            if !priority.int().is_some_and(|p| (1..=20000).contains(&p)) {
                priority.invalid("must be positive and less than 20000");
            }
            let priority = spec.child("versionPriority");
            if !priority.int().is_some_and(|p| (1..=1000).contains(&p)) {
                priority.invalid("must be positive and less than 1000");
            }
            let service = spec.child("service");
            let bundle = spec.child("caBundle");
            let insecure = spec.child("insecureSkipTLSVerify");
            if service.is_set() {
                service.child("name").require();
                service.child("namespace").require();
                if insecure.flag() && !bundle.is_empty() {
                    insecure.invalid("may not be true if caBundle is present");
                }
            } else {
                if !bundle.is_empty() {
                    bundle.invalid("local APIServices may not have a caBundle");
                }
                if insecure.flag() {
                    insecure.invalid("local APIServices may not have insecureSkipTLSVerify");
                }
            }
        })
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] =
            &[printer::NAME, printer::text("Service"), printer::text("Available"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let service = object.at(&["spec", "service"]).map_or_else(
            || "Local".to_owned(),
            |s| format!("{}/{}", s.text(&["namespace"]), s.text(&["name"])),
        );
        let conditions = object.items(&["status", "conditions"]);
        let available = conditions.iter().find(|c| c.text(&["type"]) == "Available");
        let available = available.map_or_else(
            || "Unknown".to_owned(),
            |c| match c.text(&["status"]) {
                "True" => "True".to_owned(),
                other => format!("{other} ({})", c.text(&["reason"])),
            },
        );
        vec![object.name().into(), service.into(), available.into(), printer::age(object, now)]
    }
}
