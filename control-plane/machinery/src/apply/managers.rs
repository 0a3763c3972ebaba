//! `metadata.managedFields` as a map from manager to what it owns.

use super::set::Set;
use crate::{Error, Result};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Managers that only updated: beyond this many, the oldest are folded into one.
const MOST_UPDATERS: usize = 10;
/// Who the folded ones become.
const FOLDED: &str = "ancient-changes";

/// How a manager writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What makes a manager one manager. An applier is the same in every version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ManagerKey {
    pub(super) name: String,
    pub(super) operation: Operation,
    /// Empty for appliers.
    pub(super) version: String,
    pub(super) subresource: String,
}

impl ManagerKey {
    pub(super) fn new(name: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        Self {
            name: if name.is_empty() { "unknown" } else { name }.to_owned(),
            operation,
            version: if operation == Operation::Apply { String::new() } else { api_version.to_owned() },
            subresource: subresource.to_owned(),
        }
    }

    /// As conflicts name it.
    pub(super) fn describe(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text = format!("{text} with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            text = format!("{text} using {}", self.version);
        }
        text
    }
}

/// What one manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) api_version: String,
    pub(super) time: Option<String>,
    pub(super) fields: Set,
}

/// All managers of one object.
pub(super) type Managers = BTreeMap<ManagerKey, Owned>;

/// Reads `metadata.managedFields` of an object; none is an empty map.
pub(super) fn decode(object: &Value) -> Result<Managers> {
    let entries = object.get("metadata").and_then(|meta| meta.get("managedFields")).and_then(Value::as_array);
    let mut managers = Managers::new();
    for (at, entry) in entries.into_iter().flatten().enumerate() {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        let bad = |what: String| Error::bad_request(format!("failed to decode managed fields: {what}"));
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err(bad("operation must be `Apply` or `Update`".to_owned())),
        };
        if text("apiVersion").is_empty() {
            return Err(bad("apiVersion must not be empty".to_owned()));
        }
        match text("fieldsType") {
            "FieldsV1" => {}
            "" => return Err(bad(format!("missing fieldsType in managed fields entry {at}"))),
            other => return Err(bad(format!("invalid fieldsType {other:?} in managed fields entry {at}"))),
        }
        let fields = match entry.get("fieldsV1") {
            None | Some(Value::Null) => Set::default(),
            Some(fields) => Set::from_fields_v1(fields)
                .ok_or_else(|| bad(format!("error decoding set of managed fields entry {at}")))?,
        };
        let key = ManagerKey::new(text("manager"), operation, text("apiVersion"), text("subresource"));
        let time = Some(text("time")).filter(|time| !time.is_empty()).map(str::to_owned);
        managers.insert(key, Owned { api_version: text("apiVersion").to_owned(), time, fields });
    }
    Ok(managers)
}

/// Takes `metadata.managedFields` off an object.
pub(super) fn strip(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

/// Writes `metadata.managedFields`: appliers first, older before newer.
pub(super) fn encode(object: &mut Value, managers: &Managers) {
    let mut entries: Vec<(&ManagerKey, &Owned)> = managers.iter().collect();
    entries.sort_by_key(|(key, owned)| {
        (key.operation, seconds(owned), &key.name, &owned.api_version, &key.subresource)
    });
    let entries: Vec<Value> = entries
        .into_iter()
        .map(|(key, owned)| {
            let mut entry = json!({
                "manager": key.name,
                "operation": key.operation.as_str(),
                "apiVersion": owned.api_version,
                "fieldsType": "FieldsV1",
                "fieldsV1": owned.fields.to_fields_v1(),
            });
            if let Some(time) = &owned.time {
                entry["time"] = time.clone().into();
            }
            if !key.subresource.is_empty() {
                entry["subresource"] = key.subresource.clone().into();
            }
            entry
        })
        .collect();
    let Some(object) = object.as_object_mut() else { return };
    if entries.is_empty() {
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            metadata.remove("managedFields");
        }
        return;
    }
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(metadata) = metadata {
        metadata.insert("managedFields".to_owned(), Value::Array(entries));
    }
}

fn seconds(owned: &Owned) -> i64 {
    let time = owned.time.as_deref().and_then(|time| crate::codec::scalars::time(time).ok());
    time.map_or(0, Timestamp::as_second)
}

/// Folds the oldest updaters into one entry per version, so that an object cannot grow without end.
pub(super) fn cap(managers: &mut Managers) {
    let mut updaters: Vec<(i64, ManagerKey)> = managers
        .iter()
        .filter(|(key, _)| key.operation == Operation::Update)
        .map(|(key, owned)| (seconds(owned), key.clone()))
        .collect();
    updaters.sort();
    let mut count = updaters.len();
    let mut first_of_version: BTreeMap<String, ManagerKey> = BTreeMap::new();
    for (_, key) in updaters {
        if count <= MOST_UPDATERS {
            return;
        }
        let bucket = ManagerKey::new(FOLDED, Operation::Update, &key.version, "");
        let Some(first) = first_of_version.get(&key.version) else {
            first_of_version.insert(key.version.clone(), key);
            continue;
        };
        let oldest = if managers.contains_key(&bucket) { None } else { managers.remove(first) };
        if let Some(owned) = oldest {
            managers.insert(bucket.clone(), owned);
        }
        // Folding the bucket into itself would lose it.
        if key == bucket {
            continue;
        }
        if let Some(owned) = managers.remove(&key) {
            if let Some(folded) = managers.get_mut(&bucket) {
                folded.fields = folded.fields.union(&owned.fields);
                folded.time = owned.time;
            }
            count -= 1;
        }
    }
}

/// Fields that belong to no manager: the server keeps them.
pub(super) fn bookkeeping() -> Set {
    Set::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
}
