//! Objects inside of objects (`x-kubernetes-embedded-resource`): their metadata has the types and the
//! rules of all metadata.

use serde_json::{Value, json};
use skep_api::field::{Error, ErrorList, Path};
use skep_api::names;
use skep_api::resource::GroupVersionKind;
use skep_machinery::codec::{self, FieldValidation};

use super::schema::Schema;
use crate::strategy::{check, meta};

/// What is done about metadata of the wrong type.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// The object is refused.
    Refuse,
    /// It stays as it is: it was stored before there were rules.
    Keep,
}

/// Gives embedded metadata its types, and drops what metadata does not have. The paths of what went.
pub(crate) fn coerce(
    object: &mut Value,
    schema: &Schema,
    malformed: Malformed,
) -> Result<Vec<String>, Error> {
    let mut unknown = Vec::new();
    walk(object, Some(schema), &Path::root(), malformed, true, &mut unknown)?;
    unknown.sort();
    Ok(unknown)
}

/// `root`: the metadata of the resource itself is read with the object.
fn walk(
    value: &mut Value,
    schema: Option<&Schema>,
    path: &Path,
    malformed: Malformed,
    root: bool,
    unknown: &mut Vec<String>,
) -> Result<(), Error> {
    let Some(schema) = schema else { return Ok(()) };
    match value {
        Value::Object(map) => {
            if schema.embedded && !root {
                for field in ["apiVersion", "kind"] {
                    let wrong = map.get(field).filter(|value| !value.is_string());
                    match (wrong, malformed) {
                        (None, _) => {}
                        (Some(value), Malformed::Refuse) => {
                            return Err(Error::invalid(
                                &path.child(field),
                                value.clone(),
                                "must be a string",
                            ));
                        }
                        (Some(_), Malformed::Keep) => _ = map.remove(field),
                    }
                }
                if let Some(metadata) = map.get_mut("metadata") {
                    coerce_metadata(metadata, &path.child("metadata"), malformed, unknown)?;
                }
            }
            for (name, value) in map {
                let (inner, path) = match schema.properties.get(name) {
                    Some(inner) => (Some(inner), path.child(name)),
                    None => (schema.of_additional(), path.key(name)),
                };
                walk(value, inner, &path, malformed, false, unknown)?;
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, schema.items.as_deref(), &path.index(index), malformed, false, unknown)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn coerce_metadata(
    metadata: &mut Value,
    path: &Path,
    malformed: Malformed,
    unknown: &mut Vec<String>,
) -> Result<(), Error> {
    // Any kind outside the table has typed metadata.
    let kind = GroupVersionKind::new("embedded.invalid", "v1", "Embedded");
    match codec::check(&kind, &json!({"metadata": metadata}), FieldValidation::Warn) {
        Ok(mut decoded) => {
            *metadata = decoded.object["metadata"].take();
            let paths = decoded.warnings.iter().filter_map(|text| {
                let path = text.strip_prefix("unknown field \"metadata.")?.strip_suffix('"')?;
                Some(path.to_owned())
            });
            unknown.extend(paths.map(|below| path.child(&below).to_string()));
            Ok(())
        }
        Err(_) if malformed == Malformed::Keep => Ok(()),
        Err(error) => {
            let text = error.to_string();
            let reason =
                text.split_once("cannot be handled as a Embedded: ").map_or(text.as_str(), |(_, r)| r);
            Err(Error::invalid(path, metadata.clone(), reason))
        }
    }
}

/// The errors of embedded objects.
pub(crate) fn validate(object: &Value, schema: &Schema) -> ErrorList {
    let mut errors = ErrorList::new();
    check_embedded(object, schema, &Path::root(), &mut errors);
    errors
}

fn check_embedded(value: &Value, schema: &Schema, path: &Path, errors: &mut ErrorList) {
    match value {
        Value::Object(map) => {
            if schema.embedded {
                one(value, path, errors);
            }
            for (name, value) in map {
                if let Some(inner) = schema.properties.get(name) {
                    check_embedded(value, inner, &path.child(name), errors);
                } else if let Some(inner) = schema.of_additional() {
                    check_embedded(value, inner, &path.key(name), errors);
                }
            }
        }
        Value::Array(items) => {
            let Some(inner) = schema.items.as_deref() else { return };
            for (index, item) in items.iter().enumerate() {
                check_embedded(item, inner, &path.index(index), errors);
            }
        }
        _ => {}
    }
}

fn one(object: &Value, path: &Path, errors: &mut ErrorList) {
    for field in ["apiVersion", "kind"] {
        let here = path.child(field);
        match object.get(field) {
            None => errors.push(Error::required(&here, "")),
            Some(Value::String(text)) if text.is_empty() => {
                errors.push(Error::invalid(&here, "", "must not be empty"));
            }
            Some(Value::String(text)) if field == "apiVersion" => {
                if text.matches('/').count() > 1 {
                    let detail = format!("unexpected GroupVersion string: {text}");
                    errors.push(Error::invalid(&here, text.clone(), detail));
                }
            }
            Some(Value::String(text)) => {
                let wrong = names::dns1035_label(&text.to_lowercase());
                if !wrong.is_empty() {
                    let detail =
                        format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
                    errors.push(Error::invalid(&here, text.clone(), detail));
                }
            }
            Some(other) => errors.push(Error::invalid(&here, other.clone(), "must be a string")),
        }
    }
    let Some(metadata) = object.get("metadata") else { return };
    let mut metadata = metadata.clone();
    if let Some(map) = metadata.as_object_mut()
        && map.get("name").and_then(Value::as_str).is_none_or(str::is_empty)
    {
        map.insert("name".to_owned(), "fakename".into());
    }
    let namespaced = metadata.get("namespace").is_some();
    let found = check::check(&json!({"metadata": metadata}), |root| {
        meta::validate(&root.child("metadata"), namespaced, names::path_segment);
    });
    for mut error in found.0 {
        error.field = path.child(error.field.as_str());
        errors.push(error);
    }
}
