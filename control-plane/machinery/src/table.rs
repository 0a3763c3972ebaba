//! `metav1.Table` and `PartialObjectMetadata`: what the server makes of objects for printing clients.
//!
//! The columns and cells of each kind come from its strategy; this is the frame around them.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: Cow<'static, str>,
    /// OpenAPI type: `string`, `integer`, `boolean`, `date`.
    pub ty: Cow<'static, str>,
    /// OpenAPI format; `name` marks the object's name.
    pub format: Cow<'static, str>,
    /// What it shows.
    pub description: Cow<'static, str>,
    /// 0 is always shown, more only in wide output.
    pub priority: i32,
}

/// How much of each object a row carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// From the query parameter `includeObject`.
    pub fn parse(text: &str) -> crate::Result<Self> {
        match text {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            other => Err(crate::Error::bad_request(format!("unrecognized includeObject value: {other:?}"))),
        }
    }
}

/// Versions of `meta.k8s.io` in which tables and partial metadata are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MetaVersion {
    /// `meta.k8s.io/v1`.
    #[default]
    V1,
    /// `meta.k8s.io/v1beta1`.
    V1Beta1,
}

impl MetaVersion {
    /// The `apiVersion`.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// The columns as a table declares them.
pub fn column_definitions(columns: &[Column]) -> Value {
    columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "type": column.ty,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            })
        })
        .collect()
}

/// One row: the cells, and as much of the object as was asked for.
pub fn row(cells: Vec<Value>, object: &Value, include: IncludeObject, version: MetaVersion) -> Value {
    let object = match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Metadata => partial_metadata(object, version),
        IncludeObject::Object => object.clone(),
    };
    object_of([("cells", Value::Array(cells)), ("object", object)])
}

/// A table. `metadata` is that of the list; `columns` is `None` in watch frames after the first, which leave it out.
pub fn table(metadata: Value, columns: Option<&[Column]>, rows: Vec<Value>, version: MetaVersion) -> Value {
    object_of([
        ("kind", "Table".into()),
        ("apiVersion", version.api_version().into()),
        ("metadata", metadata),
        ("columnDefinitions", columns.map_or(Value::Null, column_definitions)),
        ("rows", Value::Array(rows)),
    ])
}

/// An object reduced to its metadata.
pub fn partial_metadata(object: &Value, version: MetaVersion) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": version.api_version(),
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| Value::Object(Map::new())),
    })
}

/// A list reduced to metadata.
pub fn partial_metadata_list<'v>(
    metadata: Value,
    items: impl IntoIterator<Item = &'v Value>,
    version: MetaVersion,
) -> Value {
    let items: Vec<Value> = items.into_iter().map(|item| partial_metadata(item, version)).collect();
    object_of([
        ("kind", "PartialObjectMetadataList".into()),
        ("apiVersion", version.api_version().into()),
        ("metadata", metadata),
        ("items", Value::Array(items)),
    ])
}

/// An object that takes its parts over instead of copying them.
fn object_of<const N: usize>(parts: [(&str, Value); N]) -> Value {
    Value::Object(parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// How long ago, as age columns print it.
pub fn age(since: Option<&str>, now: Timestamp) -> String {
    let Some(since) = since.and_then(|text| crate::codec::scalars::time(text).ok()) else {
        return "<unknown>".to_owned();
    };
    skep_api::duration::human(now.as_second() - since.as_second())
}

#[cfg(test)]
mod tests {
    //! Frames around cells.
    use super::*;

    #[test]
    fn rows_carry_what_was_asked_for() {
        let pod = json!({"kind": "Pod", "metadata": {"name": "p"}, "spec": {}});
        let cells = vec![json!("p")];
        assert_eq!(row(cells.clone(), &pod, IncludeObject::None, MetaVersion::V1)["object"], Value::Null);
        let metadata = row(cells.clone(), &pod, IncludeObject::Metadata, MetaVersion::V1);
        assert_eq!(metadata["object"]["kind"], "PartialObjectMetadata");
        assert!(metadata["object"].get("spec").is_none());
        assert_eq!(row(cells, &pod, IncludeObject::Object, MetaVersion::V1)["object"], pod);
        assert!(IncludeObject::parse("Everything").is_err());
    }

    #[test]
    fn ages() {
        let now: Timestamp = "2024-01-01T01:00:00Z".parse().expect("time");
        assert_eq!(age(Some("2024-01-01T00:00:00Z"), now), "60m");
        assert_eq!(age(None, now), "<unknown>");
        assert_eq!(age(Some("nonsense"), now), "<unknown>");
    }
}
