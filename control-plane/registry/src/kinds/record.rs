//! Records that drivers and allocators write for others to read: they have a table, and few rules.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::object::ObjectExt;

use super::{cluster, namespaced, status};
use crate::strategy::printer::{AGE, Column, NAME, age, boolean, integer, or, text};
use crate::strategy::{KindRow, Strategy, default_text, default_to};

const STORAGE: &str = "storage.k8s.io";
const RESOURCE: &str = "resource.k8s.io";
const NETWORKING: &str = "networking.k8s.io";

/// CSIDriver.
pub(super) static CSI_DRIVER: KindRow =
    KindRow { generation: &["spec"], ..cluster(STORAGE, "v1", "CSIDriver", "csidrivers", &Driver) };
/// CSINode.
pub(super) static CSI_NODE: KindRow =
    cluster(STORAGE, "v1", "CSINode", "csinodes", &Record(&[NAME, integer("Drivers"), AGE], csi_node));
/// CSIStorageCapacity.
pub(super) static CSI_CAPACITY: KindRow = namespaced(
    STORAGE,
    "v1",
    "CSIStorageCapacity",
    "csistoragecapacities",
    &Record(&[NAME, text("StorageClassName"), text("Capacity")], csi_capacity),
);
/// VolumeAttachment.
pub(super) static VOLUME_ATTACHMENT: KindRow = KindRow {
    subresources: &[status(STORAGE, "v1", "VolumeAttachment")],
    ..cluster(
        STORAGE,
        "v1",
        "VolumeAttachment",
        "volumeattachments",
        &Record(
            &[NAME, text("Attacher"), text("PV"), text("Node"), boolean("Attached"), AGE],
            volume_attachment,
        ),
    )
};
/// VolumeAttributesClass.
pub(super) static ATTRIBUTES_CLASS: KindRow = KindRow {
    short_names: &["vac"],
    ..cluster(
        STORAGE,
        "v1",
        "VolumeAttributesClass",
        "volumeattributesclasses",
        &Record(&[NAME, text("DriverName"), AGE], attributes_class),
    )
};
/// IPAddress.
pub(super) static IP_ADDRESS: KindRow = KindRow {
    short_names: &["ip"],
    ..cluster(
        NETWORKING,
        "v1",
        "IPAddress",
        "ipaddresses",
        &Record(&[NAME, text("ParentRef"), AGE], ip_address),
    )
};
/// ServiceCIDR.
pub(super) static SERVICE_CIDR: KindRow = KindRow {
    subresources: &[status(NETWORKING, "v1", "ServiceCIDR")],
    ..cluster(
        NETWORKING,
        "v1",
        "ServiceCIDR",
        "servicecidrs",
        &Record(&[NAME, text("CIDRs"), AGE], service_cidr),
    )
};
/// DeviceClass.
pub(super) static DEVICE_CLASS: KindRow = KindRow {
    generation: &["spec"],
    ..cluster(RESOURCE, "v1", "DeviceClass", "deviceclasses", &Record(&[NAME, AGE], name_and_age))
};
/// ResourceClaim.
pub(super) static RESOURCE_CLAIM: KindRow = KindRow {
    subresources: &[status(RESOURCE, "v1", "ResourceClaim")],
    ..namespaced(
        RESOURCE,
        "v1",
        "ResourceClaim",
        "resourceclaims",
        &Record(&[NAME, text("State"), AGE], resource_claim),
    )
};
/// ResourceClaimTemplate.
pub(super) static RESOURCE_CLAIM_TEMPLATE: KindRow = namespaced(
    RESOURCE,
    "v1",
    "ResourceClaimTemplate",
    "resourceclaimtemplates",
    &Record(&[NAME, AGE], name_and_age),
);
/// ResourceSlice.
pub(super) static RESOURCE_SLICE: KindRow = KindRow {
    generation: &["spec"],
    ..cluster(
        RESOURCE,
        "v1",
        "ResourceSlice",
        "resourceslices",
        &Record(&[NAME, text("Node"), text("Driver"), text("Pool"), AGE], resource_slice),
    )
};

/// Columns, and the row that fits them.
struct Record(&'static [Column], fn(&Value, Timestamp) -> Vec<Value>);

impl Strategy for Record {
    fn columns(&self) -> &'static [Column] {
        self.0
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        (self.1)(object, now)
    }
}

fn name_and_age(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![object.name().into(), age(object, now)]
}

fn csi_node(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![object.name().into(), object.items(&["spec", "drivers"]).len().into(), age(object, now)]
}

fn csi_capacity(object: &Value, _now: Timestamp) -> Vec<Value> {
    let capacity = or(object.text(&["capacity"]), "<unset>");
    vec![object.name().into(), object.text(&["storageClassName"]).into(), capacity.into()]
}

fn volume_attachment(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        object.name().into(),
        object.text(&["spec", "attacher"]).into(),
        object.text(&["spec", "source", "persistentVolumeName"]).into(),
        object.text(&["spec", "nodeName"]).into(),
        object.flag(&["status", "attached"]).into(),
        age(object, now),
    ]
}

fn attributes_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![object.name().into(), object.text(&["driverName"]).into(), age(object, now)]
}

fn ip_address(object: &Value, now: Timestamp) -> Vec<Value> {
    let parent = |field: &str| object.text(&["spec", "parentRef", field]);
    let parts: Vec<&str> = ["group", "resource", "namespace", "name"]
        .into_iter()
        .map(parent)
        .filter(|part| !part.is_empty())
        .collect();
    vec![object.name().into(), or(&parts.join("/"), "<none>").into(), age(object, now)]
}

fn service_cidr(object: &Value, now: Timestamp) -> Vec<Value> {
    let ranges: Vec<&str> = object.items(&["spec", "cidrs"]).iter().filter_map(Value::as_str).collect();
    vec![object.name().into(), ranges.join(",").into(), age(object, now)]
}

fn resource_claim(object: &Value, now: Timestamp) -> Vec<Value> {
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

fn resource_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let node = if object.flag(&["spec", "allNodes"]) { "<all>" } else { object.text(&["spec", "nodeName"]) };
    vec![
        object.name().into(),
        or(node, "<none>").into(),
        object.text(&["spec", "driver"]).into(),
        object.text(&["spec", "pool", "name"]).into(),
        age(object, now),
    ]
}

struct Driver;

impl Strategy for Driver {
    fn default(&self, object: &mut Value) {
        for (field, value) in [
            ("attachRequired", true),
            ("podInfoOnMount", false),
            ("storageCapacity", false),
            ("requiresRepublish", false),
            ("seLinuxMount", false),
        ] {
            default_to(object, &["spec", field], value);
        }
        default_text(object, &["spec", "fsGroupPolicy"], "ReadWriteOnceWithFSType");
        default_to(object, &["spec", "volumeLifecycleModes"], json!(["Persistent"]));
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            NAME,
            boolean("AttachRequired"),
            boolean("PodInfoOnMount"),
            boolean("StorageCapacity"),
            text("TokenRequests"),
            boolean("RequiresRepublish"),
            text("Modes"),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let flag = |field: &str| Value::from(object.flag(&["spec", field]));
        let join = |list: Vec<&str>| list.join(",");
        let modes = object.items(&["spec", "volumeLifecycleModes"]).iter().filter_map(Value::as_str);
        let audiences = object.items(&["spec", "tokenRequests"]).iter().map(|t| t.text(&["audience"]));
        vec![
            object.name().into(),
            object.at(&["spec", "attachRequired"]).cloned().unwrap_or(Value::Bool(true)),
            flag("podInfoOnMount"),
            flag("storageCapacity"),
            or(&join(audiences.collect()), "<unset>").into(),
            flag("requiresRepublish"),
            or(&join(modes.collect()), "<none>").into(),
            age(object, now),
        ]
    }
}
