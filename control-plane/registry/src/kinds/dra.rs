//! Dynamic resources: what drivers offer (ResourceSlice), classes of it (DeviceClass), and who wants some
//! (ResourceClaim, ResourceClaimTemplate).
//!
//! The rules are upstream's of `resource.k8s.io/v1`: lengths and sizes have bounds, expressions compile.

mod claim;
mod device;
mod rules;
mod slice;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::ErrorList;
use skep_api::object::ObjectExt;

use super::{cluster, namespaced, status};
use crate::strategy::check::{check, same};
use crate::strategy::printer::{AGE, Column, NAME, age, or, text};
use crate::strategy::{KindRow, Strategy, default_text, default_to, items_mut};

const GROUP: &str = "resource.k8s.io";

/// DeviceClass.
pub(super) static DEVICE_CLASS: KindRow =
    KindRow { generation: &["spec"], ..cluster(GROUP, "v1", "DeviceClass", "deviceclasses", &Class) };
/// ResourceClaim.
pub(super) static RESOURCE_CLAIM: KindRow = KindRow {
    subresources: &[status(GROUP, "v1", "ResourceClaim")],
    ..namespaced(GROUP, "v1", "ResourceClaim", "resourceclaims", &Claim)
};
/// ResourceClaimTemplate.
pub(super) static RESOURCE_CLAIM_TEMPLATE: KindRow =
    namespaced(GROUP, "v1", "ResourceClaimTemplate", "resourceclaimtemplates", &Template);
/// ResourceSlice.
pub(super) static RESOURCE_SLICE: KindRow =
    KindRow { generation: &["spec"], ..cluster(GROUP, "v1", "ResourceSlice", "resourceslices", &Slice) };

struct Class;
struct Claim;
struct Template;
struct Slice;

static NAME_AND_AGE: &[Column] = &[NAME, AGE];

fn name_and_age(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![object.name().into(), age(object, now)]
}

/// Fills in the requests of the claim below a path.
fn default_requests(object: &mut Value, path: &[&str]) {
    let path: Vec<&str> = path.iter().copied().chain(["devices", "requests"]).collect();
    for request in items_mut(object, &path) {
        if let Some(exactly) = request.get_mut("exactly").filter(|exactly| exactly.is_object()) {
            default_request(exactly);
        }
        items_mut(request, &["firstAvailable"]).for_each(default_request);
    }
}

fn default_request(request: &mut Value) {
    default_text(request, &["allocationMode"], "ExactCount");
    if request.text(&["allocationMode"]) == "ExactCount" && request.int(&["count"]).unwrap_or(0) == 0 {
        request.set(&["count"], 1);
    }
    for toleration in items_mut(request, &["tolerations"]) {
        default_text(toleration, &["operator"], "Equal");
    }
}

/// What was stored before stays as it is: the spec of a claim or a template.
fn fixed_spec(new: &Value, old: &Value) -> ErrorList {
    check(new, |root| root.child("spec").immutable(old.get("spec").unwrap_or(&Value::Null)))
}

/// Fields behind gates that are off in v1.36: lists as attributes (`DRAListTypeAttributes`), and what devices take
/// of a node's own resources (`DRANodeAllocatableResources`).
fn forget_alpha(slice: &mut Value) {
    for device in items_mut(slice, &["spec", "devices"]) {
        device.unset(&["nodeAllocatableResourceMappings"]);
        let attributes = device.get_mut("attributes").and_then(Value::as_object_mut);
        for attribute in attributes.into_iter().flat_map(serde_json::Map::values_mut) {
            for list in ["bools", "ints", "strings", "versions"] {
                attribute.unset(&[list]);
            }
        }
    }
}

impl Strategy for Class {
    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| device::class(&root.child("spec"), true))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        // Expressions that were accepted once stay accepted.
        let selectors = |object: &Value| object.at(&["spec", "selectors"]).cloned().unwrap_or(Value::Null);
        let changed = !same(&selectors(new), &selectors(old));
        check(new, |root| device::class(&root.child("spec"), changed))
    }

    fn columns(&self) -> &'static [Column] {
        NAME_AND_AGE
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        name_and_age(object, now)
    }
}

impl Strategy for Claim {
    fn default(&self, object: &mut Value) {
        default_requests(object, &["spec"]);
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object.set(&["status"], json!({}));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| claim::spec(&root.child("spec")))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        fixed_spec(new, old)
    }

    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        claim::forget_devices(new, old);
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> ErrorList {
        check(new, |root| claim::status(root, old))
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[NAME, text("State"), AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let mut states = Vec::new();
        if object.deletion_timestamp().is_some() {
            states.push("deleted");
        }
        match object.at(&["status", "allocation"]) {
            None => states.push("pending"),
            Some(_) if object.items(&["status", "reservedFor"]).is_empty() => states.push("allocated"),
            Some(_) => states.extend(["allocated", "reserved"]),
        }
        vec![object.name().into(), states.join(",").into(), age(object, now)]
    }
}

impl Strategy for Template {
    fn default(&self, object: &mut Value) {
        default_requests(object, &["spec", "spec"]);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            rules::template_metadata(&spec.child("metadata"));
            claim::spec(&spec.child("spec"));
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        fixed_spec(new, old)
    }

    fn columns(&self) -> &'static [Column] {
        NAME_AND_AGE
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        name_and_age(object, now)
    }
}

impl Strategy for Slice {
    fn default(&self, object: &mut Value) {
        if object.at(&["spec", "pool"]).is_some() {
            default_to(object, &["spec", "pool", "generation"], 0);
        }
        // Evictions count from when a taint came.
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
        for device in items_mut(object, &["spec", "devices"]) {
            for taint in items_mut(device, &["taints"]) {
                default_text(taint, &["timeAdded"], &now.to_string());
            }
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        forget_alpha(object);
    }

    fn prepare_for_update(&self, new: &mut Value, _old: &Value) {
        forget_alpha(new);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| slice::spec(&root.child("spec"), None))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        check(new, |root| slice::spec(&root.child("spec"), Some(old.get("spec").unwrap_or(&Value::Null))))
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let driver = object.text(&["spec", "driver"]);
        if driver.to_lowercase() == driver {
            return Vec::new();
        }
        vec![format!(
            "spec.driver: driver names should be lowercase; {driver:?} contains uppercase characters"
        )]
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[NAME, text("Node"), text("Driver"), text("Pool"), AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let node =
            if object.flag(&["spec", "allNodes"]) { "<all>" } else { object.text(&["spec", "nodeName"]) };
        vec![
            object.name().into(),
            or(node, "<none>").into(),
            object.text(&["spec", "driver"]).into(),
            object.text(&["spec", "pool", "name"]).into(),
            age(object, now),
        ]
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["spec.driver", "spec.nodeName"]
    }
}
