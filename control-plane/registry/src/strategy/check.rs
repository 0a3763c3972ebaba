//! Small combinators for validation: a cursor that knows its path and collects every error.
//!
//! Invariants: a cursor over a missing field is as good as one over a field (it reads as empty), so checks
//! need no case for absence; no check stops the others.

use std::cell::RefCell;

use serde_json::Value;
use skep_api::field::{Error, ErrorList, Path};
use skep_api::quantity::Quantity;
use skep_api::selector::LabelSelector;

static NULL: Value = Value::Null;

/// A place in an object under validation.
#[derive(Clone)]
pub struct At<'a> {
    value: &'a Value,
    path: Path,
    errors: &'a RefCell<ErrorList>,
}

/// Runs checks over an object and returns what they found.
pub fn check(object: &Value, checks: impl FnOnce(&At<'_>)) -> ErrorList {
    let errors = RefCell::new(ErrorList::new());
    checks(&At { value: object, path: Path::root(), errors: &errors });
    errors.into_inner()
}

impl<'a> At<'a> {
    /// The value here, null when absent.
    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// The path to here.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A field.
    pub fn child(&self, name: &str) -> At<'a> {
        let value = self.value.get(name).unwrap_or(&NULL);
        At { value, path: self.path.child(name), errors: self.errors }
    }

    /// A field of a field.
    pub fn down(&self, names: &[&str]) -> At<'a> {
        names.iter().fold(self.clone(), |at, name| at.child(name))
    }

    /// The items of a list.
    pub fn items(&self) -> Vec<At<'a>> {
        let items = self.value.as_array().map(Vec::as_slice).unwrap_or_default();
        let at = |(index, value)| At { value, path: self.path.index(index), errors: self.errors };
        items.iter().enumerate().map(at).collect()
    }

    /// The entries of a map.
    pub fn entries(&self) -> Vec<(&'a str, At<'a>)> {
        let Some(map) = self.value.as_object() else { return Vec::new() };
        let at = |(key, value): (&'a String, &'a Value)| {
            (key.as_str(), At { value, path: self.path.key(key), errors: self.errors })
        };
        map.iter().map(at).collect()
    }

    /// The string here, empty when there is none.
    pub fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    /// The integer here.
    pub fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// The boolean here, false when there is none.
    pub fn flag(&self) -> bool {
        self.value.as_bool().unwrap_or(false)
    }

    /// Whether there is a value, be it empty.
    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// Whether there is nothing: absent, or an empty string, list or map.
    pub fn is_empty(&self) -> bool {
        is_empty(self.value)
    }

    /// Records an error.
    pub fn error(&self, error: Error) {
        self.errors.borrow_mut().push(error);
    }

    /// Records what another check found.
    pub fn errors(&self, errors: ErrorList) {
        self.errors.borrow_mut().extend(errors);
    }

    /// The value is malformed.
    pub fn invalid(&self, detail: impl Into<String>) {
        self.error(Error::invalid(&self.path, self.value.clone(), detail));
    }

    /// A value must be given.
    pub fn required(&self, detail: impl Into<String>) {
        self.error(Error::required(&self.path, detail));
    }

    /// The value is not allowed here.
    pub fn forbidden(&self, detail: impl Into<String>) {
        self.error(Error::forbidden(&self.path, detail));
    }

    /// Another item has this value.
    pub fn duplicate(&self) {
        self.error(Error::duplicate(&self.path, self.value.clone()));
    }

    /// What the value names does not exist.
    pub fn not_found(&self) {
        self.error(Error::not_found(&self.path, self.value.clone()));
    }

    /// An entry of a map.
    pub fn entry(&self, key: &str) -> At<'a> {
        let value = self.value.get(key).unwrap_or(&NULL);
        At { value, path: self.path.key(key), errors: self.errors }
    }

    /// Another value, told at this path: a part of the one here.
    pub fn with_value<'b>(&self, value: &'b Value) -> At<'b>
    where
        'a: 'b,
    {
        At { value, path: self.path.clone(), errors: self.errors }
    }

    /// The same value, told at another path. Some of upstream's paths are not where the value is.
    pub fn told_at(&self, path: Path) -> At<'a> {
        At { path, ..self.clone() }
    }

    /// Complains about each text; a string that is absent is told as empty.
    pub fn invalid_text(&self, details: Vec<String>) {
        for detail in details {
            self.error(Error::invalid(&self.path, self.text(), detail));
        }
    }

    /// Complains about each text.
    pub fn invalid_all(&self, details: Vec<String>) {
        for detail in details {
            self.invalid(detail);
        }
    }

    /// Must not be empty. Says whether it is not.
    pub fn require(&self) -> bool {
        self.require_with("")
    }

    /// Must not be empty, with more words. Says whether it is not.
    pub fn require_with(&self, detail: &str) -> bool {
        if self.is_empty() {
            self.required(detail);
        }
        !self.is_empty()
    }

    /// If present, must be one of these.
    pub fn one_of(&self, supported: &[&str]) {
        if !self.is_empty() && !supported.contains(&self.text()) {
            self.error(Error::not_supported(&self.path, self.value.clone(), supported));
        }
    }

    /// Must be present and one of these.
    pub fn require_one_of(&self, supported: &[&str]) {
        if self.require() {
            self.one_of(supported);
        }
    }

    /// If present, must follow a grammar.
    pub fn named(&self, grammar: fn(&str) -> Vec<String>) {
        if !self.is_empty() {
            self.invalid_all(grammar(self.text()));
        }
    }

    /// Must be present and follow a grammar.
    pub fn require_named(&self, grammar: fn(&str) -> Vec<String>) {
        if self.require() {
            self.named(grammar);
        }
    }

    /// If present, must be 0 or more.
    pub fn non_negative(&self) {
        if self.int().is_some_and(|n| n < 0) {
            self.invalid("must be greater than or equal to 0");
        }
    }

    /// If present, must be 1 or more.
    pub fn positive(&self) {
        if self.int().is_some_and(|n| n <= 0) {
            self.invalid("must be greater than 0");
        }
    }

    /// If present, must lie between these, inclusive.
    pub fn within(&self, low: i64, high: i64) {
        if self.int().is_some_and(|n| n < low || n > high) {
            self.invalid(skep_api::names::range(low, high));
        }
    }

    /// If present, must equal what was there before.
    pub fn immutable(&self, old: &Value) {
        self.immutable_with(old, "field is immutable");
    }

    /// If changed, complains in these words.
    pub fn immutable_with(&self, old: &Value, detail: &str) {
        if !same(self.value, old) {
            self.invalid(detail);
        }
    }

    /// The quantity here; complains if there is text that is none.
    pub fn quantity(&self) -> Option<Quantity> {
        let text = match self.value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        match text.parse() {
            Ok(quantity) => Some(quantity),
            Err(error) => {
                self.invalid(error.to_string());
                None
            }
        }
    }

    /// A map of labels.
    pub fn labels(&self) {
        for (key, value) in self.entries() {
            for detail in skep_api::names::qualified_name(key) {
                self.error(Error::invalid(&self.path, key, detail));
            }
            for detail in skep_api::names::label_value(value.text()) {
                self.error(Error::invalid(&self.path, value.value().clone(), detail));
            }
        }
    }

    /// A `metav1.LabelSelector`.
    pub fn selector(&self) {
        self.child("matchLabels").labels();
        for expression in self.child("matchExpressions").items() {
            let values = expression.child("values");
            let operator = expression.child("operator");
            match operator.text() {
                "In" | "NotIn" if values.is_empty() => {
                    values.required("must be specified when `operator` is 'In' or 'NotIn'");
                }
                "Exists" | "DoesNotExist" if !values.is_empty() => {
                    values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
                _ => operator.invalid("not a valid selector operator"),
            }
            let key = expression.child("key");
            key.invalid_all(skep_api::names::qualified_name(key.text()));
            for value in values.items() {
                value.invalid_all(skep_api::names::label_value(value.text()));
            }
        }
    }

    /// The selector here, parsed; complains when it is malformed.
    pub fn parse_selector(&self) -> Option<LabelSelector> {
        match LabelSelector::from_object(Some(self.value)) {
            Ok(selector) => Some(selector),
            Err(_) => {
                self.invalid("invalid label selector");
                None
            }
        }
    }
}

/// Absent, or an empty string, list or map.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Equal in meaning: null, empty lists and empty maps are as good as absent.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(left), Value::Object(right)) => {
            let one_way = left.iter().all(|(key, value)| same(value, right.get(key).unwrap_or(&NULL)));
            one_way && right.iter().all(|(key, value)| left.contains_key(key) || is_empty(value))
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(a, b)| same(a, b))
        }
        _ => a == b || (is_empty(a) && is_empty(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_error_is_collected_with_its_path() {
        let object = json!({"spec": {"n": -1, "type": "X", "list": [{"name": ""}, {"name": "A"}]}});
        let errors = check(&object, |root| {
            let spec = root.child("spec");
            spec.child("n").non_negative();
            spec.child("type").one_of(&["Y"]);
            spec.child("gone").require();
            for item in spec.child("list").items() {
                item.child("name").require_named(skep_api::names::dns1035_label);
            }
        });
        let lines = errors.lines();
        assert_eq!(lines[0], "spec.n: Invalid value: -1: must be greater than or equal to 0");
        assert_eq!(lines[1], r#"spec.type: Unsupported value: "X": supported values: "Y""#);
        assert_eq!(lines[2], "spec.gone: Required value");
        assert_eq!(lines[3], "spec.list[0].name: Required value");
        assert!(lines[4].starts_with(r#"spec.list[1].name: Invalid value: "A": a DNS-1035 label"#));
    }

    #[test]
    fn absent_and_empty_are_the_same() {
        assert!(same(&json!({"a": [], "b": 1}), &json!({"b": 1, "c": null})));
        assert!(!same(&json!({"a": 1}), &json!({})));
        assert!(!same(&json!([1]), &json!([1, 2])));
        assert!(!same(&json!({"a": false}), &json!({})));
    }
}
