//! What objects are turned into: tables by the columns of their kind, bare metadata.

use serde_json::Value;
use skep_machinery::table::{self, IncludeObject, MetaVersion};
use skep_registry::strategy::Kind;

/// The resource version of an object.
pub(crate) fn version_of(object: &Value) -> &str {
    object.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default()
}

/// One row for each object.
pub(crate) fn rows<'a>(
    kind: &Kind,
    objects: impl Iterator<Item = &'a Value>,
    version: MetaVersion,
    include: IncludeObject,
) -> Vec<Value> {
    let now = jiff::Timestamp::now();
    objects.map(|object| table::row(kind.cells(object, now), object, include, version)).collect()
}

/// A table of a kind. A later frame of a watch leaves the columns out.
pub(crate) fn table(
    kind: &Kind,
    headed: bool,
    metadata: Value,
    rows: Vec<Value>,
    version: MetaVersion,
) -> Value {
    let columns = kind.columns();
    table::table(metadata, headed.then_some(columns.as_slice()), rows, version)
}
