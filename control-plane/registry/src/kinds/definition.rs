//! CustomResourceDefinition. What its schemas mean is in `custom`.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::ErrorList;
use skep_api::object::ObjectExt;

use super::{cluster, status};
use crate::custom::{begin_delete, rules};
use crate::strategy::printer::{self, CREATED, Column, NAME};
use crate::strategy::{KindRow, Strategy, default_text, default_to};

/// CustomResourceDefinition.
pub(super) static ROW: KindRow = KindRow {
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

struct Definition;

/// A version that is stored from now on was stored once.
fn remember_stored_version(definition: &mut Value) {
    let versions = definition.items(&["spec", "versions"]);
    let Some(version) = versions.iter().find(|version| version.flag(&["storage"])) else { return };
    let version = version.text(&["name"]).to_owned();
    let mut stored = definition.items(&["status", "storedVersions"]).to_vec();
    if !stored.iter().any(|known| *known == version.as_str()) {
        stored.push(version.into());
    }
    definition.set(&["status", "storedVersions"], stored);
}

impl Strategy for Definition {
    fn default(&self, object: &mut Value) {
        let kind = object.text(&["spec", "names", "kind"]).to_owned();
        default_text(object, &["spec", "names", "singular"], &kind.to_lowercase());
        if !kind.is_empty() {
            default_text(object, &["spec", "names", "listKind"], &format!("{kind}List"));
        }
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
        rules::validate(object, None)
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        rules::validate(new, Some(old))
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> ErrorList {
        rules::validate_status(new)
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        rules::warnings(object)
    }

    fn begin_delete(&self, object: &mut Value) {
        begin_delete(object);
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[NAME, CREATED];
        COLUMNS
    }

    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        printer::plain(object)
    }
}
