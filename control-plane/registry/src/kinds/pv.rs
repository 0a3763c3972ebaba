//! PersistentVolume and StorageClass: storage there is, and how to make more.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::{Error, ErrorList};
use skep_api::object::ObjectExt;

use super::pod::defaults::quantities;
use super::pvc::{access_modes, modes};
use super::{cluster, status};
use crate::strategy::check::{check, same};
use crate::strategy::printer::{self, Column, or};
use crate::strategy::{KindRow, Strategy, default_text, default_to};

/// The row of PersistentVolume.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["pv"],
    subresources: &[status("", "v1", "PersistentVolume")],
    ..cluster("", "v1", "PersistentVolume", "persistentvolumes", &Volume)
};

/// The row of StorageClass.
pub(super) static CLASS: KindRow = KindRow {
    short_names: &["sc"],
    ..cluster("storage.k8s.io", "v1", "StorageClass", "storageclasses", &Class)
};

const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// Fields of the spec that are no volume source.
const COMMON: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

struct Volume;
struct Class;

impl Strategy for Volume {
    fn default(&self, object: &mut Value) {
        default_text(object, &["spec", "persistentVolumeReclaimPolicy"], "Retain");
        default_text(object, &["spec", "volumeMode"], "Filesystem");
        quantities(object, &["spec", "capacity"]);
        if object.at(&["spec", "hostPath"]).is_some() {
            default_to(object, &["spec", "hostPath", "type"], "");
        }
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object.set(&["status"], json!({"phase": "Pending"}));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            access_modes(&spec.child("accessModes"), "");
            let capacity = spec.child("capacity");
            if capacity.require() {
                for (resource, amount) in capacity.entries() {
                    if resource != "storage" {
                        amount.error(Error::not_supported(capacity.path(), resource, &["storage"]));
                    }
                    if amount.quantity().is_some_and(|q| q.sign() <= 0) {
                        amount.invalid("must be greater than zero");
                    }
                }
            }
            spec.child("persistentVolumeReclaimPolicy").one_of(&["Delete", "Recycle", "Retain"]);
            spec.child("volumeMode").one_of(&["Block", "Filesystem"]);
            spec.child("storageClassName").named(skep_api::names::dns1123_subdomain);
            let sources: Vec<&String> = spec
                .value()
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(k, v)| !COMMON.contains(&k.as_str()) && !v.is_null())
                .map(|(k, _)| k)
                .collect();
            if sources.is_empty() {
                spec.required("must specify a volume type");
            }
            for extra in sources.iter().skip(1) {
                spec.child(extra).forbidden("may not specify more than 1 volume type");
            }
            let local = spec.child("local");
            if local.is_set() && !spec.child("nodeAffinity").is_set() {
                spec.child("nodeAffinity").required("Local volume requires node affinity");
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(new);
        errors.extend(check(new, |root| {
            let spec = root.child("spec");
            let source = |object: &Value| {
                let mut source = object["spec"].clone();
                for field in COMMON {
                    source.unset(&[field]);
                }
                source
            };
            if !same(&source(new), &source(old)) {
                spec.forbidden("spec.persistentvolumesource is immutable after creation");
            }
            let before = old.at(&["spec", "volumeMode"]).unwrap_or(&Value::Null);
            spec.child("volumeMode").immutable(before);
        }));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::text("Capacity"),
            printer::text("Access Modes"),
            printer::text("Reclaim Policy"),
            printer::text("Status"),
            printer::text("Claim"),
            printer::text("StorageClass"),
            printer::text("VolumeAttributesClass"),
            printer::text("Reason"),
            printer::AGE,
            printer::wide("VolumeMode"),
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = |field: &str| object.text(&["spec", field]);
        let claim = object.at(&["spec", "claimRef"]);
        let claim = claim.map(|c| format!("{}/{}", c.text(&["namespace"]), c.text(&["name"])));
        let phase = match object.deletion_timestamp() {
            Some(_) => "Terminating",
            None => object.text(&["status", "phase"]),
        };
        vec![
            object.name().into(),
            or(object.text(&["spec", "capacity", "storage"]), "0").into(),
            modes(object.items(&["spec", "accessModes"])).into(),
            spec("persistentVolumeReclaimPolicy").into(),
            phase.into(),
            claim.unwrap_or_default().into(),
            spec("storageClassName").into(),
            or(spec("volumeAttributesClassName"), "<unset>").into(),
            object.text(&["status", "reason"]).into(),
            printer::age(object, now),
            or(spec("volumeMode"), "<unset>").into(),
        ]
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["name"]
    }

    fn selectable_value(&self, object: &Value, _field: &str) -> String {
        object.name().to_owned()
    }
}

impl Strategy for Class {
    fn default(&self, object: &mut Value) {
        default_text(object, &["reclaimPolicy"], "Delete");
        default_text(object, &["volumeBindingMode"], "Immediate");
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            root.child("provisioner").require_named(skep_api::names::qualified_name);
            root.child("reclaimPolicy").one_of(&["Delete", "Retain"]);
            root.child("volumeBindingMode").require_one_of(&["Immediate", "WaitForFirstConsumer"]);
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(new);
        errors.extend(check(new, |root| {
            let before = |field: &str| old.get(field).unwrap_or(&Value::Null);
            for field in ["parameters", "provisioner", "reclaimPolicy"] {
                if !same(root.child(field).value(), before(field)) {
                    root.child(field).forbidden(format!("updates to {field} are forbidden."));
                }
            }
            root.child("volumeBindingMode").immutable(before("volumeBindingMode"));
        }));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::text("Provisioner"),
            printer::text("ReclaimPolicy"),
            printer::text("VolumeBindingMode"),
            printer::boolean("AllowVolumeExpansion"),
            printer::AGE,
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let default = DEFAULT_CLASS.iter().any(|key| object.annotation(key) == Some("true"));
        let name = format!("{}{}", object.name(), if default { " (default)" } else { "" });
        vec![
            name.into(),
            object.text(&["provisioner"]).into(),
            or(object.text(&["reclaimPolicy"]), "Delete").into(),
            or(object.text(&["volumeBindingMode"]), "Immediate").into(),
            object.flag(&["allowVolumeExpansion"]).into(),
            printer::age(object, now),
        ]
    }
}
