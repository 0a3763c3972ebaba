//! VolumeAttachment and VolumeAttributesClass: a volume at a node, and what of a volume may be changed.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::{Error, ErrorList};
use skep_api::names;
use skep_api::object::ObjectExt;

use super::pod::volumes::driver;
use super::{cluster, pv, status};
use crate::strategy::check::{At, check};
use crate::strategy::printer::{AGE, Column, NAME, age, boolean, text};
use crate::strategy::{KindRow, Strategy};

const GROUP: &str = "storage.k8s.io";

/// VolumeAttachment.
pub(super) static ROW: KindRow = KindRow {
    subresources: &[status(GROUP, "v1", "VolumeAttachment")],
    ..cluster(GROUP, "v1", "VolumeAttachment", "volumeattachments", &Attachment)
};
/// VolumeAttributesClass.
pub(super) static CLASS: KindRow = KindRow {
    short_names: &["vac"],
    ..cluster(GROUP, "v1", "VolumeAttributesClass", "volumeattributesclasses", &Class)
};

/// Bytes of all parameters, or of all metadata of an attachment.
const MAX_BYTES: usize = 256 * 1024;
/// Parameters of a class.
const MAX_PARAMETERS: usize = 512;
/// Bytes of an error's message.
const MAX_MESSAGE: usize = 1024;

struct Attachment;
struct Class;

fn bytes(map: &At<'_>) -> usize {
    map.entries().iter().map(|(key, value)| key.len() + value.text().len()).sum()
}

/// The parameters of a class of storage or of attributes.
pub(super) fn parameters(parameters: &At<'_>, may_be_empty: bool) {
    let entries = parameters.entries();
    if entries.len() > MAX_PARAMETERS {
        parameters.error(Error::too_long(parameters.path(), MAX_PARAMETERS));
        return;
    }
    if entries.iter().any(|(key, _)| key.is_empty()) {
        parameters.error(Error::invalid(parameters.path(), "", "field can not be empty."));
    }
    if bytes(parameters) > MAX_BYTES {
        parameters.error(Error::too_long(parameters.path(), MAX_BYTES));
    }
    if !may_be_empty && entries.is_empty() {
        parameters.required("must contain at least one key/value pair");
    }
}

/// The name of who provisions: a qualified name in any case.
pub(super) fn provisioner(name: &At<'_>) {
    if name.require() {
        let lower = name.text().to_lowercase();
        for detail in names::qualified_name(&lower) {
            name.error(Error::invalid(name.path(), lower.as_str(), detail));
        }
    }
}

fn volume_error(error: &At<'_>) {
    if error.child("message").text().len() > MAX_MESSAGE {
        let message = error.child("message");
        message.error(Error::too_long(message.path(), MAX_BYTES));
    }
    let code = error.child("errorCode");
    if code.int().is_some_and(|code| code < 0) {
        code.invalid(names::range(0, i64::from(i32::MAX)));
    }
}

fn source(source: &At<'_>) {
    let (inline, volume) = (source.child("inlineVolumeSpec"), source.child("persistentVolumeName"));
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (inline.is_set(), volume.is_set()) {
        (false, false) => source.required(one),
        (true, true) => source.forbidden(one),
        (false, true) if volume.is_empty() => volume.required("must specify non empty persistentVolumeName"),
        (false, true) => {}
        (true, false) => pv::inline_spec(&inline),
    }
}

impl Strategy for Attachment {
    fn prepare_for_create(&self, object: &mut Value) {
        object.set(&["status"], json!({"attached": false}));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            driver(&spec.child("attacher"));
            source(&spec.child("source"));
            let volume = spec.child("source").child("persistentVolumeName");
            volume.named(names::dns1123_subdomain);
            let node = spec.child("nodeName");
            node.invalid_text(names::dns1123_subdomain(node.text()));
            let status = root.child("status");
            let metadata = status.child("attachmentMetadata");
            if bytes(&metadata) > MAX_BYTES {
                metadata.error(Error::too_long(metadata.path(), MAX_BYTES));
            }
            volume_error(&status.child("attachError"));
            volume_error(&status.child("detachError"));
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(new);
        errors.extend(check(new, |root| {
            root.child("spec").immutable(old.get("spec").unwrap_or(&Value::Null));
        }));
        errors
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> ErrorList {
        self.validate_update(new, old)
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        // Upstream's format of it is that of a name.
        const ATTACHER: Column = Column { format: "name", ..text("Attacher") };
        static COLUMNS: &[Column] = &[NAME, ATTACHER, text("PV"), text("Node"), boolean("Attached"), AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.text(&["spec", "attacher"]).into(),
            object.text(&["spec", "source", "persistentVolumeName"]).into(),
            object.text(&["spec", "nodeName"]).into(),
            object.flag(&["status", "attached"]).into(),
            age(object, now),
        ]
    }
}

impl Strategy for Class {
    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            provisioner(&root.child("driverName"));
            parameters(&root.child("parameters"), false);
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = check(new, |root| frozen(root, old, &["driverName", "parameters"]));
        errors.extend(self.validate(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[NAME, text("DriverName"), AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), object.text(&["driverName"]).into(), age(object, now)]
    }
}

/// Top-level fields that stay as they were made.
pub(super) fn frozen(root: &At<'_>, old: &Value, fields: &[&str]) {
    for field in fields {
        let now = root.child(field);
        if !crate::strategy::check::same(now.value(), old.get(*field).unwrap_or(&Value::Null)) {
            now.forbidden(format!("updates to {field} are forbidden."));
        }
    }
}
