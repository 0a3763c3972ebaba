//! Columns of tables and the cells they share: ages, label lists, containers.

use jiff::Timestamp;
use serde_json::{Map, Value};
use skep_api::duration;
use skep_api::object::ObjectExt;
use skep_api::selector::LabelSelector;

/// One column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading; kubectl prints it in capitals.
    pub name: &'static str,
    /// `string`, `integer`, `boolean` or `date`.
    pub kind: &'static str,
    /// `name` for the column that names the object, else empty.
    pub format: &'static str,
    /// What the column shows.
    pub description: &'static str,
    /// 0 is always shown, 1 in the wide form only.
    pub priority: i32,
}

/// The name of the object.
pub const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
    priority: 0,
};

/// Time since creation.
pub const AGE: Column = Column { description: CREATION, ..text("Age") };

/// What upstream says of the creation time.
const CREATION: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// Time of creation.
pub const CREATED: Column =
    Column { name: "Created At", kind: "date", format: "", description: CREATION, priority: 0 };

/// A column of text.
pub const fn text(name: &'static str) -> Column {
    Column { name, kind: "string", format: "", description: name, priority: 0 }
}

/// A column of integers.
pub const fn integer(name: &'static str) -> Column {
    Column { name, kind: "integer", format: "", description: name, priority: 0 }
}

/// A column of booleans.
pub const fn boolean(name: &'static str) -> Column {
    Column { name, kind: "boolean", format: "", description: name, priority: 0 }
}

/// A column of text in the wide form only.
pub const fn wide(name: &'static str) -> Column {
    Column { name, kind: "string", format: "", description: name, priority: 1 }
}

/// What kinds without a table of their own show.
pub static PLAIN: &[Column] = &[NAME, CREATED];

/// The row of [`PLAIN`].
pub fn plain(object: &Value) -> Vec<Value> {
    vec![object.name().into(), object.at(&["metadata", "creationTimestamp"]).cloned().unwrap_or(Value::Null)]
}

/// Time since a timestamp in RFC 3339.
pub fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => duration::human(now.as_second() - time.as_second()),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// Time since creation.
pub fn age(object: &Value, now: Timestamp) -> Value {
    since(object.creation_timestamp().unwrap_or_default(), now).into()
}

/// The text, or a placeholder for none.
pub fn or<'a>(text: &'a str, placeholder: &'a str) -> &'a str {
    if text.is_empty() { placeholder } else { text }
}

/// `a=b,c=d`, or `<none>`.
pub fn labels(map: Option<&Map<String, Value>>) -> String {
    match map {
        Some(map) if !map.is_empty() => {
            let mut pairs: Vec<String> =
                map.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
            pairs.sort();
            pairs.join(",")
        }
        _ => "<none>".to_owned(),
    }
}

/// A `metav1.LabelSelector` as text, or `<none>`.
pub fn selector(selector: Option<&Value>) -> String {
    match LabelSelector::from_object(selector) {
        Ok(parsed) => or(&parsed.to_string(), "<none>").to_owned(),
        Err(_) => "<error>".to_owned(),
    }
}

/// Names and images of the containers of a pod template.
pub fn containers(template: &Value) -> [Value; 2] {
    let items = template.items(&["spec", "containers"]);
    ["name", "image"].map(|field| {
        let texts: Vec<&str> = items.iter().map(|c| c.text(&[field])).collect();
        texts.join(",").into()
    })
}

/// An integer, 0 when absent.
pub fn count(object: &Value, path: &[&str]) -> Value {
    object.int(path).unwrap_or(0).into()
}

/// An `IntOrString` as text.
pub fn int_or_string(value: Option<&Value>, placeholder: &str) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => placeholder.to_owned(),
    }
}

/// The first items of a list, and how many more there are.
pub fn first(items: &[String], max: usize) -> String {
    if items.len() > max {
        format!("{} + {} more...", items[..max].join(","), items.len() - max)
    } else {
        items.join(",")
    }
}
