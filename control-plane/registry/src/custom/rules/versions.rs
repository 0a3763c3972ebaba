//! The versions of a definition.
//!
//! What all versions have in common, or the only one has, is told of at the top of the spec, where the
//! original's internal form keeps it (`spec.validation.openAPIV3Schema`).

use serde_json::Value;
use skep_api::field::{Error, ErrorList, Path};
use skep_api::names;
use skep_api::object::ObjectExt;

use super::openapi;
use crate::custom::json_path::JsonPath;
use crate::strategy::check::At;

/// Fields that selectors may name in a version.
const MOST_SELECTABLE: usize = 8;

/// Names, and which one is stored.
pub(super) fn named(versions: &At<'_>) {
    let items = versions.items();
    let mut taken = Vec::new();
    for version in &items {
        let name = version.child("name");
        let wrong = names::dns1035_label(name.text());
        if !wrong.is_empty() {
            name.invalid(wrong.join(","));
        }
        taken.push(name.text());
    }
    taken.sort_unstable();
    if taken.windows(2).any(|pair| pair[0] == pair[1]) {
        versions.invalid("must contain unique version names");
    }
    if items.iter().filter(|version| version.child("storage").flag()).count() != 1 {
        versions.invalid("must have exactly one version marked as storage version");
    }
}

/// Is a field the same in all versions?
fn is_common(versions: &[Value], field: &str) -> bool {
    let mut fields = versions.iter().map(|version| version.get(field));
    let first = fields.next().flatten();
    first.is_some() && fields.all(|field| field == first)
}

/// Schemas, subresources, columns and selectable fields.
pub(super) fn validate(object: &Value, old: Option<&Value>) -> ErrorList {
    let mut errors = ErrorList::new();
    let versions = object.items(&["spec", "versions"]);
    let spec = Path::new("spec");
    let any_status = versions.iter().any(|version| version.at(&["subresources", "status"]).is_some());
    for (at, version) in versions.iter().enumerate() {
        let own = spec.child("versions").index(at);
        // Once is enough for what is common.
        let place = |field: &str, top: &str| match (is_common(versions, field), at) {
            (true, 0) => Some(spec.child(top)),
            (true, _) => None,
            (false, _) => Some(own.child(field)),
        };
        deprecation(version, &own, &mut errors);
        if let (Some(schema), Some(path)) =
            (version.at(&["schema", "openAPIV3Schema"]), place("schema", "validation"))
        {
            let status = version.at(&["subresources", "status"]).is_some()
                || is_common(versions, "schema") && any_status;
            let name = version.text(&["name"]);
            let before = old.map(|old| openapi::Before::new(old, name, schema));
            errors.extend(openapi::validate(schema, &path.child("openAPIV3Schema"), status, before.as_ref()));
        }
        if let Some(path) = place("subresources", "subresources") {
            scale(version, &path.child("scale"), &mut errors);
        }
        if let Some(path) = place("additionalPrinterColumns", "additionalPrinterColumns") {
            for (index, column) in version.items(&["additionalPrinterColumns"]).iter().enumerate() {
                self::column(column, &path.index(index), &mut errors);
            }
        }
        if let Some(path) = place("selectableFields", "selectableFields") {
            selectable(version, &path, old, &mut errors);
        }
    }
    errors
}

fn deprecation(version: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) else { return };
    let path = path.child("deprecationWarning");
    let mut invalid = |detail: String| errors.push(Error::invalid(&path, warning, detail));
    if !version.flag(&["deprecated"]) {
        return invalid("can only be set for deprecated versions".to_owned());
    }
    if warning.len() > 256 {
        invalid("must be <= 256 characters long".to_owned());
    }
    if warning.is_empty() {
        invalid("must not be an empty string".to_owned());
    }
    if let Some((at, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        invalid(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {at}"
        ));
    }
}

fn simple_path(text: &str, path: &Path, errors: &mut ErrorList) -> bool {
    let detail = match text {
        "" => "must not be empty",
        text if !text.starts_with('.') => "must be a simple json path starting with .",
        _ => return true,
    };
    errors.push(Error::invalid(path, text, detail));
    false
}

fn scale(version: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(scale) = version.at(&["subresources", "scale"]) else { return };
    for (field, root) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        let here = path.child(field);
        let text = scale.text(&[field]);
        if text.is_empty() {
            errors.push(Error::required(&here, ""));
        } else if simple_path(text, &here, errors) && !text.starts_with(root) {
            let root = root.trim_end_matches('.');
            errors.push(Error::invalid(&here, text, format!("should be a json path under {root}")));
        }
    }
    let text = scale.text(&["labelSelectorPath"]);
    let here = path.child("labelSelectorPath");
    if !text.is_empty()
        && simple_path(text, &here, errors)
        && !text.starts_with(".spec.")
        && !text.starts_with(".status.")
    {
        errors.push(Error::invalid(&here, text, "should be a json path under either .spec or .status"));
    }
}

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

fn column(column: &Value, path: &Path, errors: &mut ErrorList) {
    if column.text(&["name"]).is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    let (ty, format) = (column.text(&["type"]), column.text(&["format"]));
    let one_of = format!("must be one of {}", COLUMN_TYPES.join(","));
    if ty.is_empty() {
        errors.push(Error::required(&path.child("type"), one_of));
    } else if !COLUMN_TYPES.contains(&ty) {
        errors.push(Error::invalid(&path.child("type"), ty, one_of));
    }
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        let one_of = format!("must be one of {}", COLUMN_FORMATS.join(","));
        errors.push(Error::invalid(&path.child("format"), format, one_of));
    }
    let here = path.child("JSONPath");
    match column.text(&["jsonPath"]) {
        "" => errors.push(Error::required(&here, "")),
        text => _ = simple_path(text, &here, errors),
    }
}

fn selectable(version: &Value, path: &Path, old: Option<&Value>, errors: &mut ErrorList) {
    let fields = version.items(&["selectableFields"]);
    let mut seen: Vec<&str> = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let here = path.index(index).child("jsonPath");
        let text = field.text(&["jsonPath"]);
        if text.is_empty() {
            errors.push(Error::required(&here, ""));
            continue;
        }
        let schema = version.at(&["schema", "openAPIV3Schema"]).unwrap_or(&Value::Null);
        let found = match declared(schema, text) {
            Ok(found) => found,
            Err(why) => {
                errors.push(Error::invalid(&here, text, format!("is an invalid path: {why}")));
                continue;
            }
        };
        if text == ".metadata" || text.starts_with(".metadata.") {
            errors.push(Error::invalid(&here, text, "must not point to fields in metadata"));
        }
        if !matches!(found.text(&["type"]), "string" | "boolean" | "integer") {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings \
                          with formats are allowed.";
            errors.push(Error::invalid(&here, text, detail));
        }
        if seen.contains(&text) {
            errors.push(Error::duplicate(&here, text));
        } else {
            seen.push(text);
        }
    }
    let unchanged = old.is_some_and(|old| {
        let name = version.text(&["name"]);
        let mut before = old.items(&["spec", "versions"]).iter();
        before.any(|before| before.text(&["name"]) == name && before.items(&["selectableFields"]) == fields)
    });
    if seen.len() > MOST_SELECTABLE && !unchanged {
        errors.push(Error::too_many(path, seen.len(), MOST_SELECTABLE));
    }
}

/// The schema a simple path leads to.
fn declared<'s>(schema: &'s Value, text: &str) -> Result<&'s Value, String> {
    if text.contains('[') {
        return Err("array notation is not allowed".to_owned());
    }
    if JsonPath::parse(text).is_none() {
        return Err(format!("expected [ or . but got: {text}"));
    }
    static NONE: Value = Value::Null;
    let mut here = schema;
    for name in text.trim_start_matches('.').split('.') {
        here = match (here.at(&["properties", name]), here.get("additionalProperties")) {
            (Some(inner), _) => inner,
            (None, Some(inner)) if inner.is_object() => inner,
            _ if name == "metadata" && std::ptr::eq(here, schema) => return Ok(&NONE),
            _ => return Err("does not refer to a valid field".to_owned()),
        };
    }
    Ok(here)
}
