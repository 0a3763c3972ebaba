//! The three patch types that are not server-side apply: RFC 6902, RFC 7386 and strategic merge.
//!
//! A patch yields a new value; checking it against the kind is [`crate::codec::check`]'s work.

mod strategic;

pub use strategic::strategic_merge;

use crate::{Error, Result};
use json_patch::{Patch, PatchOperation};
use serde_json::Value;

/// Operations in one JSON patch at most.
const MOST_OPERATIONS: usize = 10_000;
/// What all `copy` operations of one patch may copy, in bytes of JSON, roughly.
const MOST_COPIED: usize = 3 * 1024 * 1024;

/// RFC 6902. Either every operation holds or the patch fails as a whole.
pub fn json_patch(original: &Value, patch: &[u8]) -> Result<Value> {
    let Patch(operations) = serde_json::from_slice(patch)
        .map_err(|error| Error::bad_request(format!("error decoding patch: {error}")))?;
    if operations.len() > MOST_OPERATIONS {
        return Err(Error::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut value = original.clone();
    let mut copied = 0;
    for operation in &operations {
        // Without a bound, a few copies of the whole into itself grow without end.
        if let PatchOperation::Copy(copy) = operation {
            copied += value.pointer(copy.from.as_str()).map_or(0, size);
            if copied > MOST_COPIED {
                return Err(Error::TooLarge("the patch copies too much".to_owned()));
            }
        }
        json_patch::patch(&mut value, std::slice::from_ref(operation)).map_err(|error| {
            Error::Invalid(format!("the server rejected our request due to an error in our request: {error}"))
        })?;
    }
    Ok(value)
}

fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(list) => list.iter().map(|item| size(item) + 1).sum::<usize>() + 2,
        Value::Object(map) => map.iter().map(|(key, item)| key.len() + size(item) + 4).sum::<usize>() + 2,
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
    }
}

/// RFC 7386.
pub fn merge_patch(original: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut out = original.as_object().cloned().unwrap_or_default();
    for (key, change) in patch {
        if change.is_null() {
            out.remove(key);
        } else {
            let merged = merge_patch(out.get(key).unwrap_or(&Value::Null), change);
            out.insert(key.clone(), merged);
        }
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests;
