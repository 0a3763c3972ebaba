//! The metadata every object has: what the server fills in, keeps, and refuses.

use rand::Rng;
use serde_json::{Map, Value, json};
use skep_api::error::ApiError;
use skep_storage::Revision;

/// How many random characters follow a generated name.
const SUFFIX: usize = 5;

/// The longest base of a generated name.
const BASE: usize = 63 - SUFFIX;

/// No vowels and no look-alikes, so that no word comes out by chance.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The present, as objects write it.
pub(crate) fn now() -> String {
    let seconds = jiff::Timestamp::now().as_second();
    timestamp(seconds)
}

/// A new object's identity.
pub(crate) fn new_uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// A moment in seconds since 1970 as objects write it.
pub(crate) fn timestamp(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_default()
}

/// Seconds since 1970 of a written moment.
pub(crate) fn seconds(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

/// The object's metadata, made when it has none.
pub(crate) fn metadata(object: &mut Value) -> Result<&mut Map<String, Value>, ApiError> {
    let object = object.as_object_mut().ok_or_else(|| ApiError::bad_request("the object is no map"))?;
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    metadata.as_object_mut().ok_or_else(|| ApiError::bad_request("metadata is no map"))
}

/// A string of the metadata, empty when absent.
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object
        .get("metadata")
        .and_then(|metadata| metadata.get(field))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The finalizers.
pub(crate) fn finalizers(object: &Value) -> Vec<String> {
    let list = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Writes the finalizers; an empty list is left out.
pub(crate) fn set_finalizers(object: &mut Value, finalizers: &[String]) -> Result<(), ApiError> {
    let metadata = metadata(object)?;
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), json!(finalizers));
    }
    Ok(())
}

/// Is a deletion under way?
pub(crate) fn is_deleting(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

/// The resource version the client sent; 0 for none.
pub(crate) fn sent_revision(object: &Value) -> Result<Revision, ApiError> {
    match text(object, "resourceVersion") {
        "" | "0" => Ok(0),
        given => given.parse().map_err(|_| {
            ApiError::bad_request(format!(
                "metadata.resourceVersion: Invalid value: {given:?}: must be an unsigned integer"
            ))
        }),
    }
}

/// A random name beginning with `base`.
pub(crate) fn generate_name(base: &str) -> String {
    let mut name: String = base.chars().take(BASE).collect();
    let mut rng = rand::rng();
    name.extend((0..SUFFIX).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])));
    name
}

/// Takes out of the metadata of an object that is to be created what only the server may set.
pub(crate) fn begin_create(object: &mut Value, namespace: &str) -> Result<(), ApiError> {
    let metadata = metadata(object)?;
    let servers = ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];
    for field in servers.into_iter().chain(["selfLink", "resourceVersion"]) {
        metadata.remove(field);
    }
    if namespace.is_empty() {
        metadata.remove("namespace");
    } else {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    drop_empty(metadata);
    Ok(())
}

/// Fills in the metadata that only the server may set, whatever admission put there.
pub(crate) fn fill_on_create(object: &mut Value, namespace: &str) -> Result<(), ApiError> {
    begin_create(object, namespace)?;
    let metadata = metadata(object)?;
    metadata.insert("uid".to_owned(), json!(new_uid()));
    metadata.insert("creationTimestamp".to_owned(), json!(now()));
    let named = metadata.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    let base = metadata.get("generateName").and_then(Value::as_str).filter(|base| !base.is_empty());
    if let Some(name) = base.filter(|_| !named).map(generate_name) {
        metadata.insert("name".to_owned(), json!(name));
    }
    drop_empty(metadata);
    Ok(())
}

/// Carries what a client can't change from the stored object into the new one.
pub(crate) fn keep_on_update(new: &mut Value, old: &Value) -> Result<(), ApiError> {
    let old = old.get("metadata").and_then(Value::as_object);
    let metadata = metadata(new)?;
    metadata.remove("selfLink");
    let kept = [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generateName",
        "generation",
        "namespace",
        "name",
    ];
    for field in kept {
        match old.and_then(|old| old.get(field)) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    drop_empty(metadata);
    Ok(())
}

/// Empty lists and maps are the same as none: one spelling, so that an unchanged write is seen as one.
fn drop_empty(metadata: &mut Map<String, Value>) {
    metadata.retain(|_, value| match value {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::String(text) => !text.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    });
}

/// Adds one to the generation: the spec, or the wish to have it deleted, is a new one.
pub(crate) fn bump_generation(object: &mut Value) -> Result<(), ApiError> {
    let metadata = metadata(object)?;
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64) {
        metadata.insert("generation".to_owned(), json!(generation + 1));
    }
    Ok(())
}
