//! Kinds with few rules or none of their own: templates, revisions, and the records other parts read.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::ErrorList;
use skep_api::names;
use skep_api::object::ObjectExt;

use super::pod::spec::template;
use super::workload;
use super::{cluster, namespaced, status};
use crate::strategy::check::check;
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy};

/// PodTemplate.
pub(super) static POD_TEMPLATE: KindRow = KindRow {
    generation: &["template"],
    ..namespaced("", "v1", "PodTemplate", "podtemplates", &PodTemplate)
};
/// ControllerRevision.
pub(super) static CONTROLLER_REVISION: KindRow =
    namespaced("apps", "v1", "ControllerRevision", "controllerrevisions", &Revision);
/// RuntimeClass.
pub(super) static RUNTIME_CLASS: KindRow =
    cluster("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", &RuntimeClass);
/// CSIDriver.
pub(super) static CSI_DRIVER: KindRow =
    KindRow { generation: &["spec"], ..cluster("storage.k8s.io", "v1", "CSIDriver", "csidrivers", &Plain) };
/// CSINode.
pub(super) static CSI_NODE: KindRow = cluster("storage.k8s.io", "v1", "CSINode", "csinodes", &Plain);
/// CSIStorageCapacity.
pub(super) static CSI_CAPACITY: KindRow =
    namespaced("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities", &Plain);
/// VolumeAttachment.
pub(super) static VOLUME_ATTACHMENT: KindRow = KindRow {
    subresources: &[status("storage.k8s.io", "v1", "VolumeAttachment")],
    ..cluster("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments", &Plain)
};
/// VolumeAttributesClass.
pub(super) static ATTRIBUTES_CLASS: KindRow = KindRow {
    short_names: &["vac"],
    ..cluster("storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses", &Plain)
};
/// IPAddress.
pub(super) static IP_ADDRESS: KindRow = KindRow {
    short_names: &["ip"],
    ..cluster("networking.k8s.io", "v1", "IPAddress", "ipaddresses", &Plain)
};
/// ServiceCIDR.
pub(super) static SERVICE_CIDR: KindRow = KindRow {
    subresources: &[status("networking.k8s.io", "v1", "ServiceCIDR")],
    ..cluster("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", &Plain)
};
/// DeviceClass.
pub(super) static DEVICE_CLASS: KindRow = KindRow {
    generation: &["spec"],
    ..cluster("resource.k8s.io", "v1", "DeviceClass", "deviceclasses", &Plain)
};
/// ResourceClaim.
pub(super) static RESOURCE_CLAIM: KindRow = KindRow {
    subresources: &[status("resource.k8s.io", "v1", "ResourceClaim")],
    ..namespaced("resource.k8s.io", "v1", "ResourceClaim", "resourceclaims", &Plain)
};
/// ResourceClaimTemplate.
pub(super) static RESOURCE_CLAIM_TEMPLATE: KindRow =
    namespaced("resource.k8s.io", "v1", "ResourceClaimTemplate", "resourceclaimtemplates", &Plain);
/// ResourceSlice.
pub(super) static RESOURCE_SLICE: KindRow = KindRow {
    generation: &["spec"],
    ..cluster("resource.k8s.io", "v1", "ResourceSlice", "resourceslices", &Plain)
};

struct Plain;

impl Strategy for Plain {}

struct PodTemplate;

impl Strategy for PodTemplate {
    fn default(&self, object: &mut Value) {
        workload::default_template(object, &["template"]);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| template(&root.child("template")))
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::text("Containers"),
            printer::text("Images"),
            printer::text("Pod Labels"),
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let [names, images] = printer::containers(&object["template"]);
        let labels = printer::labels(object.map(&["template", "metadata", "labels"]));
        vec![object.name().into(), names, images, labels.into()]
    }
}

struct Revision;

impl Strategy for Revision {
    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let data = root.child("data");
            if !data.is_set() {
                data.required("data is mandatory");
            }
            root.child("revision").non_negative();
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(new);
        errors.extend(check(new, |root| {
            root.child("data").immutable(old.get("data").unwrap_or(&Value::Null));
        }));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] =
            &[printer::NAME, printer::text("Controller"), printer::integer("Revision"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let owner = object.owner_references().into_iter().find(|o| o.controller == Some(true));
        let controller = owner.map_or_else(
            || "<none>".to_owned(),
            |o| {
                let group = o.api_version.split_once('/').map_or("", |(group, _)| group);
                let dot = if group.is_empty() { "" } else { "." };
                format!("{}{dot}{group}/{}", o.kind.to_lowercase(), o.name)
            },
        );
        let revision = object.int(&["revision"]).unwrap_or(0);
        vec![object.name().into(), controller.into(), revision.into(), printer::age(object, now)]
    }
}

struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| root.child("handler").require_named(names::dns1123_label))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        check(new, |root| {
            root.child("handler").immutable(old.get("handler").unwrap_or(&Value::Null));
        })
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[printer::NAME, printer::text("Handler"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), object.text(&["handler"]).into(), printer::age(object, now)]
    }
}
