//! LimitRange: least, most and usual amounts for what a namespace holds.

use std::collections::BTreeSet;

use serde_json::Value;
use skep_api::field::{Error, ErrorList};
use skep_api::names;
use skep_api::object::ObjectExt;
use skep_api::quantity::Quantity;

use super::pod::defaults::quantities;
use super::{namespaced, resource_name};
use crate::strategy::check::{At, check};
use crate::strategy::{KindRow, Strategy, default_to, items_mut};

/// The row of the table of kinds.
pub(super) static ROW: KindRow =
    KindRow { short_names: &["limits"], ..namespaced("", "v1", "LimitRange", "limitranges", &LimitRange) };

const LISTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
/// Bounds of two lists: which must not exceed which, whose entry and whose amount upstream tells, and in what words.
const ORDER: [(&str, &str, &str, &str, [&str; 2]); 6] = [
    ("min", "max", "min", "min", ["min value", "max value"]),
    ("min", "defaultRequest", "defaultRequest", "defaultRequest", ["min value", "default request value"]),
    ("defaultRequest", "max", "defaultRequest", "defaultRequest", ["default request value", "max value"]),
    (
        "defaultRequest",
        "default",
        "defaultRequest",
        "defaultRequest",
        ["default request value", "default limit value"],
    ),
    ("min", "default", "default", "min", ["min value", "default value"]),
    ("default", "max", "default", "max", ["default value", "max value"]),
];

struct LimitRange;

/// What upstream counts as an integer of thousandths, so that ratios of small amounts are exact.
const MAX_EXACT: i64 = i64::MAX / 1000;

fn amount(item: &Value, list: &str, resource: &str) -> Option<Quantity> {
    item.text(&[list, resource]).parse().ok()
}

fn kind(at: &At<'_>) {
    let faults = names::qualified_name(at.text());
    let fine = faults.is_empty();
    at.invalid_text(faults);
    if fine && !at.text().contains('/') && !["Container", "PersistentVolumeClaim", "Pod"].contains(&at.text())
    {
        at.invalid_text(vec!["must be a standard limit type or fully qualified".to_owned()]);
    }
}

fn item(limit: &At<'_>) {
    let of = limit.child("type").text();
    let name = |entry: &At<'_>, resource: &str| {
        if ["Container", "Pod"].contains(&of) {
            resource_name::of_container(entry, resource);
        } else {
            resource_name::known(entry, resource);
        }
    };
    let of_pod = of == "Pod";
    let mut keys = BTreeSet::new();
    for list in LISTS {
        let here = limit.child(list);
        if of_pod && list.starts_with("default") {
            if !here.is_empty() {
                here.forbidden("may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (resource, value) in here.entries() {
            name(&value, resource);
            value.quantity();
            keys.insert(resource);
        }
        let bounds = |list: &str| limit.child(list).child("storage").is_set();
        if list == "defaultRequest" && of == "PersistentVolumeClaim" && !bounds("min") && !bounds("max") {
            limit
                .child("limits")
                .required("either minimum or maximum storage value is required, but neither was provided");
        }
    }
    for resource in keys {
        bounds(limit, resource, of_pod);
        ratio(limit, resource);
    }
}

fn bounds(limit: &At<'_>, resource: &str, of_pod: bool) {
    let get = |list: &str| {
        let unused = of_pod && list.starts_with("default");
        amount(limit.value(), list, resource).filter(|_| !unused)
    };
    for (low, high, at, value, [low_words, high_words]) in ORDER {
        if let (Some(a), Some(b)) = (get(low), get(high))
            && a > b
        {
            let told = if value == low { a } else { b };
            limit.error(Error::invalid(
                &limit.child(at).path().key(resource),
                told.to_string(),
                format!("{low_words} {a} is greater than {high_words} {b}"),
            ));
        }
    }
    if let (Some(usual), Some(request)) = (get("default"), get("defaultRequest"))
        && usual != request
        && !resource_name::overcommits(resource)
    {
        limit.error(Error::invalid(
            &limit.child("defaultRequest").path().key(resource),
            request.to_string(),
            format!("default value {usual} must equal to defaultRequest value {request} in {resource}"),
        ));
    }
}

fn ratio(limit: &At<'_>, resource: &str) {
    let get = |list: &str| amount(limit.value(), list, resource);
    let Some(ratio) = get("maxLimitRequestRatio") else { return };
    let complain = |detail: String| {
        let path = limit.child("maxLimitRequestRatio").path().key(resource);
        limit.error(Error::invalid(&path, ratio.to_string(), detail));
    };
    if ratio < Quantity::from_int(1) {
        complain(format!("ratio {ratio} is less than 1"));
    }
    let (Some(low), Some(high)) = (get("min"), get("max")) else { return };
    let exact = [&ratio, &low, &high].iter().all(|quantity| quantity.value() < MAX_EXACT);
    let number = |quantity: &Quantity| {
        #[expect(clippy::cast_precision_loss, reason = "upstream compares the same floats")]
        let number = if exact { quantity.milli_value() as f64 } else { quantity.value() as f64 };
        number
    };
    let asked = if exact { number(&ratio) / 1000.0 } else { number(&ratio) };
    let most = number(&high) / number(&low);
    if asked > most {
        complain(format!("ratio {ratio} is greater than max/min = {most:.6}"));
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
                let of = limit.child("type");
                kind(&of);
                if taken.contains(&of.text()) {
                    of.duplicate();
                }
                taken.push(of.text());
                item(&limit);
            }
        })
    }

    fn create_on_update(&self) -> bool {
        true
    }
}
