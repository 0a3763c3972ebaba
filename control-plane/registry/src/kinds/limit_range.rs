//! LimitRange: least, most and usual amounts for what a namespace holds.

use serde_json::Value;
use skep_api::field::ErrorList;
use skep_api::object::ObjectExt;
use skep_api::quantity::Quantity;

use super::namespaced;
use super::pod::defaults::quantities;
use crate::strategy::check::{At, check};
use crate::strategy::{KindRow, Strategy, default_to, items_mut};

/// The row of the table of kinds.
pub(super) static ROW: KindRow =
    KindRow { short_names: &["limits"], ..namespaced("", "v1", "LimitRange", "limitranges", &LimitRange) };

const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
/// Each of these must not exceed the next: `min <= defaultRequest <= default <= max`.
const ORDER: [(&str, &str, &str); 6] = [
    ("min", "max", "min value"),
    ("defaultRequest", "max", "default request value"),
    ("default", "max", "default value"),
    ("min", "defaultRequest", "min value"),
    ("min", "default", "min value"),
    ("defaultRequest", "default", "default request value"),
];

struct LimitRange;

fn amount(item: &Value, list: &str, resource: &str) -> Option<Quantity> {
    item.text(&[list, resource]).parse().ok()
}

fn item(limit: &At<'_>) {
    for list in LISTS {
        for (_, value) in limit.child(list).entries() {
            value.quantity();
        }
    }
    for (low, high, words) in ORDER {
        for (resource, _) in limit.child(low).entries() {
            let (Some(a), Some(b)) =
                (amount(limit.value(), low, resource), amount(limit.value(), high, resource))
            else {
                continue;
            };
            if a > b {
                let here = limit.child(low);
                let what = match high {
                    "max" => "max value",
                    "default" => "default limit value",
                    _ => "default request value",
                };
                here.error(skep_api::field::Error::invalid(
                    &here.path().key(resource),
                    a.to_string(),
                    format!("{words} {a} is greater than {what} {b}"),
                ));
            }
        }
    }
}

impl Strategy for LimitRange {
    fn default(&self, object: &mut Value) {
        for limit in items_mut(object, &["spec", "limits"]) {
            for list in LISTS {
                quantities(limit, &[list]);
            }
            if limit.text(&["type"]) != "Container" {
                continue;
            }
            // The usual limit is the highest, the usual request the usual limit, else the lowest.
            for (to, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
                for (resource, value) in limit.map(&[from]).cloned().unwrap_or_default() {
                    default_to(limit, &[to, &resource], value);
                }
            }
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let mut taken = Vec::new();
            for limit in root.child("spec").child("limits").items() {
                let kind = limit.child("type");
                kind.require();
                if taken.contains(&kind.text()) {
                    kind.duplicate();
                }
                taken.push(kind.text());
                item(&limit);
            }
        })
    }
}
