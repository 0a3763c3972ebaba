//! Managed fields: who set what.

use serde_json::Value;
use skep_api::error::ApiError;

use super::admit::Write;
use super::{Resource, WriteOptions};

/// Notes in the managed fields what this write changes.
pub(super) fn own(write: &Write<'_>, old: Option<&Value>, new: &mut Value) -> Result<(), ApiError> {
    let _ = (write, old, new);
    Ok(())
}

/// Applies a configuration to an object, or makes one of it.
pub(super) fn apply(
    resource: &Resource,
    subresource: &str,
    old: Option<&Value>,
    applied: &Value,
    options: &WriteOptions,
) -> Result<Value, ApiError> {
    let _ = (resource, subresource, old, options);
    Ok(applied.clone())
}
