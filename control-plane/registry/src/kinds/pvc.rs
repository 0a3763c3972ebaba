//! PersistentVolumeClaim: a wish for storage.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::{Error, ErrorList};
use skep_api::object::ObjectExt;

use super::pod::defaults::quantities;
use super::{namespaced, status};
use crate::strategy::check::{At, check, is_empty, same};
use crate::strategy::printer::{self, Column, or};
use crate::strategy::{KindRow, Strategy, default_text};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = KindRow {
    short_names: &["pvc"],
    subresources: &[status("", "v1", "PersistentVolumeClaim")],
    ..namespaced("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", &Claim)
};

const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// `RWO,ROX`.
pub(super) fn modes(modes: &[Value]) -> String {
    let short = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let found = short.iter().filter(|(long, _)| modes.iter().any(|m| m == long)).map(|(_, short)| *short);
    found.collect::<Vec<_>>().join(",")
}

/// Access modes: at least one, all known, `ReadWriteOncePod` alone.
pub(super) fn access_modes(at: &At<'_>, none: &str) {
    at.require_with(none);
    let items = at.items();
    items.iter().for_each(|mode| mode.one_of(MODES));
    if items.len() > 1 && items.iter().any(|m| m.text() == "ReadWriteOncePod") {
        at.forbidden("may not use ReadWriteOncePod with other access modes");
    }
}

/// Defaults, also of the claim templates of StatefulSets.
pub(super) fn default(claim: &mut Value) {
    default_text(claim, &["spec", "volumeMode"], "Filesystem");
    for list in ["requests", "limits"] {
        quantities(claim, &["spec", "resources", list]);
    }
}

/// The rules of the spec of a claim.
fn spec(spec: &At<'_>) {
    access_modes(&spec.child("accessModes"), "at least 1 access mode is required");
    spec.child("selector").selector();
    spec.child("volumeMode").one_of(&["Block", "Filesystem"]);
    let resources = spec.child("resources");
    let requests = resources.child("requests");
    let storage = requests.child("storage");
    if !storage.is_set() {
        resources.error(Error::required(&resources.path().key("storage"), ""));
    } else if storage.quantity().is_some_and(|q| q.sign() <= 0) {
        let told = storage.told_at(requests.path().key("storage"));
        told.invalid("must be greater than zero");
    }
    spec.child("storageClassName").named(skep_api::names::dns1123_subdomain);
    let source = spec.child("dataSource");
    if source.is_set() {
        data_source(&source, false);
    }
    let reference = spec.child("dataSourceRef");
    if reference.is_set() {
        data_source(&reference, true);
        let outside = !reference.child("namespace").is_empty();
        if outside && source.is_set() {
            let detail = "may not be specified when dataSourceRef.namespace is specified";
            spec.error(Error::invalid(spec.path(), Value::String("dataSource".to_owned()), detail));
        } else if source.is_set() && !outside {
            let same_fields = ["apiGroup", "kind", "name"]
                .iter()
                .all(|f| same(source.child(f).value(), reference.child(f).value()));
            if !same_fields {
                spec.invalid("must match dataSourceRef");
            }
        }
    }
    let class = spec.child("volumeAttributesClassName");
    class.named(skep_api::names::dns1123_subdomain);
}

fn data_source(source: &At<'_>, other_namespaces: bool) {
    source.child("name").require();
    source.child("kind").require();
    let group = source.child("apiGroup");
    if group.is_empty() && source.child("kind").text() != "PersistentVolumeClaim" {
        source.invalid("must be 'PersistentVolumeClaim' when referencing the default apiGroup");
    }
    group.named(skep_api::names::dns1123_subdomain);
    let namespace = source.child("namespace");
    if other_namespaces {
        namespace.named(skep_api::names::dns1123_label);
    }
}

/// A claim inside of a pod: its metadata may only be labels and annotations.
pub(super) fn template(template: &At<'_>) {
    let metadata = template.child("metadata");
    metadata.child("labels").labels();
    crate::strategy::meta::annotations(&metadata.child("annotations"));
    for (field, value) in metadata.value().as_object().into_iter().flatten() {
        let known = ["labels", "annotations", "creationTimestamp"].contains(&field.as_str());
        if !known && !is_empty(value) {
            metadata.child(field).forbidden("cannot be set for an ephemeral volume");
        }
    }
    spec(&template.child("spec"));
}

struct Claim;

impl Strategy for Claim {
    fn default(&self, object: &mut Value) {
        default(object);
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object.set(&["status"], json!({"phase": "Pending"}));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| spec(&root.child("spec")))
    }

    /// A bound claim may only grow; an unbound one may still be given a class and a volume.
    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(new);
        errors.extend(check(new, |root| {
            let spec = root.child("spec");
            let (mut now, mut before) = (spec.value().clone(), old["spec"].clone());
            let mut open: Vec<&[&str]> = vec![&["resources", "requests"], &["volumeAttributesClassName"]];
            if old.text(&["spec", "volumeName"]).is_empty() {
                open.push(&["volumeName"]);
            }
            if old.at(&["spec", "storageClassName"]).is_none() {
                open.push(&["storageClassName"]);
            }
            for path in open {
                now.unset(path);
                before.unset(path);
            }
            if !same(&now, &before) {
                spec.forbidden("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims");
            }
            let requests = spec.down(&["resources", "requests"]);
            let (now, was) = (requests.child("storage"), old.text(&["spec", "resources", "requests", "storage"]));
            if let (Some(now), Ok(was)) = (now.quantity(), was.parse())
                && now < was
            {
                requests.child("storage").forbidden("field can not be less than status.capacity");
            }
        }));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            printer::NAME,
            printer::text("Status"),
            printer::text("Volume"),
            printer::text("Capacity"),
            printer::text("Access Modes"),
            printer::text("StorageClass"),
            printer::text("VolumeAttributesClass"),
            printer::AGE,
            printer::wide("VolumeMode"),
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let phase = match object.deletion_timestamp() {
            Some(_) => "Terminating",
            None => object.text(&["status", "phase"]),
        };
        let volume = object.text(&["spec", "volumeName"]);
        let (capacity, modes) = if volume.is_empty() {
            (String::new(), String::new())
        } else {
            let capacity = object.text(&["status", "capacity", "storage"]);
            (or(capacity, "0").to_owned(), modes(object.items(&["status", "accessModes"])))
        };
        vec![
            object.name().into(),
            phase.into(),
            volume.into(),
            capacity.into(),
            modes.into(),
            object.text(&["spec", "storageClassName"]).into(),
            or(object.text(&["status", "currentVolumeAttributesClassName"]), "<unset>").into(),
            printer::age(object, now),
            or(object.text(&["spec", "volumeMode"]), "<unset>").into(),
        ]
    }
}
