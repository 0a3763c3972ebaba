//! PersistentVolumeClaim: a wish for storage.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::ErrorList;
use skep_api::object::ObjectExt;

use super::pod::defaults::quantities;
use super::{namespaced, status};
use crate::strategy::check::{At, check, same};
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

struct Claim;

impl Strategy for Claim {
    fn default(&self, object: &mut Value) {
        default(object);
    }

    fn prepare_for_create(&self, object: &mut Value) {
        object.set(&["status"], json!({"phase": "Pending"}));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            access_modes(&spec.child("accessModes"), "at least 1 access mode is required");
            spec.child("selector").selector();
            spec.child("volumeMode").one_of(&["Block", "Filesystem"]);
            let resources = spec.child("resources");
            let requests = resources.child("requests");
            let storage = requests.child("storage");
            if !storage.is_set() {
                resources.error(skep_api::field::Error::required(&resources.path().key("storage"), ""));
            } else if storage.quantity().is_some_and(|q| q.sign() <= 0) {
                requests.error(skep_api::field::Error::invalid(
                    &requests.path().key("storage"),
                    storage.value().clone(),
                    "must be greater than zero",
                ));
            }
            spec.child("storageClassName").named(skep_api::names::dns1123_subdomain);
        })
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
