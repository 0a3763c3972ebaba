//! ServiceAccount: an identity for pods; tokens come from its `token` subresource.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::object::ObjectExt;

use super::namespaced;
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy, Subresource};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["sa"],
    subresources: &[Subresource {
        name: "token",
        kind: ("authentication.k8s.io", "v1", "TokenRequest"),
        verbs: &["create"],
    }],
    ..namespaced("", "v1", "ServiceAccount", "serviceaccounts", &ServiceAccount)
};

struct ServiceAccount;

const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

impl Strategy for ServiceAccount {
    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let has = |object: &Value| object.annotation(ENFORCE).is_some();
        if !has(object) || old.is_some_and(has) {
            return Vec::new();
        }
        vec![format!(
            "metadata.annotations[{ENFORCE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
        )]
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[printer::NAME, printer::text("Secrets"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), object.items(&["secrets"]).len().into(), printer::age(object, now)]
    }
}
