//! Managed fields: who set what.

use serde_json::Value;
use skep_api::error::ApiError;
use skep_machinery::apply::{self, Set, Writer};

use super::admit::Write;
use super::{Resource, WriteOptions};

/// The fields a write through this subresource does not touch.
fn untouched(resource: &Resource, subresource: &str) -> Option<Set> {
    match subresource {
        "" if resource.kind().has_status() => Some(Set::of_fields(&[&["status"]])),
        "status" => Some(Set::of_fields(&[&["spec"]])),
        _ => None,
    }
}

fn with_writer<T>(
    resource: &Resource,
    subresource: &str,
    options: &WriteOptions,
    work: impl FnOnce(&Writer<'_>) -> T,
) -> T {
    let ignored = untouched(resource, subresource);
    let versions = resource.kind().versions();
    work(&Writer {
        manager: &options.field_manager,
        subresource,
        gvk: resource.gvk(),
        types: resource.kind().types(),
        versions: versions.as_deref(),
        ignored: ignored.as_ref(),
        now: jiff::Timestamp::now(),
    })
}

/// Notes in the managed fields what this write changes.
pub(super) fn own(write: &Write<'_>, old: Option<&Value>, new: Value) -> Value {
    with_writer(write.resource, &write.target.subresource, write.options, |writer| {
        apply::update_managers(old, new, writer)
    })
}

/// Applies a configuration to an object, or makes one of it.
pub(super) fn apply(
    resource: &Resource,
    subresource: &str,
    old: Option<&Value>,
    applied: &Value,
    options: &WriteOptions,
) -> Result<Value, ApiError> {
    let result = with_writer(resource, subresource, options, |writer| {
        apply::apply_patch(old, applied, writer, options.force)
    });
    Ok(result?.object)
}
