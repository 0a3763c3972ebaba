//! Secret: base64 bytes by key with rules by type. Error texts never hold a value.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;
use skep_api::field::{Error, ErrorList};
use skep_api::object::ObjectExt;

use super::config_map::{MAX_SIZE, decoded_len, frozen, key};
use super::namespaced;
use crate::strategy::check::{At, check};
use crate::strategy::printer::{self, Column};
use crate::strategy::{KindRow, Strategy, default_text};

/// The row of the table of kinds.
pub(super) static ROW: KindRow = namespaced("", "v1", "Secret", "secrets", &Secret);

const ACCOUNT: &str = "kubernetes.io/service-account.name";
const REDACTED: &str = "<secret contents redacted>";

struct Secret;

/// What the well-known types must hold.
fn typed(root: &At<'_>) {
    let data = root.child("data");
    let at = |name: &str| data.path().key(name);
    let has = |name: &str| data.child(name).is_set();
    let require = |name: &str| {
        if !has(name) {
            data.error(Error::required(&at(name), ""));
        }
    };
    let json = |name: &str| {
        require(name);
        let bytes = STANDARD.decode(data.child(name).text()).unwrap_or_default();
        // What the parser says may hold a part of the value; its place is enough.
        if has(name)
            && let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes)
        {
            let place = format!("is no JSON object (line {}, column {})", error.line(), error.column());
            data.error(Error::invalid(&at(name), REDACTED, place));
        }
    };
    match root.child("type").text() {
        "kubernetes.io/service-account-token" => {
            let annotations = root.down(&["metadata", "annotations"]);
            if annotations.child(ACCOUNT).is_empty() {
                annotations.error(Error::required(&annotations.path().key(ACCOUNT), ""));
            }
        }
        "kubernetes.io/dockercfg" => json(".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json(".dockerconfigjson"),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            require("username");
            require("password");
        }
        "kubernetes.io/ssh-auth" => {
            let name = "ssh-privatekey";
            if data.child(name).is_empty() {
                data.error(Error::required(&at(name), ""));
            }
        }
        "kubernetes.io/tls" => {
            require("tls.crt");
            require("tls.key");
        }
        _ => {}
    }
}

impl Strategy for Secret {
    fn default(&self, object: &mut Value) {
        default_text(object, &["type"], "Opaque");
        if let Some(Value::Object(plain)) = object.unset(&["stringData"]) {
            for (name, value) in plain {
                object.set(&["data", &name], STANDARD.encode(value.as_str().unwrap_or_default()));
            }
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let mut size = 0;
            let data = root.child("data");
            for (name, entry) in data.entries() {
                key(&entry, name);
                size += decoded_len(entry.text());
                if STANDARD.decode(entry.text()).is_err() {
                    entry.error(Error::invalid(entry.path(), REDACTED, "must be base64"));
                }
            }
            if size > MAX_SIZE {
                data.error(Error::too_long(data.path(), MAX_SIZE));
            }
            typed(root);
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = check(new, |root| {
            root.child("type").immutable(old.get("type").unwrap_or(&Value::Null));
            frozen(root, old, &["data"]);
        });
        errors.extend(self.validate(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] =
            &[printer::NAME, printer::text("Type"), printer::text("Data"), printer::AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = object.map(&["data"]).map_or(0, serde_json::Map::len);
        vec![object.name().into(), object.text(&["type"]).into(), count.into(), printer::age(object, now)]
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["type"]
    }
}
