//! PersistentVolume and StorageClass: storage there is, and how to make more.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::{Error, ErrorList, Path};
use skep_api::object::ObjectExt;

use super::attachment::{frozen, parameters, provisioner};
use super::pod::defaults::quantities;
use super::pod::spec::node_selector;
use super::pod::volumes::{driver, remote_source};
use super::pvc::{access_modes, modes};
use super::{cluster, pvc, status};
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
fn sources(spec: &At<'_>) {
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
                    let annotations = Path::new("metadata").child("annotations");
                    spec.error(Error::required(&annotations, "Local volume requires node affinity"));
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

/// The spec of a volume that an attachment describes in itself.
pub(super) fn inline_spec(spec: &At<'_>) {
    let context = "may not be specified in the context of inline volumes";
    for field in ["claimRef", "capacity"] {
        if !spec.child(field).is_empty() {
            spec.child(field).forbidden(context);
        }
    }
    if !spec.child("csi").is_set() {
        spec.child("csi").required("has to be specified in the context of inline volumes");
    }
    access_modes(&spec.child("accessModes"), "");
    let reclaim = spec.child("persistentVolumeReclaimPolicy");
    if !["", "Retain"].contains(&reclaim.text()) {
        reclaim.forbidden("may only be Retain in the context of inline volumes");
    }
    if spec.child("nodeAffinity").is_set() {
        spec.child("nodeAffinity").forbidden(context);
    }
    sources(spec);
    if !spec.child("storageClassName").is_empty() {
        spec.child("storageClassName").forbidden(context);
    }
    let mode = spec.child("volumeMode");
    if !["", "Filesystem"].contains(&mode.text()) {
        mode.forbidden("may not specify volumeMode other than Filesystem in the context of inline volumes");
    }
    attributes_class(spec);
}

/// A class of attributes is for volumes of CSI drivers.
fn attributes_class(spec: &At<'_>) {
    let class = spec.child("volumeAttributesClassName");
    if class.is_set() {
        if class.is_empty() {
            class.required("an empty string is disallowed");
        }
        class.named(skep_api::names::dns1123_subdomain);
        if !spec.child("csi").is_set() {
            spec.child("csi").required("has to be specified when using volumeAttributesClassName");
        }
    }
}

/// The spec of a volume.
fn volume_spec(spec: &At<'_>) {
    access_modes(&spec.child("accessModes"), "");
    let capacity = spec.child("capacity");
    capacity.require();
    let entries = capacity.entries();
    if entries.len() != 1 || entries[0].0 != "storage" {
        let told = if capacity.is_set() { capacity.value().clone() } else { json!({}) };
        capacity.error(Error::not_supported(capacity.path(), told, &["storage"]));
    }
    for (_, amount) in entries {
        if amount.quantity().is_some_and(|q| q.sign() <= 0) {
            amount.invalid("must be greater than zero");
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
    sources(spec);
    let path = spec.child("hostPath").child("path");
    if reclaim.text() == "Recycle" && !path.is_empty() && path.text().trim_matches('/').is_empty() {
        reclaim.forbidden("may not be 'recycle' for a hostPath mount of '/'");
    }
    spec.child("storageClassName").named(skep_api::names::dns1123_subdomain);
    spec.child("volumeMode").one_of(&["Block", "Filesystem"]);
    attributes_class(spec);
}

/// Sources that nothing serves any more, and the reclaim policy that is going.
fn volume_warnings(object: &Value) -> Vec<String> {
    let mut told = Vec::new();
    for (annotation, since, field) in [
        ("volume.beta.kubernetes.io/storage-class", "v1.8", "storageClassName"),
        ("volume.beta.kubernetes.io/mount-options", "v1.31", "mountOptions"),
    ] {
        if object.annotation(annotation).is_some() {
            told.push(format!(
                "metadata.annotations[{annotation}]: deprecated since {since}; use \"{field}\" attribute instead"
            ));
        }
    }
    if object.text(&["spec", "persistentVolumeReclaimPolicy"]) == "Recycle" {
        told.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning."
                .to_owned(),
        );
    }
    let terms = ["nodeAffinity", "required", "nodeSelectorTerms"];
    for (index, term) in object.items(&["spec", terms[0], terms[1], terms[2]]).iter().enumerate() {
        let at = format!("spec.{}[{index}]", terms.join("."));
        super::pod::warnings::node_term(&mut told, term, false, &at);
    }
    for (source, fate) in super::pod::warnings::SOURCES {
        let told_as = if source == "storageos" { "storageOS" } else { source };
        // Upstream says nothing of these two in volumes.
        if !["flocker", "quobyte"].contains(&source) && object.at(&["spec", source]).is_some() {
            told.push(format!("spec.{told_as}: {fate}"));
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
        object.set(&["status"], json!({"phase": "Pending", "lastPhaseTransitionTime": crate::store::now()}));
    }

    fn prepare_for_status_update(&self, new: &mut Value, old: &Value) {
        let time = ["status", "lastPhaseTransitionTime"];
        if new.text(&["status", "phase"]) != old.text(&["status", "phase"]) {
            if new.at(&time) == old.at(&time) {
                new.set(&time, crate::store::now());
            }
        } else if new.at(&time).is_none()
            && let Some(before) = old.at(&time)
        {
            new.set(&time, before.clone());
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| volume_spec(&root.child("spec")))
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
            let class = spec.child("volumeAttributesClassName");
            if !class.is_set() && old.at(&["spec", "volumeAttributesClassName"]).is_some() {
                class.forbidden("update from non-nil value to nil is forbidden");
            }
        }));
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> ErrorList {
        check(new, pvc::versioned)
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
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
}

/// Where volumes of a class may be: terms of labels and their values, no two alike.
fn topologies(topologies: &At<'_>) {
    let mut seen: Vec<BTreeMap<&str, BTreeSet<&str>>> = Vec::new();
    for term in topologies.items() {
        let mut labels = BTreeMap::new();
        let expressions = term.child("matchLabelExpressions");
        for expression in expressions.items() {
            let (key, values) = (expression.child("key"), expression.child("values"));
            values.require();
            let mut named = BTreeSet::new();
            for value in values.items() {
                if !named.insert(value.text()) {
                    value.duplicate();
                }
            }
            key.invalid_text(skep_api::names::qualified_name(key.text()));
            if labels.contains_key(key.text()) {
                key.error(Error::duplicate(key.path(), key.text()));
            }
            labels.insert(key.text(), named);
        }
        if seen.contains(&labels) {
            expressions.error(Error::duplicate(expressions.path(), ""));
        }
        seen.push(labels);
    }
}

impl Strategy for Class {
    fn default(&self, object: &mut Value) {
        default_text(object, &["reclaimPolicy"], "Delete");
        default_text(object, &["volumeBindingMode"], "Immediate");
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            provisioner(&root.child("provisioner"));
            parameters(&root.child("parameters"), true);
            root.child("reclaimPolicy").one_of(&["Delete", "Retain"]);
            root.child("volumeBindingMode").require_one_of(&["Immediate", "WaitForFirstConsumer"]);
            topologies(&root.child("allowedTopologies"));
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        check(new, |root| {
            frozen(root, old, &["parameters", "provisioner", "reclaimPolicy"]);
            let before = old.get("volumeBindingMode").unwrap_or(&Value::Null);
            root.child("volumeBindingMode").immutable(before);
        })
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut told = Vec::new();
        for (index, topology) in object.items(&["allowedTopologies"]).iter().enumerate() {
            for (place, expression) in topology.items(&["matchLabelExpressions"]).iter().enumerate() {
                if let Some(fate) = super::pod::warnings::deprecated_label(expression.text(&["key"])) {
                    told.push(format!(
                        "allowedTopologies[{index}].matchLabelExpressions[{place}].key: {fate}"
                    ));
                }
            }
        }
        told
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::text("Provisioner"),
            printer::text("ReclaimPolicy"),
            printer::text("VolumeBindingMode"),
            printer::text("AllowVolumeExpansion"),
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
