//! What a claim asks for, and what its status may say of what was given.

use serde_json::{Value, json};
use skep_api::field::Error;
use skep_api::names;
use skep_api::object::ObjectExt;

use super::rules::{
    binding, configuration, fully_qualified, label, list, pool_name, qualified, raw, selectors, set,
};
use super::slice::EFFECTS;
use crate::kinds::pod::spec::node_selector;
use crate::kinds::pod::volumes::driver;
use crate::strategy::check::At;
use crate::strategy::meta;

/// Requests, constraints and configurations of a claim, each.
const MAX_ITEMS: usize = 32;
/// Alternatives of one request.
const MAX_ALTERNATIVES: usize = 8;
/// Who may use one claim at a time.
const MAX_RESERVED: usize = 256;
/// Conditions of one allocated device.
const MAX_CONDITIONS: usize = 8;
/// Tolerations of one request.
const MAX_TOLERATIONS: usize = 16;
/// Addresses of one network device.
const MAX_ADDRESSES: usize = 16;

/// The spec of a claim.
pub(super) fn spec(spec: &At<'_>) {
    let devices = spec.child("devices");
    let asked = devices.child("requests");
    set(&asked, MAX_ITEMS, "name", request);
    list(&devices.child("constraints"), MAX_ITEMS, |constraint| {
        set(&constraint.child("requests"), MAX_ITEMS, "", |name| request_name(name, &asked));
        let (same, distinct) = (constraint.child("matchAttribute"), constraint.child("distinctAttribute"));
        if same.is_set() {
            fully_qualified(&same);
        } else if distinct.is_set() {
            fully_qualified(&distinct);
        } else {
            constraint.required(
                "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
            );
        }
    });
    list(&devices.child("config"), MAX_ITEMS, |config| {
        set(&config.child("requests"), MAX_ITEMS, "", |name| request_name(name, &asked));
        configuration(config);
    });
}

fn request(request: &At<'_>) {
    label(&request.child("name"));
    let (exactly, first) = (request.child("exactly"), request.child("firstAvailable"));
    match (exactly.is_set(), first.is_empty()) {
        (false, true) => request.required("exactly one of `exactly` or `firstAvailable` is required"),
        (true, false) => request.error(Error::invalid(
            request.path(),
            Value::Null,
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        )),
        (true, true) => devices(&exactly),
        (false, false) => set(&first, MAX_ALTERNATIVES, "name", |alternative| {
            label(&alternative.child("name"));
            devices(alternative);
        }),
    }
}

fn devices(request: &At<'_>) {
    request.child("deviceClassName").require_named(names::dns1123_subdomain);
    selectors(&request.child("selectors"), true);
    let (mode, count) = (request.child("allocationMode"), request.child("count"));
    let number = count.int().unwrap_or(0);
    match mode.text() {
        "All" if number != 0 => count.invalid("must not be specified when allocationMode is 'All'"),
        "All" => {}
        "ExactCount" if number <= 0 => {
            count.error(Error::invalid(count.path(), number, "must be greater than zero"));
        }
        "ExactCount" => {}
        other => mode.error(Error::not_supported(mode.path(), other, &["All", "ExactCount"])),
    }
    list(&request.child("tolerations"), MAX_TOLERATIONS, toleration);
    for (name, _) in request.child("capacity").child("requests").entries() {
        qualified(&request.child("capacity").child("requests").entry(name), name);
    }
}

fn toleration(toleration: &At<'_>) {
    toleration.child("key").named(names::qualified_name);
    let (operator, value) = (toleration.child("operator"), toleration.child("value"));
    match operator.text() {
        "Exists" if !value.is_empty() => value.invalid("must be empty for operator `Exists`"),
        "Exists" => {}
        "Equal" => value.invalid_text(names::label_value(value.text())),
        "" => operator.required(""),
        _ => operator.one_of(&["Equal", "Exists"]),
    }
    toleration.child("effect").one_of(EFFECTS);
}

/// The name of a request, or of a request and one of its alternatives.
fn request_name(name: &At<'_>, asked: &At<'_>) {
    let detail = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let parts: Vec<&str> = name.text().split('/').collect();
    if parts.len() > 2 {
        return name.invalid(detail);
    }
    for part in &parts {
        for fault in names::dns1123_label(part) {
            name.error(Error::invalid(name.path(), *part, fault));
        }
    }
    let items = asked.items();
    let request = items.iter().find(|request| request.child("name").text() == parts[0]);
    let known = request.is_some_and(|request| {
        let alternatives = request.child("firstAvailable").items();
        parts.get(1).is_none_or(|part| alternatives.iter().any(|a| a.child("name").text() == *part))
    });
    if !known {
        name.invalid(detail);
    }
}

/// Which device: driver, pool, name, and which share of it.
fn identity(device: &At<'_>) -> [String; 4] {
    ["driver", "pool", "device", "shareID"].map(|field| device.child(field).text().to_owned())
}

/// What drivers tell of devices goes with the devices when they are given back.
pub(super) fn forget_devices(new: &mut Value, old: &Value) {
    let given = |claim: &Value| -> Vec<[String; 3]> {
        claim.items(&["status", "allocation", "devices", "results"]).iter().map(place).collect()
    };
    let (now, before) = (given(new), given(old));
    let back = |device: &Value| before.contains(&place(device)) && !now.contains(&place(device));
    let told = new.items(&["status", "devices"]);
    let kept: Vec<Value> = told.iter().filter(|device| !back(device)).cloned().collect();
    if kept.len() == told.len() {
        return;
    }
    if kept.is_empty() {
        new.unset(&["status", "devices"]);
    } else {
        new.set(&["status", "devices"], kept);
    }
}

/// Which device: driver, pool, name.
fn place(device: &Value) -> [String; 3] {
    ["driver", "pool", "device"].map(|field| device.text(&[field]).to_owned())
}

/// What a driver, the scheduler or a user of the claim writes into its status.
pub(super) fn status(root: &At<'_>, old: &Value) {
    let status = root.child("status");
    let asked = root.down(&["spec", "devices", "requests"]);
    let reserved = status.child("reservedFor");
    set(&reserved, MAX_RESERVED, "uid", |user| {
        for field in ["resource", "name", "uid"] {
            user.child(field).require();
        }
    });
    let allocation = status.child("allocation");
    let given: Vec<[String; 4]> =
        allocation.down(&["devices", "results"]).items().iter().map(identity).collect();
    let devices = status.child("devices");
    let mut told: Vec<[String; 4]> = Vec::new();
    for device in devices.items() {
        device_status(&device, &given);
    }
    for device in devices.items() {
        let id = identity(&device);
        if told.contains(&id) {
            let path = device.path().child("deviceID");
            device.error(Error::duplicate(&path, id[..3].join("/")));
        }
        told.push(id);
    }
    if !reserved.is_empty() {
        let before = old.items(&["status", "reservedFor"]);
        if !allocation.is_set() {
            reserved.forbidden("may not be specified when `allocated` is not set");
        } else if root.value().deletion_timestamp().is_some()
            && reserved.items().iter().any(|user| !before.contains(user.value()))
        {
            reserved.forbidden(
                "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set",
            );
        }
    }
    match old.at(&["status", "allocation"]) {
        Some(before) if allocation.is_set() => allocation.immutable(before),
        None if allocation.is_set() => allocated(&allocation, &asked),
        _ => {}
    }
}

fn allocated(allocation: &At<'_>, asked: &At<'_>) {
    let devices = allocation.child("devices");
    list(&devices.child("results"), MAX_ITEMS, |result| {
        request_name(&result.child("request"), asked);
        driver(&result.child("driver"));
        pool_name(&result.child("pool"));
        label(&result.child("device"));
        binding(result);
        list(&result.child("tolerations"), MAX_TOLERATIONS, toleration);
        share(&result.child("shareID"));
    });
    list(&devices.child("config"), 2 * MAX_ITEMS, |config| {
        config.child("source").require_one_of(&["FromClaim", "FromClass"]);
        set(&config.child("requests"), MAX_ITEMS, "", |name| request_name(name, asked));
        configuration(config);
    });
    let selector = allocation.child("nodeSelector");
    if selector.is_set() {
        node_selector(&selector);
    }
}

fn share(share: &At<'_>) {
    if !share.is_set() {
        return;
    }
    let hex = |text: &str| text.chars().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase());
    let lengths = [8, 4, 4, 4, 12];
    let parts: Vec<&str> = share.text().split('-').collect();
    let normal = parts.len() == 5 && parts.iter().zip(lengths).all(|(part, n)| part.len() == n && hex(part));
    if !normal {
        share.invalid("uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters");
    }
}

fn device_status(device: &At<'_>, given: &[[String; 4]]) {
    driver(&device.child("driver"));
    pool_name(&device.child("pool"));
    label(&device.child("device"));
    share(&device.child("shareID"));
    let id = identity(device);
    if !given.contains(&id) {
        let value = json!({"driver": id[0], "pool": id[1], "device": id[2]});
        device.error(Error::invalid(device.path(), value, "must be an allocated device in the claim"));
    }
    let conditions = device.child("conditions");
    let count = conditions.items().len();
    if count > MAX_CONDITIONS {
        conditions.error(Error::too_many(conditions.path(), count, MAX_CONDITIONS));
    }
    meta::conditions(&conditions);
    let data = device.child("data");
    if data.is_set() {
        raw(&data);
    }
    let network = device.child("networkData");
    for (field, most) in [("interfaceName", 256), ("hardwareAddress", 128)] {
        let text = network.child(field);
        if text.text().len() > most {
            text.error(Error::too_long(text.path(), most));
        }
    }
    set(&network.child("ips"), MAX_ADDRESSES, "", |address| {
        if address.text().parse::<ipnet::IpNet>().is_err() {
            address.invalid("must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)");
        }
    });
}
