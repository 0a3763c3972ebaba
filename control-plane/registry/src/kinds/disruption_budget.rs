//! PodDisruptionBudget: how many pods evictions must leave.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::{Error, ErrorList};
use skep_api::object::ObjectExt;

use super::workload::{at_most_all, int_or_percent};
use super::{namespaced, status};
use crate::strategy::check::check;
use crate::strategy::meta;
use crate::strategy::printer::{self, Column, int_or_string};
use crate::strategy::{KindRow, Strategy};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["pdb"],
    generation: &["spec"],
    subresources: &[status("policy", "v1", "PodDisruptionBudget")],
    ..namespaced("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", &Budget)
};

struct Budget;

impl Strategy for Budget {
    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            let (least, most) = (spec.child("minAvailable"), spec.child("maxUnavailable"));
            if least.is_set() && most.is_set() {
                spec.error(Error::invalid(
                    spec.path(),
                    spec.value().clone(),
                    "minAvailable and maxUnavailable cannot be both set",
                ));
            }
            for count in [&least, &most] {
                int_or_percent(count);
                at_most_all(count);
            }
            spec.child("selector").selector();
            spec.child("unhealthyPodEvictionPolicy").one_of(&["AlwaysAllow", "IfHealthyBudget"]);
        })
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> ErrorList {
        check(new, |root| {
            meta::conditions(&root.child("status").child("conditions"));
            for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
                root.child("status").child(field).non_negative();
            }
        })
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::text("Min Available"),
            printer::text("Max Unavailable"),
            printer::integer("Allowed Disruptions"),
            printer::AGE,
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            int_or_string(object.at(&["spec", "minAvailable"]), "N/A").into(),
            int_or_string(object.at(&["spec", "maxUnavailable"]), "N/A").into(),
            printer::count(object, &["status", "disruptionsAllowed"]),
            printer::age(object, now),
        ]
    }
}
