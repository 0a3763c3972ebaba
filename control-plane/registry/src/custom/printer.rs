//! Printer columns: what a definition wants shown of its objects.

use jiff::Timestamp;
use serde_json::Value;
use skep_api::object::ObjectExt;
use skep_machinery::table::Column;

use super::json_path::JsonPath;
use super::validate::go_float;
use crate::strategy::printer;

/// One additional column.
#[derive(Clone, Debug)]
pub(crate) struct PrinterColumn {
    name: String,
    ty: String,
    format: String,
    description: String,
    priority: i32,
    path: JsonPath,
}

/// The columns of a version. None given: the age. One that can't be read ends the table, so that the
/// others stay what they are.
pub(crate) fn parse(columns: &[Value]) -> Vec<PrinterColumn> {
    if columns.is_empty() {
        let age = PrinterColumn {
            name: "Age".to_owned(),
            ty: "date".to_owned(),
            format: String::new(),
            description: AGE.to_owned(),
            priority: 0,
            path: JsonPath::parse(".metadata.creationTimestamp").unwrap_or_default(),
        };
        return vec![age];
    }
    columns.iter().map_while(column).collect()
}

const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some \
                    resources may allow a client to request the generation of an appropriate name \
                    automatically. Name is primarily intended for creation idempotence and configuration \
                    definition. Cannot be updated. More info: \
                    https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

const AGE: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. \
                   It is not guaranteed to be set in happens-before order across separate operations. Clients \
                   may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by \
                   the system. Read-only. Null for lists. More info: \
                   https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

fn column(column: &Value) -> Option<PrinterColumn> {
    let path = column.text(&["jsonPath"]);
    let description = column.text(&["description"]);
    let description = if description.is_empty() {
        format!("Custom resource definition column (in JSONPath format): {path}")
    } else {
        description.to_owned()
    };
    Some(PrinterColumn {
        name: column.text(&["name"]).to_owned(),
        ty: column.text(&["type"]).to_owned(),
        format: column.text(&["format"]).to_owned(),
        description,
        priority: column.int(&["priority"]).and_then(|n| i32::try_from(n).ok()).unwrap_or_default(),
        path: JsonPath::parse(path)?,
    })
}

/// All columns as a table declares them.
pub(crate) fn declare(columns: &[PrinterColumn]) -> Vec<Column> {
    let name = Column {
        name: "Name".into(),
        ty: "string".into(),
        format: "name".into(),
        description: NAME.into(),
        priority: 0,
    };
    let others = columns.iter().map(|column| Column {
        name: column.name.clone().into(),
        ty: column.ty.clone().into(),
        format: column.format.clone().into(),
        description: column.description.clone().into(),
        priority: column.priority,
    });
    std::iter::once(name).chain(others).collect()
}

/// The cells of an object.
pub(crate) fn cells(columns: &[PrinterColumn], object: &Value, now: Timestamp) -> Vec<Value> {
    let others = columns.iter().map(|column| {
        let value = column.path.find(object).first().copied();
        value.map_or(Value::Null, |value| cell(&column.ty, value, now))
    });
    std::iter::once(object.name().into()).chain(others).collect()
}

fn cell(ty: &str, value: &Value, now: Timestamp) -> Value {
    match (ty, value) {
        ("string", value) => print(value).into(),
        ("integer", Value::Number(number)) => {
            // A fraction is cut off.
            #[allow(clippy::cast_possible_truncation)]
            let whole = number.as_i64().or_else(|| number.as_f64().map(|n| n as i64));
            whole.map_or(Value::Null, Value::from)
        }
        ("number", Value::Number(number)) => Value::Number(number.clone()),
        ("boolean", Value::Bool(truth)) => (*truth).into(),
        ("date", Value::String(text)) if text.parse::<Timestamp>().is_err() => "<invalid>".into(),
        ("date", Value::String(text)) => printer::since(text, now).into(),
        _ => Value::Null,
    }
}

/// A value as a text column shows it.
fn print(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => go_float(number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}
