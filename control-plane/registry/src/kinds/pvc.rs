//! PersistentVolumeClaim: a wish for storage.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::{Error, ErrorList, Path};
use skep_api::object::ObjectExt;
use skep_api::quantity::Quantity;

use super::pod::defaults::quantities;
use super::pod::warnings;
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

/// Where the class was named before there was a field for it.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// How growing may go.
const RESIZES: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];
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
    // Upstream tells of unknown modes at the list.
    items.iter().for_each(|mode| mode.told_at(at.path().clone()).one_of(MODES));
    let (alone, others): (Vec<&str>, Vec<&str>) =
        items.iter().map(At::text).filter(|m| MODES.contains(m)).partition(|m| *m == "ReadWriteOncePod");
    if !alone.is_empty() && !others.is_empty() {
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
pub(super) fn spec(spec: &At<'_>) {
    access_modes(&spec.child("accessModes"), "at least 1 access mode is required");
    spec.child("selector").selector();
    spec.child("volumeMode").one_of(&["Block", "Filesystem"]);
    let resources = spec.child("resources");
    let requests = resources.child("requests");
    let storage = requests.child("storage");
    let told = storage.told_at(resources.path().key("storage"));
    if !storage.is_set() {
        told.required("");
    } else if let Some(quantity) = told.quantity() {
        if quantity.sign() <= 0 {
            told.invalid("must be greater than zero");
        } else if !quantity.is_integer() {
            told.invalid("must be an integer");
        }
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
            spec.error(Error::invalid(spec.path(), "spec.dataSource", detail));
        } else if source.is_set() && !outside {
            let alike = |field: &str| same(source.child(field).value(), reference.child(field).value());
            if !["apiGroup", "kind", "name"].into_iter().all(alike) {
                spec.error(Error::invalid(spec.path(), "spec.dataSource", "must match dataSourceRef"));
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
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        source.error(Error::invalid(source.path(), source.child("kind").text(), detail));
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

/// What an allocation of a claim may be about: storage, or a resource of a driver.
fn resource_key(at: &At<'_>, resource: &str) -> bool {
    let faults = skep_api::names::qualified_name(resource);
    let native = !resource.contains('/') || resource.contains("kubernetes.io/");
    let known = !native || resource == "storage";
    let fine = faults.is_empty() && known;
    for detail in &faults {
        at.error(Error::invalid(at.path(), resource, detail.as_str()));
    }
    if faults.is_empty() && !known {
        at.error(Error::not_supported(at.path(), resource, &["storage"]));
    }
    fine
}

fn not_negative(amount: &At<'_>) {
    if amount.quantity().is_some_and(|quantity| quantity.sign() < 0) {
        amount.invalid("must be greater than or equal to 0");
    }
}

/// Whoever writes a status of storage says which object it is about.
pub(super) fn versioned(root: &At<'_>) {
    if root.value().resource_version().is_empty() {
        root.error(Error::required(&Path::new("resourceVersion"), ""));
    }
}

/// A bound claim may only grow, or be given another class of attributes; an unbound one may still be given
/// a class and a volume.
fn changes(root: &At<'_>, old: &Value) {
    let new = root.value();
    let spec = root.child("spec");
    let (mut now, mut before) = (new["spec"].clone(), old["spec"].clone());
    let mut open: Vec<&[&str]> = Vec::new();
    if old.text(&["spec", "volumeName"]).is_empty() {
        open.push(&["volumeName"]);
    }
    let (was_named, is_named) = (old.annotation(BETA_CLASS), new.annotation(BETA_CLASS));
    let class = new.at(&["spec", "storageClassName"]).and_then(Value::as_str);
    let newly = old.at(&["spec", "storageClassName"]).is_none() && class.is_some();
    if newly && was_named.is_none_or(|name| Some(name) == class) {
        open.push(&["storageClassName"]);
    }
    if was_named != is_named && !(newly && was_named == class && is_named.is_none()) {
        let path = root.path().child("metadata").child("annotations").key(BETA_CLASS);
        root.error(Error::invalid(&path, is_named.unwrap_or_default(), "field is immutable"));
    }
    if new.text(&["status", "phase"]) == "Bound" {
        open.extend([&["resources", "requests", "storage"][..], &["volumeAttributesClassName"]]);
    }
    for path in open {
        now.unset(path);
        before.unset(path);
    }
    if !same(&now, &before) {
        spec.forbidden("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims");
    }
    let size = |object: &Value, path: &[&str]| object.text(path).parse::<Quantity>().unwrap_or_default();
    let requested = ["spec", "resources", "requests", "storage"];
    let wanted = size(new, &requested);
    if wanted < size(old, &requested) && wanted <= size(old, &["status", "capacity", "storage"]) {
        spec.down(&requested[1..]).forbidden("field can not be less than status.capacity");
    }
    // Upstream tells this one without `spec`.
    let mode = spec.child("volumeMode");
    mode.told_at(root.path().child("volumeMode"))
        .immutable(old.at(&["spec", "volumeMode"]).unwrap_or(&Value::Null));
    let attributes = spec.child("volumeAttributesClassName");
    if old.at(&["status", "currentVolumeAttributesClassName"]).is_some() && attributes.is_empty() {
        let to = if attributes.is_set() { "empty string" } else { "nil" };
        attributes.forbidden(format!(
            "update to {to} is forbidden when status.currentVolumeAttributesClassName is not nil"
        ));
    }
}

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

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(new);
        errors.extend(check(new, |root| changes(root, old)));
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> ErrorList {
        check(new, |root| {
            versioned(root);
            let status = root.child("status");
            for (_, amount) in status.child("capacity").entries() {
                not_negative(&amount);
            }
            let statuses = status.child("allocatedResourceStatuses");
            for (resource, state) in statuses.entries() {
                resource_key(&statuses, resource);
                if !RESIZES.contains(&state.text()) {
                    statuses.error(Error::not_supported(statuses.path(), resource, RESIZES));
                }
            }
            let allocated = status.child("allocatedResources");
            for (resource, amount) in allocated.entries() {
                if resource_key(&allocated, resource) {
                    not_negative(&amount);
                }
            }
        })
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut told = Vec::new();
        if object.annotation(BETA_CLASS).is_some() {
            told.push(format!("metadata.annotations[{BETA_CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"));
        }
        warnings::claim_spec(&mut told, object.get("spec").unwrap_or(&Value::Null), "spec");
        told
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
