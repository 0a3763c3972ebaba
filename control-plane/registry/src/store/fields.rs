//! Managed fields: who set what.

use serde_json::Value;
use skep_api::error::ApiError;
use skep_machinery::apply::{self, Set, Writer};

use super::admit::Write;
use super::conversions::Conversions;
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
    conversions: &Conversions,
    work: impl FnOnce(&Writer<'_>) -> T,
) -> T {
    let ignored = untouched(resource, subresource);
    let versions = resource.kind().versions(conversions);
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
pub(super) async fn own(write: &Write<'_>, old: Option<&Value>, new: Value) -> Value {
    let Write { resource, target, options } = *write;
    let conversions = Conversions::default();
    loop {
        let noted = with_writer(resource, &target.subresource, options, &conversions, |writer| {
            apply::update_managers(old, new.clone(), writer)
        });
        match conversions.resolve(resource).await {
            Ok(false) => return noted,
            Ok(true) => {}
            Err(error) => {
                // A write goes on without the webhook; who owns what in another version stays as it was.
                let kind = resource.gvk().to_string();
                tracing::warn!(%error, kind, "the managers of other versions are not compared");
                return with_writer(resource, &target.subresource, options, &conversions, |writer| {
                    apply::update_managers(old, new, &Writer { versions: None, ..*writer })
                });
            }
        }
    }
}

/// Applies a configuration to an object, or makes one of it. The outcome counts once it has missed no conversion.
pub(super) fn apply(
    resource: &Resource,
    subresource: &str,
    old: Option<&Value>,
    applied: &Value,
    options: &WriteOptions,
    conversions: &Conversions,
) -> Result<Value, ApiError> {
    let result = with_writer(resource, subresource, options, conversions, |writer| {
        apply::apply_patch(old, applied, writer, options.force)
    });
    Ok(result?.object)
}
