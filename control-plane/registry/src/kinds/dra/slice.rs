//! What a driver offers on a node, on some, or everywhere: devices with attributes, capacities and counters.

use serde_json::Value;
use skep_api::field::Error;
use skep_api::names;
use skep_api::object::ObjectExt;
use skep_api::quantity::Quantity;

use super::rules::{binding, label, list, pool_name, qualified, set};
use crate::kinds::pod::spec::node_selector;
use crate::kinds::pod::volumes::driver;
use crate::strategy::check::{At, same};

/// Devices of a slice.
const MAX_DEVICES: usize = 128;
/// The same where one of them has taints or consumes counters: such are large.
const MAX_LARGE_DEVICES: usize = 64;
/// Attributes and capacities of a device together.
const MAX_FACTS: usize = 32;
/// Sets of counters of a slice.
const MAX_SETS: usize = 8;
/// Sets of counters one device consumes of.
const MAX_CONSUMED_SETS: usize = 2;
/// Counters of one set, and those one device consumes of one.
const MAX_COUNTERS: usize = 32;
/// Taints of a device.
const MAX_TAINTS: usize = 16;
/// Bytes of the text of an attribute.
const MAX_TEXT: usize = 64;
/// Values a capacity may be asked for in.
const MAX_VALUES: usize = 10;

/// What a taint does to claims that do not tolerate it.
pub(super) const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// The spec of a slice, over the one that was stored, if there is one.
pub(super) fn spec(spec: &At<'_>, old: Option<&Value>) {
    driver(&spec.child("driver"));
    pool(&spec.child("pool"));
    if let Some(old) = old {
        for path in [&["pool", "name"][..], &["driver"], &["nodeName"]] {
            spec.down(path).immutable(old.at(path).unwrap_or(&Value::Null));
        }
    }
    let found = places(spec);
    match found.as_slice() {
        [] => spec.required(
            "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
        ),
        [_] => {}
        more => spec.error(Error::invalid(
            spec.path(),
            format!("{{{}}}", more.join(", ")),
            "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
        )),
    }
    let (devices, shared) = (spec.child("devices"), spec.child("sharedCounters"));
    if devices.is_set() && shared.is_set() {
        let detail = "only one of `sharedCounters` or `devices` is allowed";
        spec.error(Error::invalid(spec.path(), "", detail));
    }
    let each = spec.child("perDeviceNodeSelection").flag();
    let large = |device: &At<'_>| ["taints", "consumesCounters"].iter().any(|f| !device.child(f).is_empty());
    let most = if devices.items().iter().any(large) { MAX_LARGE_DEVICES } else { MAX_DEVICES };
    let before = old.map(|old| old.items(&["devices"])).unwrap_or_default();
    set(&devices, most, "name", |one| {
        let stored = before.iter().find(|other| other.text(&["name"]) == one.child("name").text());
        device(one, stored, each);
    });
    set(&shared, MAX_SETS, "name", |set| {
        set.child("name").require_named(names::dns1123_label);
        counter_map(&set.child("counters"));
    });
}

fn pool(pool: &At<'_>) {
    pool_name(&pool.child("name"));
    let (count, generation) = (pool.child("resourceSliceCount"), pool.child("generation"));
    let number = count.int().unwrap_or(0);
    if number <= 0 {
        count.error(Error::invalid(count.path(), number, "must be greater than zero"));
    }
    if generation.int().is_some_and(|generation| generation < 0) {
        generation.invalid("must be greater than or equal to zero");
    }
}

/// Which fields say where a slice is.
fn places(spec: &At<'_>) -> Vec<&'static str> {
    let mut found = Vec::new();
    let (name, selector) = (spec.child("nodeName"), spec.child("nodeSelector"));
    if name.is_set() && name.is_empty() {
        name.invalid("must be either unset or set to a non-empty string");
    } else if name.is_set() {
        found.push("`nodeName`");
        name.named(names::dns1123_subdomain);
    }
    if selector.is_set() {
        found.push("`nodeSelector`");
        node_selector(&selector);
        let terms = selector.child("nodeSelectorTerms");
        if terms.items().len() != 1 {
            terms.invalid("must have exactly one node selector term");
        }
    }
    for (field, told) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")]
    {
        let flag = spec.child(field);
        if flag.flag() {
            found.push(told);
        } else if flag.is_set() {
            flag.invalid("must be either unset or set to true");
        }
    }
    found
}

fn counter_map(counters: &At<'_>) {
    if !counters.require() {
        return;
    }
    let entries = counters.entries();
    if entries.len() > MAX_COUNTERS {
        counters.error(Error::too_many(counters.path(), entries.len(), MAX_COUNTERS));
        return;
    }
    for (name, counter) in entries {
        for detail in names::dns1123_label(name) {
            counter.error(Error::invalid(counter.path(), name, detail));
        }
    }
}

/// A device, over the one of its name that was stored: its capacities and taints of before stay accepted.
fn device(device: &At<'_>, old: Option<&Value>, each: bool) {
    let kept = |field: &str| {
        old.is_some_and(|old| same(old.get(field).unwrap_or(&Value::Null), device.child(field).value()))
    };
    label(&device.child("name"));
    let (attributes, capacity) = (device.child("attributes"), device.child("capacity"));
    let facts = attributes.entries().len() + capacity.entries().len();
    if facts > MAX_FACTS {
        let detail = format!("the total number of attributes and capacities must not exceed {MAX_FACTS}");
        device.error(Error::invalid(device.path(), facts, detail));
    }
    for (name, value) in attributes.entries() {
        qualified(&value, name);
        attribute(&value);
    }
    if !kept("capacity") {
        capacities(device);
    }
    if !kept("taints") {
        list(&device.child("taints"), MAX_TAINTS, taint);
    }
    set(&device.child("consumesCounters"), MAX_CONSUMED_SETS, "counterSet", |one| {
        one.child("counterSet").require_named(names::dns1123_label);
        counter_map(&one.child("counters"));
    });
    place(device, each);
    binding(device);
}

fn capacities(device: &At<'_>) {
    let several = device.child("allowMultipleAllocations").flag();
    for (name, value) in device.child("capacity").entries() {
        qualified(&value, name);
        let policy = value.child("requestPolicy");
        if policy.is_set() && !several {
            policy.forbidden("allowMultipleAllocations must be true");
        } else if policy.is_set() {
            request_policy(&policy, &value.child("value"));
        }
    }
}

fn attribute(attribute: &At<'_>) {
    let set =
        ["bool", "int", "string", "version"].into_iter().filter(|f| attribute.child(f).is_set()).count();
    for field in ["string", "version"] {
        let text = attribute.child(field);
        if field == "version" && text.is_set() && !is_semver(text.text()) {
            text.invalid("must be a string compatible with semver.org spec 2.0.0");
        }
        if text.text().len() > MAX_TEXT {
            text.error(Error::too_long(text.path(), MAX_TEXT));
        }
    }
    match set {
        0 => attribute.required("exactly one value must be specified"),
        1 => {}
        _ => attribute.invalid("exactly one value must be specified"),
    }
}

/// A version after semver.org 2.0.0.
fn is_semver(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let number = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| pre.split('.').all(|part| word(part) && (!digits(part) || number(part))))
        && build.is_none_or(|build| build.split('.').all(word))
}

fn taint(taint: &At<'_>) {
    let (key, effect) = (taint.child("key"), taint.child("effect"));
    key.invalid_text(names::qualified_name(key.text()));
    taint.child("value").named(names::label_value);
    effect.require_one_of(EFFECTS);
}

/// Where a device is, when each says so for itself.
fn place(device: &At<'_>, each: bool) {
    let [name, selector, all] = ["nodeName", "nodeSelector", "allNodes"].map(|field| device.child(field));
    if !each {
        if [&name, &selector, &all].into_iter().any(At::is_set) {
            let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            device.error(Error::invalid(device.path(), Value::Null, detail));
        }
        return;
    }
    let mut found = Vec::new();
    if name.is_set() && name.is_empty() {
        name.invalid("must not be empty");
    } else if name.is_set() {
        found.push("`nodeName`");
        name.named(names::dns1123_subdomain);
    }
    if selector.is_set() {
        found.push("`nodeSelector`");
        node_selector(&selector);
    }
    if all.flag() {
        found.push("`allNodes`");
    } else if all.is_set() {
        all.invalid("must be either unset or set to true");
    }
    let detail = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    match found.len() {
        0 => device.required(detail),
        1 => {}
        _ => device.error(Error::invalid(device.path(), format!("{{{}}}", found.join(", ")), detail)),
    }
}

/// In what amounts a capacity may be asked for.
fn request_policy(policy: &At<'_>, capacity: &At<'_>) {
    let (values, range, default) =
        (policy.child("validValues"), policy.child("validRange"), policy.child("default"));
    let Some(most) = capacity.quantity() else { return };
    match (values.is_empty(), range.is_set()) {
        (false, true) => policy.forbidden(
            "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time",
        ),
        (false, false) => match default.quantity() {
            None => default.required("required when validValues is defined"),
            Some(usual) => valid_values(&values, usual, most),
        },
        (true, true) => match default.quantity() {
            None => default.required("required when validRange is defined"),
            Some(usual) => valid_range(&range, usual, most),
        },
        (true, false) => {}
    }
}

fn valid_values(values: &At<'_>, usual: Quantity, most: Quantity) {
    let items = values.items();
    let numbers: Vec<Quantity> = items.iter().filter_map(At::quantity).collect();
    for (index, pair) in numbers.windows(2).enumerate() {
        if pair[0] > pair[1] {
            let path = values.path().index(index + 1);
            values.error(Error::invalid(
                &path,
                pair[1].to_string(),
                "values must be sorted in ascending order",
            ));
        }
    }
    set(values, MAX_VALUES, "", |value| {
        if value.value().as_str().and_then(|v| v.parse::<Quantity>().ok()).is_some_and(|value| value > most) {
            value.invalid(format!("option is larger than capacity value: {most}"));
        }
    });
    if !numbers.contains(&usual) {
        let detail = "default value is not valid according to the requestPolicy";
        values.error(Error::invalid(values.path(), usual.to_string(), detail));
    }
}

fn valid_range(range: &At<'_>, usual: Quantity, most: Quantity) {
    let [min, max, step] = ["min", "max", "step"].map(|field| range.child(field));
    let Some(low) = min.quantity() else { return min.required("required when validRange is defined") };
    let told = |at: &At<'_>, value: Quantity, detail: String| {
        at.error(Error::invalid(at.path(), value.to_string(), detail));
    };
    if low > most {
        told(&min, low, format!("min is larger than capacity value: {most}"));
    }
    if usual < low {
        told(&min, usual, format!("default is less than min: {low}"));
    }
    let high = max.quantity();
    if let Some(high) = high {
        if low > high {
            told(&max, low, format!("min is larger than max: {high}"));
        }
        if high > most {
            told(&max, high, format!("max is larger than capacity value: {most}"));
        }
        if usual > high {
            told(&max, usual, format!("default is more than max: {high}"));
        }
    }
    let Some(by) = step.quantity() else { return };
    if low.plus(&by) > most {
        told(&step, by, format!("one step {} is larger than capacity value: {most}", low.plus(&by)));
    }
    for value in [Some(usual), high].into_iter().flatten() {
        // A step of 0 reaches nothing but the lowest.
        let off = value.minus(&low).value();
        let reached = if by.value() == 0 { off == 0 } else { off % by.value() == 0 };
        if !reached {
            told(&step, value, format!("value is not a multiple of a given step ({by}) from ({low})"));
        }
    }
}
