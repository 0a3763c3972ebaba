//! ConfigMap: text and bytes by key, up to 1 MiB, optionally immutable.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::{Error, ErrorList, Path};
use skep_api::names;
use skep_api::object::ObjectExt;

use super::namespaced;
use crate::strategy::check::{At, check};
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy};

/// The row of the table of kinds.
pub(super) static ROW: KindRow =
    KindRow { short_names: &["cm"], ..namespaced("", "v1", "ConfigMap", "configmaps", &ConfigMap) };

/// Sum of all values, for ConfigMaps and Secrets.
pub(super) const MAX_SIZE: usize = 1024 * 1024;

struct ConfigMap;

/// Refuses changes of an object that was made immutable.
pub(super) fn frozen(root: &At<'_>, old: &Value, fields: &[&str]) {
    let text = "field is immutable when `immutable` is set";
    if !old.flag(&["immutable"]) {
        return;
    }
    if !root.child("immutable").flag() {
        root.child("immutable").forbidden(text);
    }
    for field in fields {
        let here = root.child(field);
        if !crate::strategy::check::same(here.value(), old.get(*field).unwrap_or(&Value::Null)) {
            here.forbidden(text);
        }
    }
}

/// How many bytes base64 stands for.
pub(super) fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

/// Complains about a key that is no file name.
pub(super) fn key(entry: &At<'_>, key: &str) {
    for detail in names::config_map_key(key) {
        entry.error(Error::invalid(entry.path(), key, detail));
    }
}

impl Strategy for ConfigMap {
    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let mut size = 0;
            let binary = root.child("binaryData");
            for bag in ["data", "binaryData"] {
                for (name, entry) in root.child(bag).entries() {
                    key(&entry, name);
                    if bag == "data" && binary.child(name).is_set() {
                        let detail = "duplicate of key present in binaryData";
                        entry.error(Error::invalid(entry.path(), name, detail));
                    }
                    size += if bag == "data" { entry.text().len() } else { decoded_len(entry.text()) };
                }
            }
            if size > MAX_SIZE {
                root.error(Error::too_long(&Path::root(), MAX_SIZE));
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = check(new, |root| frozen(root, old, &["data", "binaryData"]));
        errors.extend(self.validate(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[printer::NAME, printer::text("Data"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = |bag: &str| object.map(&[bag]).map_or(0, serde_json::Map::len);
        vec![object.name().into(), (count("data") + count("binaryData")).into(), printer::age(object, now)]
    }
}
