//! Lease: who holds something, and until when.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::ErrorList;
use skep_api::object::ObjectExt;

use super::namespaced;
use crate::strategy::check::check;
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = namespaced("coordination.k8s.io", "v1", "Lease", "leases", &Lease);

struct Lease;

impl Strategy for Lease {
    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            spec.child("leaseDurationSeconds").positive();
            spec.child("leaseTransitions").non_negative();
            let holder = spec.child("holderIdentity");
            if holder.is_set() && holder.is_empty() {
                holder.invalid("must not be empty");
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
