//! PriorityClass: a name for a priority; the highest ones are the system's.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::ErrorList;
use skep_api::object::ObjectExt;

use super::cluster;
use crate::strategy::check::check;
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy, default_text};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["pc"],
    // Upstream sets it once: the value never changes.
    generation: &["value"],
    ..cluster("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", &PriorityClass)
};

const HIGHEST: i64 = 1_000_000_000;
const SYSTEM: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

struct PriorityClass;

/// Why a class with a name of the system's is none of its two.
fn system_fault(class: &Value) -> Option<String> {
    let name = class.name();
    let Some((_, value)) = SYSTEM.iter().find(|(known, _)| *known == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if class.int(&["value"]).unwrap_or(0) != *value {
        return Some(format!("value of {name} PriorityClass must be {value}"));
    }
    class.flag(&["globalDefault"]).then(|| format!("globalDefault of {name} PriorityClass must be false"))
}

impl Strategy for PriorityClass {
    fn default(&self, object: &mut Value) {
        default_text(object, &["preemptionPolicy"], "PreemptLowerPriority");
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let name = object.name();
            let value = root.child("value");
            if name.starts_with("system-") {
                if let Some(fault) = system_fault(object) {
                    root.child("metadata").child("name").forbidden(format!(
                        "priority class names with 'system-' prefix are reserved for system use only. error: {fault}"
                    ));
                }
            } else if value.int().unwrap_or(0) > HIGHEST {
                value.forbidden(format!("maximum allowed value of a user defined priority is {HIGHEST}"));
            }
            root.child("preemptionPolicy").one_of(&["Never", "PreemptLowerPriority"]);
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        check(new, |root| {
            if new.int(&["value"]).unwrap_or(0) != old.int(&["value"]).unwrap_or(0) {
                root.child("value").forbidden("may not be changed in an update.");
            }
            let policy = root.child("preemptionPolicy");
            policy.immutable(old.get("preemptionPolicy").unwrap_or(&Value::Null));
        })
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::integer("Value"),
            printer::boolean("Global-Default"),
            printer::AGE,
            printer::text("PreemptionPolicy"),
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            printer::count(object, &["value"]),
            object.flag(&["globalDefault"]).into(),
            printer::age(object, now),
            object.text(&["preemptionPolicy"]).into(),
        ]
    }
}
