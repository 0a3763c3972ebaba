//! FlowSchema and PriorityLevelConfiguration: which requests wait for which.

mod validate;

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::ErrorList;
use skep_api::object::ObjectExt;

use super::{cluster, status};
use crate::strategy::check::check;
use crate::strategy::printer::{self, Column, or};
use crate::strategy::{KindRow, Strategy, default_to};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// FlowSchema.
pub(super) static SCHEMA: KindRow = KindRow {
    generation: &["spec"],
    subresources: &[status(GROUP, "v1", "FlowSchema")],
    ..cluster(GROUP, "v1", "FlowSchema", "flowschemas", &Schema)
};

/// PriorityLevelConfiguration.
pub(super) static LEVEL: KindRow = KindRow {
    generation: &["spec"],
    subresources: &[status(GROUP, "v1", "PriorityLevelConfiguration")],
    ..cluster(GROUP, "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations", &Level)
};

struct Schema;
struct Level;

impl Strategy for Schema {
    fn default(&self, object: &mut Value) {
        if object.int(&["spec", "matchingPrecedence"]).unwrap_or(0) == 0 {
            object.set(&["spec", "matchingPrecedence"], 1000);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, validate::schema)
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> ErrorList {
        check(new, |root| validate::conditions(&root.child("status")))
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::text("PriorityLevel"),
            printer::text("MatchingPrecedence"),
            printer::text("DistinguisherMethod"),
            printer::AGE,
            printer::text("MissingPL"),
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let conditions = object.items(&["status", "conditions"]);
        let dangling = conditions.iter().find(|c| c.text(&["type"]) == "Dangling");
        vec![
            object.name().into(),
            or(object.text(&["spec", "priorityLevelConfiguration", "name"]), "<none>").into(),
            printer::count(object, &["spec", "matchingPrecedence"]),
            or(object.text(&["spec", "distinguisherMethod", "type"]), "<none>").into(),
            printer::age(object, now),
            dangling.map_or("?", |c| c.text(&["status"])).into(),
        ]
    }
}

impl Strategy for Level {
    fn default(&self, object: &mut Value) {
        for (section, shares) in [("limited", 30), ("exempt", 0)] {
            if object.at(&["spec", section]).is_some() {
                default_to(object, &["spec", section, "nominalConcurrencyShares"], shares);
                default_to(object, &["spec", section, "lendablePercent"], 0);
            }
        }
        let queuing = ["spec", "limited", "limitResponse", "queuing"];
        if object.at(&queuing).is_none() {
            return;
        }
        for (field, value) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
            let path = [&queuing[..], &[field]].concat();
            if object.int(&path).unwrap_or(0) == 0 {
                object.set(&path, value);
            }
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, validate::level)
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> ErrorList {
        check(new, |root| validate::conditions(&root.child("status")))
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::text("Type"),
            printer::text("NominalConcurrencyShares"),
            printer::text("Queues"),
            printer::text("HandSize"),
            printer::text("QueueLengthLimit"),
            printer::AGE,
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let kind = object.text(&["spec", "type"]);
        let section = if kind == "Limited" { "limited" } else { "exempt" };
        let shares = object.at(&["spec", section, "nominalConcurrencyShares"]);
        let queuing = |field: &str| {
            let value = object.at(&["spec", "limited", "limitResponse", "queuing", field]);
            Value::from(printer::int_or_string(value, "<none>"))
        };
        vec![
            object.name().into(),
            kind.into(),
            printer::int_or_string(shares, "<none>").into(),
            queuing("queues"),
            queuing("handSize"),
            queuing("queueLengthLimit"),
            printer::age(object, now),
        ]
    }
}
