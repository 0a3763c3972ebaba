//! Tables of faults of the kinds of dynamic resources, and their defaults.
#![expect(clippy::needless_pass_by_value, reason = "fixtures are written where they are passed")]

use serde_json::{Value, json};
use skep_api::object::ObjectExt;

use super::{DEVICE_CLASS, RESOURCE_CLAIM, RESOURCE_CLAIM_TEMPLATE, RESOURCE_SLICE};
use crate::strategy::KindRow;

fn object(row: &KindRow, spec: Value) -> Value {
    let mut object = json!({"metadata": {"name": "x"}, "spec": spec});
    if row.namespaced {
        object.set_namespace("n");
    }
    row.default(&mut object);
    object
}

#[track_caller]
fn refused(row: &KindRow, spec: Value, want: &[&str]) {
    assert_eq!(row.validate_create(&object(row, spec)).lines(), want);
}

fn claim(requests: Value) -> Value {
    json!({"devices": {"requests": requests}})
}

#[test]
fn claims_say_what_they_want_in_one_way() {
    refused(
        &RESOURCE_CLAIM,
        claim(
            json!([{"name": "a"}, {"name": "a", "exactly": {"deviceClassName": "c", "count": 2, "allocationMode": "All"}}]),
        ),
        &[
            "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
            "spec.devices.requests[1].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
            r#"spec.devices.requests[1]: Duplicate value: "a""#,
        ],
    );
    refused(
        &RESOURCE_CLAIM,
        claim(json!([
            {"name": "a", "firstAvailable": [{"name": "b"}], "exactly": {"deviceClassName": "c"}},
            {"name": "b", "exactly": {"allocationMode": "Some", "tolerations": [{"operator": "Exists", "value": "v", "effect": "Bang"}]}}])),
        &[
            "spec.devices.requests[0]: Invalid value: null: exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
            "spec.devices.requests[1].exactly.deviceClassName: Required value",
            r#"spec.devices.requests[1].exactly.allocationMode: Unsupported value: "Some": supported values: "All", "ExactCount""#,
            r#"spec.devices.requests[1].exactly.tolerations[0].value: Invalid value: "v": must be empty for operator `Exists`"#,
            r#"spec.devices.requests[1].exactly.tolerations[0].effect: Unsupported value: "Bang": supported values: "NoExecute", "NoSchedule", "None""#,
        ],
    );
    let mut spec = claim(json!([{"name": "a", "exactly": {"deviceClassName": "c"}}]));
    spec.set(&["devices", "constraints"], json!([{"requests": ["b"], "matchAttribute": "model"}, {}]));
    spec.set(
        &["devices", "config"],
        json!([{"opaque": {"driver": "d.example", "parameters": []}}, {"requests": ["a/b"]}]),
    );
    let names = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    refused(
        &RESOURCE_CLAIM,
        spec,
        &[
            &format!(r#"spec.devices.constraints[0].requests[0]: Invalid value: "b": {names}"#),
            r#"spec.devices.constraints[0].matchAttribute: Invalid value: "model": a fully qualified name must be a domain and a name separated by a slash"#,
            r#"spec.devices.constraints[1]: Required value: exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set"#,
            r#"spec.devices.config[0].opaque.parameters: Invalid value: "<value omitted>": must be a valid JSON object"#,
            &format!(r#"spec.devices.config[1].requests[0]: Invalid value: "a/b": {names}"#),
            "spec.devices.config[1].opaque: Required value",
        ],
    );
}

#[test]
fn claims_are_defaulted_and_fixed() {
    let old = object(&RESOURCE_CLAIM, claim(json!([{"name": "a", "exactly": {"deviceClassName": "c"}}])));
    assert_eq!(
        old["spec"]["devices"]["requests"][0]["exactly"],
        json!({"deviceClassName": "c", "allocationMode": "ExactCount", "count": 1})
    );
    let mut new = old.clone();
    new.set(&["spec", "devices", "requests"], json!([]));
    let lines = RESOURCE_CLAIM.validate_update(&new, &old).lines();
    assert!(lines.len() == 1 && lines[0].ends_with(": field is immutable"), "{lines:?}");
    let template = json!({"metadata": {"name": "t"}, "spec": old["spec"]});
    refused(&RESOURCE_CLAIM_TEMPLATE, template, &["spec.metadata.name: Forbidden: cannot be set"]);
}

#[test]
fn a_status_tells_of_devices_that_were_given() {
    let old = object(&RESOURCE_CLAIM, claim(json!([{"name": "a", "exactly": {"deviceClassName": "c"}}])));
    let mut new = old.clone();
    let user = json!({"resource": "pods", "name": "p", "uid": "1"});
    new.set(
        &["status"],
        json!({
            "reservedFor": [user, user],
            "devices": [{"driver": "d.example", "pool": "p", "device": "one"}],
        }),
    );
    assert_eq!(
        RESOURCE_CLAIM.validate_status_update(&new, &old).lines(),
        [
            r#"status.reservedFor[1]: Duplicate value: "1""#,
            r#"status.devices[0]: Invalid value: {"device":"one","driver":"d.example","pool":"p"}: must be an allocated device in the claim"#,
            "status.reservedFor: Forbidden: may not be specified when `allocated` is not set",
        ]
    );
    let result = json!({"request": "z", "driver": "d.example", "pool": "p", "device": "one"});
    new.set(&["status"], json!({"allocation": {"devices": {"results": [result]}}}));
    let lines = RESOURCE_CLAIM.validate_status_update(&new, &old).lines();
    assert!(
        lines.len() == 1 && lines[0].starts_with("status.allocation.devices.results[0].request: Invalid"),
        "{lines:?}"
    );
    new.set(&["status", "allocation", "devices", "results"], json!([]));
    assert!(RESOURCE_CLAIM.validate_status_update(&new, &old).is_empty());
    let mut other = new.clone();
    other.set(&["status", "allocation", "devices", "config"], json!([{"source": "FromClass"}]));
    let lines = RESOURCE_CLAIM.validate_status_update(&other, &new).lines();
    assert!(lines[0].starts_with("status.allocation: Invalid value"), "{lines:?}");
}

#[test]
fn expressions_of_classes_compile() {
    let class = |expression: &str| json!({"selectors": [{"cel": {"expression": expression}}]});
    for fine in [
        r#"device.driver == "d.example""#,
        r#"device.attributes["d.example"].model == "a" && device.capacity["d.example"].memory.compareTo(quantity("1Gi")) >= 0"#,
        r#"device.attributes["d.example"].ready"#,
    ] {
        let found = DEVICE_CLASS.validate_create(&object(&DEVICE_CLASS, class(fine))).lines();
        assert!(found.is_empty(), "{fine}: {found:?}");
    }
    for (bad, want) in [
        ("device.nothing == 1", "compilation failed: ERROR: <input>:1:7: undefined field 'nothing'"),
        ("device.driver", "must evaluate to bool or the unknown type, not string"),
    ] {
        let found = DEVICE_CLASS.validate_create(&object(&DEVICE_CLASS, class(bad))).lines();
        assert!(found.len() == 1 && found[0].contains(want), "{bad}: {found:?}");
    }
    let old = object(&DEVICE_CLASS, class("device.nothing == 1"));
    assert!(DEVICE_CLASS.validate_update(&old, &old).is_empty(), "what was stored stays accepted");
    refused(
        &DEVICE_CLASS,
        json!({"extendedResourceName": "cpu", "config": [{}], "selectors": [{}]}),
        &[
            "spec.selectors[0].cel: Required value",
            "spec.config[0].opaque: Required value",
            r#"spec.extendedResourceName: Invalid value: "cpu": must be a valid extended resource name"#,
        ],
    );
}

fn slice(mut spec: Value) -> Value {
    spec.set(&["driver"], "d.example");
    spec.set(&["pool"], json!({"name": "p", "resourceSliceCount": 1}));
    spec
}

#[test]
fn slices_are_somewhere() {
    refused(
        &RESOURCE_SLICE,
        json!({"pool": {"name": "A", "generation": -1}, "allNodes": false}),
        &[
            "spec.driver: Required value",
            "spec.pool.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
            "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero",
            "spec.allNodes: Invalid value: false: must be either unset or set to true",
            "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
        ],
    );
    refused(
        &RESOURCE_SLICE,
        slice(json!({"nodeName": "n", "allNodes": true})),
        &[
            "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
        ],
    );
    let old = object(&RESOURCE_SLICE, slice(json!({"nodeName": "n"})));
    let mut new = old.clone();
    new.set(&["spec", "nodeName"], "m");
    assert_eq!(
        RESOURCE_SLICE.validate_update(&new, &old).lines(),
        [r#"spec.nodeName: Invalid value: "m": field is immutable"#]
    );
}

#[test]
fn devices_have_facts_and_counters() {
    refused(
        &RESOURCE_SLICE,
        slice(json!({"allNodes": true, "devices": [
            {"name": "a", "nodeName": "n",
             "attributes": {"1x": {"int": 1}, "ok": {"int": 1, "bool": true}, "v": {"version": "1.02.3"}, "none": {}},
             "capacity": {"m": {"value": "1Gi", "requestPolicy": {"default": "1Mi"}}},
             "taints": [{"key": "k", "effect": ""}],
             "consumesCounters": [{"counterSet": "Gone", "counters": {}}],
             "nodeAllocatableResourceMappings": {"cpu": {}},
             "bindingConditions": ["x"]},
            {"name": "a"},
        ]})),
        &[
            "spec.devices[0].attributes[1x]: Invalid value: \"1x\": a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')",
            "spec.devices[0].attributes[none]: Required value: exactly one value must be specified",
            r#"spec.devices[0].attributes[ok]: Invalid value: {"bool":true,"int":1}: exactly one value must be specified"#,
            r#"spec.devices[0].attributes[v].version: Invalid value: "1.02.3": must be a string compatible with semver.org spec 2.0.0"#,
            "spec.devices[0].capacity[m].requestPolicy: Forbidden: allowMultipleAllocations must be true",
            "spec.devices[0].taints[0].effect: Required value",
            "spec.devices[0].consumesCounters[0].counterSet: Invalid value: \"Gone\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "spec.devices[0].consumesCounters[0].counters: Required value",
            "spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
            "spec.devices[0].bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use bindingConditions",
            r#"spec.devices[1]: Duplicate value: "a""#,
        ],
    );
    let policy = |policy: Value| {
        slice(json!({"allNodes": true, "devices": [{"name": "a", "allowMultipleAllocations": true,
            "capacity": {"m": {"value": "8", "requestPolicy": policy}}}]}))
    };
    let at = "spec.devices[0].capacity[m].requestPolicy";
    refused(
        &RESOURCE_SLICE,
        policy(json!({"default": "3", "validValues": ["4", "2", "9"]})),
        &[
            &format!(r#"{at}.validValues[1]: Invalid value: "2": values must be sorted in ascending order"#),
            &format!(r#"{at}.validValues[2]: Invalid value: "9": option is larger than capacity value: 8"#),
            &format!(
                r#"{at}.validValues: Invalid value: "3": default value is not valid according to the requestPolicy"#
            ),
        ],
    );
    refused(
        &RESOURCE_SLICE,
        policy(json!({"default": "3", "validRange": {"min": "2", "max": "9", "step": "2"}})),
        &[
            &format!(r#"{at}.validRange.max: Invalid value: "9": max is larger than capacity value: 8"#),
            &format!(
                r#"{at}.validRange.step: Invalid value: "3": value is not a multiple of a given step (2) from (2)"#
            ),
            &format!(
                r#"{at}.validRange.step: Invalid value: "9": value is not a multiple of a given step (2) from (2)"#
            ),
        ],
    );
    refused(
        &RESOURCE_SLICE,
        policy(json!({"validRange": {"min": "2"}})),
        &[&format!("{at}.default: Required value: required when validRange is defined")],
    );
}

#[test]
fn large_devices_are_fewer_and_counters_lie_apart() {
    let devices = |count: usize, taints: Value| {
        let all: Vec<Value> =
            (0..count).map(|n| json!({"name": format!("d{n}"), "taints": taints})).collect();
        slice(json!({"allNodes": true, "devices": all}))
    };
    let taint = json!([{"key": "k", "effect": "None"}]);
    refused(&RESOURCE_SLICE, devices(128, json!([])), &[]);
    refused(&RESOURCE_SLICE, devices(64, taint.clone()), &[]);
    refused(&RESOURCE_SLICE, devices(65, taint), &["spec.devices: Too many: 65: must have at most 64 items"]);
    let counters = json!([{"name": "s", "counters": {"c": {"value": "1"}}}]);
    refused(&RESOURCE_SLICE, slice(json!({"allNodes": true, "sharedCounters": counters})), &[]);
    refused(
        &RESOURCE_SLICE,
        slice(json!({"allNodes": true, "sharedCounters": counters, "devices": []})),
        &[r#"spec: Invalid value: "": only one of `sharedCounters` or `devices` is allowed"#],
    );
}

#[test]
fn what_was_stored_of_a_device_stays_accepted_and_gates_that_are_off_drop_their_fields() {
    let old = object(
        &RESOURCE_SLICE,
        slice(
            json!({"allNodes": true, "devices": [{"name": "a", "taints": [{"key": "k", "effect": "Odd"}]}]}),
        ),
    );
    let mut new = old.clone();
    new.set(&["spec", "pool", "generation"], 2);
    assert_eq!(RESOURCE_SLICE.validate_update(&new, &old).lines(), Vec::<String>::new());
    let taint = super::items_mut(&mut new, &["spec", "devices"]).next().expect("a device");
    taint.set(&["taints"], json!([{"key": "k", "effect": "Odder"}]));
    assert_eq!(
        RESOURCE_SLICE.validate_update(&new, &old).lines(),
        [
            r#"spec.devices[0].taints[0].effect: Unsupported value: "Odder": supported values: "NoExecute", "NoSchedule", "None""#
        ]
    );
    let device = json!({"name": "a", "attributes": {"x": {"ints": [1], "int": 1}},
        "nodeAllocatableResourceMappings": {"cpu": {}}});
    let mut made = object(&RESOURCE_SLICE, slice(json!({"allNodes": true, "devices": [device]})));
    RESOURCE_SLICE.prepare_create(&mut made);
    assert_eq!(made["spec"]["devices"], json!([{"name": "a", "attributes": {"x": {"int": 1}}}]));
}

#[test]
fn what_is_told_of_devices_goes_with_them() {
    let result = |device: &str| json!({"request": "a", "driver": "d.example", "pool": "p", "device": device});
    let told = |device: &str| json!({"driver": "d.example", "pool": "p", "device": device});
    let mut old = object(&RESOURCE_CLAIM, claim(json!([{"name": "a", "exactly": {"deviceClassName": "c"}}])));
    old.set(
        &["status"],
        json!({"allocation": {"devices": {"results": [result("one"), result("two")]}},
            "devices": [told("one"), told("two")]}),
    );
    let mut new = old.clone();
    new.unset(&["status", "allocation"]);
    RESOURCE_CLAIM.prepare_status_update(&mut new, &old);
    assert_eq!(new["status"], json!({}));
    assert!(RESOURCE_CLAIM.validate_status_update(&new, &old).is_empty());
}
