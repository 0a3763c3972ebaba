//! What CSI drivers say of themselves: CSIDriver, CSINode, CSIStorageCapacity.

use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::field::{Error, ErrorList};
use skep_api::names;
use skep_api::object::ObjectExt;

use super::pod::volumes::driver;
use super::pod::warnings::deprecated_label;
use super::{cluster, namespaced};
use crate::strategy::check::{At, check, is_empty, same};
use crate::strategy::printer::{AGE, Column, NAME, age, boolean, integer, or, text};
use crate::strategy::{KindRow, Strategy, default_text, default_to};

const GROUP: &str = "storage.k8s.io";

/// CSIDriver.
pub(super) static DRIVER: KindRow =
    KindRow { generation: &["spec"], ..cluster(GROUP, "v1", "CSIDriver", "csidrivers", &Driver) };
/// CSINode.
pub(super) static NODE: KindRow = cluster(GROUP, "v1", "CSINode", "csinodes", &Node);
/// CSIStorageCapacity.
pub(super) static CAPACITY: KindRow =
    namespaced(GROUP, "v1", "CSIStorageCapacity", "csistoragecapacities", &Capacity);

/// Bytes in the name a driver gives a node (CSI 1.4).
const MAX_NODE_ID: usize = 256;
/// Shortest life of a token, and longest, in seconds.
const TOKEN_SECONDS: (i64, i64) = (600, 1 << 32);

struct Driver;
struct Node;
struct Capacity;

fn token_requests(requests: &At<'_>) {
    let mut audiences: Vec<&str> = Vec::new();
    for request in requests.items() {
        let audience = request.child("audience");
        if audiences.contains(&audience.text()) {
            audience.error(Error::duplicate(audience.path(), audience.text()));
            continue;
        }
        audiences.push(audience.text());
        let seconds = request.child("expirationSeconds");
        match seconds.int() {
            Some(s) if s < TOKEN_SECONDS.0 => {
                seconds.invalid("may not specify a duration less than 10 minutes");
            }
            Some(s) if s > TOKEN_SECONDS.1 => {
                seconds.invalid("may not specify a duration larger than 2^32 seconds");
            }
            _ => {}
        }
    }
}

impl Strategy for Driver {
    fn default(&self, object: &mut Value) {
        for (field, value) in [
            ("attachRequired", true),
            ("podInfoOnMount", false),
            ("storageCapacity", false),
            ("requiresRepublish", false),
            ("seLinuxMount", false),
        ] {
            default_to(object, &["spec", field], value);
        }
        default_text(object, &["spec", "fsGroupPolicy"], "ReadWriteOnceWithFSType");
        default_to(object, &["spec", "volumeLifecycleModes"], json!(["Persistent"]));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let spec = root.child("spec");
            spec.child("fsGroupPolicy").one_of(&["File", "None", "ReadWriteOnceWithFSType"]);
            token_requests(&spec.child("tokenRequests"));
            let modes = spec.child("volumeLifecycleModes");
            for mode in modes.items() {
                mode.told_at(modes.path().clone()).one_of(&["Persistent", "Ephemeral"]);
            }
            let period = spec.child("nodeAllocatableUpdatePeriodSeconds");
            if period.int().is_some_and(|seconds| seconds < 10) {
                period.invalid("must be greater than or equal to 10 seconds");
            }
            let secrets = spec.child("serviceAccountTokenInSecrets");
            if secrets.is_set() && spec.child("tokenRequests").is_empty() {
                secrets.invalid("serviceAccountTokenInSecrets is set but no tokenRequests are specified");
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(new);
        errors.extend(check(new, |root| {
            let spec = root.child("spec");
            let before = |field: &str| old.at(&["spec", field]).unwrap_or(&Value::Null);
            // Upstream's spelling of the path.
            let attach = spec.path().child("attachedRequired");
            spec.child("attachRequired").told_at(attach).immutable(before("attachRequired"));
            spec.child("volumeLifecycleModes").immutable(before("volumeLifecycleModes"));
        }));
        errors
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let requests = |object: &Value| object.at(&["spec", "tokenRequests"]).cloned().unwrap_or(Value::Null);
        let unset = object.at(&["spec", "serviceAccountTokenInSecrets"]).is_none();
        let kept = old.is_some_and(|old| same(&requests(old), &requests(object)));
        if is_empty(&requests(object)) || !unset || kept {
            return Vec::new();
        }
        vec!["spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes".to_owned()]
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[
            NAME,
            boolean("AttachRequired"),
            boolean("PodInfoOnMount"),
            boolean("StorageCapacity"),
            text("TokenRequests"),
            boolean("RequiresRepublish"),
            text("Modes"),
            AGE,
        ];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let flag = |field: &str| Value::from(object.flag(&["spec", field]));
        let join = |list: Vec<&str>| list.join(",");
        let modes = object.items(&["spec", "volumeLifecycleModes"]).iter().filter_map(Value::as_str);
        let audiences = object.items(&["spec", "tokenRequests"]).iter().map(|t| t.text(&["audience"]));
        vec![
            object.name().into(),
            object.at(&["spec", "attachRequired"]).cloned().unwrap_or(Value::Bool(true)),
            flag("podInfoOnMount"),
            flag("storageCapacity"),
            or(&join(audiences.collect()), "<unset>").into(),
            flag("requiresRepublish"),
            or(&join(modes.collect()), "<none>").into(),
            age(object, now),
        ]
    }
}

fn node_driver(entry: &At<'_>, taken: &mut Vec<String>) {
    let name = entry.child("name");
    driver(&name);
    let id = entry.child("nodeID");
    id.require();
    if id.text().len() > MAX_NODE_ID {
        id.invalid(format!("must be {MAX_NODE_ID} characters or less"));
    }
    entry.child("allocatable").child("count").non_negative();
    if taken.iter().any(|other| other == name.text()) {
        name.error(Error::duplicate(name.path(), name.text()));
    }
    taken.push(name.text().to_owned());
    let mut keys: Vec<&str> = Vec::new();
    for key in entry.child("topologyKeys").items() {
        // Upstream tells all of these at the driver.
        let told = key.told_at(entry.path().clone());
        told.require();
        if keys.contains(&key.text()) {
            told.duplicate();
        }
        keys.push(key.text());
        told.invalid_text(names::qualified_name(key.text()));
    }
}

impl Strategy for Node {
    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            let mut taken = Vec::new();
            for entry in root.child("spec").child("drivers").items() {
                node_driver(&entry, &mut taken);
            }
        })
    }

    /// A driver's entry stays as it is, but for how many volumes the node takes.
    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(new);
        errors.extend(check(new, |root| {
            let drivers = root.child("spec").child("drivers");
            for before in old.items(&["spec", "drivers"]) {
                for entry in
                    drivers.items().iter().filter(|e| e.child("name").text() == before.text(&["name"]))
                {
                    let [mut now, mut was] = [entry.value().clone(), before.clone()];
                    now.unset(&["allocatable"]);
                    was.unset(&["allocatable"]);
                    if !same(&now, &was) {
                        drivers.error(Error::invalid(drivers.path(), now, "field is immutable"));
                    }
                }
            }
        }));
        errors
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[NAME, integer("Drivers"), AGE];
        COLUMNS
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), object.items(&["spec", "drivers"]).len().into(), age(object, now)]
    }
}

impl Strategy for Capacity {
    fn validate(&self, object: &Value) -> ErrorList {
        check(object, |root| {
            root.child("nodeTopology").selector();
            let class = root.child("storageClassName");
            class.invalid_text(names::dns1123_subdomain(class.text()));
            let capacity = root.child("capacity");
            if capacity.quantity().is_some_and(|quantity| quantity.sign() < 0) {
                capacity.invalid("must be greater than or equal to 0");
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        check(new, |root| {
            for field in ["nodeTopology", "storageClassName"] {
                root.child(field).immutable(old.get(field).unwrap_or(&Value::Null));
            }
        })
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut told = Vec::new();
        for (index, expression) in object.items(&["nodeTopology", "matchExpressions"]).iter().enumerate() {
            let key = expression.text(&["key"]);
            if let Some(fate) = deprecated_label(key) {
                told.push(format!("nodeTopology.matchExpressions[{index}].key: {key} is {fate}"));
            }
        }
        for label in object.map(&["nodeTopology", "matchLabels"]).into_iter().flat_map(|map| map.keys()) {
            if let Some(fate) = deprecated_label(label) {
                told.push(format!("nodeTopology.matchLabels.{label}: {fate}"));
            }
        }
        told
    }

    fn columns(&self) -> &'static [Column] {
        static COLUMNS: &[Column] = &[NAME, text("StorageClassName"), text("Capacity")];
        COLUMNS
    }

    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let capacity = or(object.text(&["capacity"]), "<unset>");
        vec![object.name().into(), object.text(&["storageClassName"]).into(), capacity.into()]
    }
}
