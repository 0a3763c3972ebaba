//! Defaults in the schema of a version: they are valid by the schema and its rules, and hold nothing that
//! would be pruned.

use serde_json::Value;
use skep_api::field::{Error, ErrorList, Path};
use skep_api::object::ObjectExt;
use skep_cel::Budget;

use crate::custom::cel::Place;
use crate::custom::meta::{self, Malformed};
use crate::custom::schema::Schema;
use crate::custom::{prune, validate};

/// Schemas nest no deeper.
const DEEPEST: usize = 256;

/// The check of all defaults of one schema.
pub(super) struct Defaults<'e> {
    /// Unknown fields are errors.
    pub(super) pruned: bool,
    /// What the rules of all of them may cost.
    pub(super) budget: Budget,
    pub(super) errors: &'e mut ErrorList,
}

impl Defaults<'_> {
    /// Checks the default of a place and those below. `root`: the place is a whole resource.
    pub(super) fn walk(&mut self, schema: &Value, path: &Path, root: bool, depth: usize) {
        // Once the costs are used up nothing more is checked.
        if depth > DEEPEST || self.budget.remaining() == 0 {
            return;
        }
        if let Some(default) = schema.get("default").filter(|value| !value.is_null()) {
            let found = self.check(schema, default, &path.child("default"), root);
            self.errors.extend(found);
        }
        if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
            self.walk(items, &path.child("items"), false, depth + 1);
        }
        for (name, inner) in schema.map(&["properties"]).into_iter().flatten() {
            self.walk(inner, &path.child("properties").key(name), false, depth + 1);
        }
    }

    fn check(&mut self, schema: &Value, default: &Value, here: &Path, root: bool) -> ErrorList {
        let parsed = Schema::parse(schema);
        let mut errors = ErrorList::new();
        let mut tidy = default.clone();
        let unknown = prune::prune_value(&mut tidy, &parsed);
        if self.pruned && !unknown.is_empty() {
            errors.push(Error::invalid(here, default.clone(), "must not have unknown fields"));
        }
        if let Err(mut error) = meta::coerce(&mut tidy, &parsed, Malformed::Refuse) {
            error.field = here.child(error.field.as_str());
            errors.push(error);
            return errors;
        }
        let mut found = meta::validate(default, &parsed);
        for error in &mut found.0 {
            error.field = here.child(error.field.as_str());
        }
        if found.is_empty() {
            found = validate::validate(default, None, &parsed, here);
        }
        let resource = root || schema.flag(&["x-kubernetes-embedded-resource"]);
        if let Some(place) = Place::of_default(schema, resource).filter(|_| found.is_empty()) {
            found = place.check_default(default, here, &mut self.budget);
        }
        errors.extend(found);
        errors
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use skep_cel::OBJECT_BUDGET;

    use super::*;

    fn lines(spec: &Value) -> Vec<String> {
        let schema = json!({"type": "object", "properties": {"spec": spec}});
        let mut errors = ErrorList::new();
        let budget = Budget::new(OBJECT_BUDGET);
        Defaults { pruned: true, budget, errors: &mut errors }.walk(&schema, &Path::new("s"), true, 0);
        errors.lines()
    }

    #[test]
    fn rules_hold_for_defaults() {
        let with = |default: Value, rule: Value| {
            json!({"type": "object", "default": default, "properties": {
                "a": {"type": "integer"}, "m": {"type": "object", "additionalProperties": {"type": "integer"}},
            }, "x-kubernetes-validations": [rule]})
        };
        let positive = json!({"rule": "self.a > 0", "message": "a is positive"});
        assert_eq!(lines(&with(json!({"a": 1}), positive.clone())), Vec::<String>::new());
        assert_eq!(
            lines(&with(json!({"a": 0}), positive)),
            ["s.properties[spec].default: Invalid value: a is positive"]
        );
        // A rule that compares with what was there sees the default itself, unless it takes that for new.
        let fixed = json!({"rule": "self.a == oldSelf.a"});
        assert_eq!(lines(&with(json!({"a": 0}), fixed)), Vec::<String>::new());
        let first = json!({"rule": "oldSelf.hasValue() || self.a == 5", "optionalOldSelf": true, "message": "begins with 5"});
        assert_eq!(lines(&with(json!({"a": 5}), first.clone())), Vec::<String>::new());
        assert_eq!(
            lines(&with(json!({"a": 6}), first)),
            ["s.properties[spec].default: Invalid value: begins with 5"]
        );
        let placed = json!({"rule": "self.m.k == 1", "fieldPath": ".m.k", "reason": "FieldValueForbidden", "message": "no"});
        assert_eq!(
            lines(&with(json!({"m": {"k": 2}}), placed)),
            ["s.properties[spec].default.m[k]: Forbidden: no"]
        );
        // What the schema refuses is said first; rules are for what is left.
        let wrong = with(json!({"a": "x"}), json!({"rule": "self.a > 0"}));
        assert_eq!(lines(&wrong).len(), 1);
        assert!(lines(&wrong)[0].contains("must be of type integer"), "{:?}", lines(&wrong));
        let below = json!({"type": "object", "properties": {"n": {"type": "string", "default": "abc", "maxLength": 9,
            "x-kubernetes-validations": [{"rule": "self.startsWith('x')", "messageExpression": "'not ' + self"}]}}});
        assert_eq!(
            lines(&below),
            ["s.properties[spec].properties[n].default: Invalid value: \"abc\": not abc"]
        );
    }
}
