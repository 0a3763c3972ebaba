//! PersistentVolume and StorageClass: storage there is, and how to make more.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::{Error, ErrorList};
use skep_api::object::ObjectExt;

use super::pod::defaults::quantities;
use super::pod::spec::node_selector;
use super::pod::volumes::{driver, remote_source};
use super::pvc::{access_modes, modes};
use super::{cluster, status};
use crate::strategy::check::{At, check, same};
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
/// References to secrets of a CSI source.
const SECRETS: [&str; 5] = [
    "controllerPublishSecretRef",
    "controllerExpandSecretRef",
    "nodePublishSecretRef",
    "nodeStageSecretRef",
    "nodeExpandSecretRef",
];
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

/// Exactly one source, and what that source must say.
fn sources(root: &At<'_>, spec: &At<'_>) {
    let mut found = 0;
    for (kind, value) in spec.value().as_object().into_iter().flatten() {
        if COMMON.contains(&kind.as_str()) || value.is_null() {
            continue;
        }
        let source = spec.child(kind);
        found += 1;
        if found > 1 {
            source.forbidden("may not specify more than 1 volume type");
            continue;
        }
        match kind.as_str() {
            "hostPath" | "local" => {
                let path = source.child("path");
                if path.require() && path.text().split('/').any(|part| part == "..") {
                    path.invalid("must not contain '..'");
                }
                if kind == "local" && !spec.child("nodeAffinity").is_set() {
                    let annotations = root.child("metadata").child("annotations");
                    annotations.required("Local volume requires node affinity");
                }
            }
            "csi" => {
                driver(&source.child("driver"));
                source.child("volumeHandle").require();
                for secret in SECRETS {
                    let reference = source.child(secret);
                    if reference.is_set() {
                        reference.child("name").require();
                        reference.child("namespace").require();
                    }
                }
            }
            kind => remote_source(kind, &source),
        }
    }
    if found == 0 {
        spec.required("must specify a volume type");
    }
}

/// Sources that nothing serves any more, and the reclaim policy that is going.
fn volume_warnings(object: &Value) -> Vec<String> {
    let mut told = Vec::new();
    for annotation in ["volume.beta.kubernetes.io/storage-class", "volume.beta.kubernetes.io/mount-options"] {
        if object.annotations().is_some_and(|all| all.contains_key(annotation)) {
            let field = if annotation.ends_with("class") { "storageClassName" } else { "mountOptions" };
            told.push(format!(
                "metadata.annotations[{annotation}]: deprecated since v1.8; use \"{field}\" attribute instead"
            ));
        }
    }
    if object.text(&["spec", "persistentVolumeReclaimPolicy"]) == "Recycle" {
        told.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning."
                .to_owned(),
        );
    }
    for (source, fate) in super::pod::warnings::SOURCES {
        if object.at(&["spec", source]).is_some() {
            told.push(format!("spec.{source}: {fate}"));
        }
    }
    told
}

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
            let reclaim = spec.child("persistentVolumeReclaimPolicy");
            reclaim.one_of(&["Delete", "Recycle", "Retain"]);
            let affinity = spec.child("nodeAffinity");
            if affinity.is_set() {
                let required = affinity.child("required");
                if required.is_set() {
                    node_selector(&required);
                } else {
                    required.required("must specify required node constraints");
                }
            }
            sources(root, &spec);
            if reclaim.text() == "Recycle" && spec.child("hostPath").child("path").text() == "/" {
                reclaim.forbidden("may not be 'recycle' for a hostPath mount of '/'");
            }
            spec.child("storageClassName").named(skep_api::names::dns1123_subdomain);
            spec.child("volumeMode").one_of(&["Block", "Filesystem"]);
            let attributes = spec.child("volumeAttributesClassName");
            if attributes.is_set() {
                if attributes.is_empty() {
                    attributes.required("an empty string is disallowed");
                }
                attributes.named(skep_api::names::dns1123_subdomain);
                if !spec.child("csi").is_set() {
                    let csi = spec.child("csi");
                    csi.required("has to be specified when using volumeAttributesClassName");
                }
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
            let mut before = source(old);
            // The secret for growing may come later.
            let secret = ["csi", "controllerExpandSecretRef"];
            if let (None, Some(added)) = (before.at(&secret), new.at(&["spec", secret[0], secret[1]])) {
                before.set(&secret, added.clone());
            }
            if !same(&source(new), &before) {
                spec.told_at(spec.path().child("persistentvolumesource"))
                    .forbidden("spec.persistentvolumesource is immutable after creation");
            }
            // Upstream tells these two without `spec`.
            for field in ["volumeMode", "nodeAffinity"] {
                let before = old.at(&["spec", field]).unwrap_or(&Value::Null);
                if field == "volumeMode" || !before.is_null() {
                    spec.child(field).told_at(root.path().child(field)).immutable(before);
                }
            }
        }));
        errors
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        volume_warnings(object)
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
