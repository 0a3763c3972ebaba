//! ResourceQuota: how much a namespace may hold.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::ErrorList;
use skep_api::names;
use skep_api::object::ObjectExt;

use super::pod::defaults::quantities;
use super::{namespaced, status};
use crate::strategy::check::{At, check, same};
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["quota"],
    subresources: &[status("", "v1", "ResourceQuota")],
    ..namespaced("", "v1", "ResourceQuota", "resourcequotas", &ResourceQuota)
};

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

struct ResourceQuota;

fn amounts(list: &At<'_>) {
    for (resource, amount) in list.entries() {
        amount.invalid_all(names::qualified_name(resource));
        let Some(quantity) = amount.quantity() else { continue };
        if quantity.sign() < 0 {
            amount.invalid("must be greater than or equal to 0");
        }
        let counted = resource.starts_with("count/")
            || ["pods", "services", "secrets", "configmaps", "replicationcontrollers", "resourcequotas"]
                .contains(&resource);
        if counted && !quantity.is_integer() {
            amount.invalid("must be an integer");
        }
    }
}

/// `cpu: 1/2, memory: 0/1Gi` of the resources of one kind.
fn usage(object: &Value, limits: bool) -> String {
    let hard = object.map(&["status", "hard"]).cloned().unwrap_or_default();
    let mut parts: Vec<String> = hard
        .iter()
        .filter(|(name, _)| name.starts_with("limits") == limits)
        .map(|(name, most)| {
            let used = object.text(&["status", "used", name]);
            format!("{name}: {}/{}", printer::or(used, "0"), most.as_str().unwrap_or_default())
        })
        .collect();
    parts.sort();
    parts.join(", ")
}

impl Strategy for ResourceQuota {
    fn default(&self, object: &mut Value) {
        for path in [["spec", "hard"], ["status", "hard"], ["status", "used"]] {
            quantities(object, &path);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            amounts(&spec.child("hard"));
            let scopes = spec.child("scopes");
            scopes.items().iter().for_each(|s| s.one_of(SCOPES));
            let has = |name: &str| scopes.items().iter().any(|s| s.text() == name);
            if (has("BestEffort") && has("NotBestEffort")) || (has("Terminating") && has("NotTerminating")) {
                scopes.invalid("conflicting scopes");
            }
            for expression in spec.down(&["scopeSelector", "matchExpressions"]).items() {
                expression.child("scopeName").require_one_of(SCOPES);
                expression.child("operator").require_one_of(&["DoesNotExist", "Exists", "In", "NotIn"]);
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(new);
        errors.extend(check(new, |root| {
            let scopes = root.child("spec").child("scopes");
            if !same(scopes.value(), old.at(&["spec", "scopes"]).unwrap_or(&Value::Null)) {
                scopes.invalid("field is immutable");
            }
        }));
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> ErrorList {
        check(new, |root| {
            amounts(&root.down(&["status", "hard"]));
            amounts(&root.down(&["status", "used"]));
        })
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] =
            &[printer::NAME, printer::text("Request"), printer::text("Limit"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            usage(object, false).into(),
            usage(object, true).into(),
            printer::age(object, now),
        ]
    }
}
