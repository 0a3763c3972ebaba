//! FlowSchema and PriorityLevelConfiguration: which requests wait for which.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::ErrorList;
use skep_api::object::ObjectExt;

use super::{cluster, status};
use crate::strategy::check::check;
use crate::strategy::printer::{self, Column, or};
use crate::strategy::{KindRow, Strategy, default_text, default_to};

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
        check(object, |root| {
            let spec = root.child("spec");
            spec.child("matchingPrecedence").within(1, 10000);
            let level = spec.child("priorityLevelConfiguration").child("name");
            level.require_with("must reference a priority level");
            spec.child("distinguisherMethod").child("type").one_of(&["ByNamespace", "ByUser"]);
            for rule in spec.child("rules").items() {
                rule.child("subjects").require_with("subjects must contain at least one value");
                let (resources, urls) = (rule.child("resourceRules"), rule.child("nonResourceRules"));
                if resources.is_empty() && urls.is_empty() {
                    rule.required("at least one of resourceRules and nonResourceRules has to be non-empty");
                }
                for subject in rule.child("subjects").items() {
                    subject.child("kind").require_one_of(&["Group", "ServiceAccount", "User"]);
                }
                for entry in resources.items() {
                    for field in ["verbs", "apiGroups", "resources"] {
                        entry.child(field).require();
                    }
                }
                for entry in urls.items() {
                    entry.child("verbs").require();
                    entry.child("nonResourceURLs").require();
                }
            }
        })
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::text("PriorityLevel"),
            printer::integer("MatchingPrecedence"),
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
        let limited = object.text(&["spec", "type"]) == "Limited";
        let section = if limited { "limited" } else { "exempt" };
        default_to(object, &["spec", section, "nominalConcurrencyShares"], if limited { 30 } else { 0 });
        default_to(object, &["spec", section, "lendablePercent"], 0);
        if !limited {
            return;
        }
        default_text(object, &["spec", "limited", "limitResponse", "type"], "Reject");
        if object.text(&["spec", "limited", "limitResponse", "type"]) == "Queue" {
            for (field, value) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                default_to(object, &["spec", "limited", "limitResponse", "queuing", field], value);
            }
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            let kind = spec.child("type");
            kind.require_one_of(&["Exempt", "Limited"]);
            let (limited, exempt) = (spec.child("limited"), spec.child("exempt"));
            if kind.text() == "Exempt" && limited.is_set() {
                limited.forbidden("must be nil if the type is not Limited");
            }
            if kind.text() == "Limited" && exempt.is_set() {
                exempt.forbidden("must be nil if the type is Limited");
            }
            for section in [&limited, &exempt] {
                section.child("nominalConcurrencyShares").non_negative();
                section.child("lendablePercent").within(0, 100);
            }
            let response = limited.child("limitResponse");
            if kind.text() == "Limited" {
                response.child("type").require_one_of(&["Queue", "Reject"]);
                let queuing = response.child("queuing");
                let queues = queuing.child("queues").int().unwrap_or(0);
                for field in ["queues", "handSize", "queueLengthLimit"] {
                    queuing.child(field).positive();
                }
                let hand = queuing.child("handSize");
                if hand.int().is_some_and(|h| h > queues) {
                    hand.invalid(format!("should not be greater than queues ({queues})"));
                }
            }
        })
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
