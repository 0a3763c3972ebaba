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

impl Strategy for ServiceAccount {
    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[printer::NAME, printer::text("Secrets"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), object.items(&["secrets"]).len().into(), printer::age(object, now)]
    }
}
