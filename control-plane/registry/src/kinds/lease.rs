//! Lease: who holds something, and until when.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::{Error, ErrorList};
use skep_api::names;
use skep_api::object::ObjectExt;

use super::namespaced;
use crate::strategy::check::{At, check};
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = namespaced("coordination.k8s.io", "v1", "Lease", "leases", &Lease);

struct Lease;

/// How a coordinated election picks its leader: a name of upstream's, or one with a domain.
fn strategy_name(strategy: &At<'_>) {
    let parts: Vec<&str> = strategy.text().split('/').collect();
    match parts.as_slice() {
        ["OldestEmulationVersion"] => {}
        [_] => strategy.error(Error::not_supported(
            &strategy.path().child("strategy"),
            strategy.text(),
            &["OldestEmulationVersion"],
        )),
        _ => strategy.invalid_text(names::qualified_name(strategy.text())),
    }
}

impl Strategy for Lease {
    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            spec.child("leaseDurationSeconds").positive();
            spec.child("leaseTransitions").non_negative();
            let strategy = spec.child("strategy");
            if strategy.is_set() {
                strategy_name(&strategy);
            }
            let preferred = spec.child("preferredHolder");
            if !preferred.is_empty() && strategy.is_empty() {
                preferred.forbidden("may only be specified if `strategy` is defined");
            }
        })
    }

    /// Holders race: an update says which version it replaces.
    fn unconditional_update(&self) -> bool {
        false
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[printer::NAME, printer::text("Holder"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), object.text(&["spec", "holderIdentity"]).into(), printer::age(object, now)]
    }
}
