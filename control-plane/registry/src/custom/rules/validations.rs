//! The validation rules of a schema (`x-kubernetes-validations`): what they say, that they compile, and
//! what they may cost.

use serde_json::Value;
use skep_api::field::{Error, ErrorList, Path};
use skep_api::object::ObjectExt;
use skep_cel::{ESTIMATED_LIMIT, ESTIMATED_TOTAL_LIMIT};

use crate::custom::cel;

/// Schemas nest no deeper.
const DEEPEST: usize = 100;

/// Rules below this share of the whole are not told of when the whole costs too much.
const NOTABLE: u64 = ESTIMATED_TOTAL_LIMIT / 100;

const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// What is known at a place.
#[derive(Clone)]
struct At {
    path: Path,
    /// How often the place may occur; `None` where nothing bounds it.
    times: Option<u64>,
    /// The place above whose old value can't be found again.
    lost: Option<Path>,
    root: bool,
}

/// What all rules cost.
#[derive(Default)]
struct Total {
    cost: u64,
    rules: Vec<(Path, u64)>,
}

/// Every error of the rules. `unchanged`: the schema is as it was, and costs what it did.
pub(super) fn validate(schema: &Value, path: &Path, unchanged: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut total = Total::default();
    let at = At { path: path.clone(), times: Some(1), lost: None, root: true };
    walk(schema, &at, unchanged, 0, &mut total, &mut errors);
    if total.cost > ESTIMATED_TOTAL_LIMIT {
        total.rules.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        for (path, _) in total.rules.iter().take(4) {
            let detail =
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            errors.push(Error::forbidden(path, detail));
        }
        let name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.push(Error::forbidden(path, too_dear(name, total.cost, ESTIMATED_TOTAL_LIMIT)));
    }
    errors
}

fn walk(schema: &Value, at: &At, unchanged: bool, depth: usize, total: &mut Total, errors: &mut ErrorList) {
    if depth > DEEPEST || !schema.is_object() {
        return;
    }
    rules(schema, at, unchanged, total, errors);
    let below = |path: Path, bound: Option<u64>, lost: bool| At {
        path,
        times: at.times.zip(bound).map(|(times, bound)| times.saturating_mul(bound)),
        lost: at.lost.clone().or_else(|| lost.then(|| at.path.clone())),
        root: false,
    };
    for (name, inner) in schema.map(&["properties"]).into_iter().flatten() {
        let at = below(at.path.child("properties").key(name), Some(1), false);
        walk(inner, &at, unchanged, depth + 1, total, errors);
    }
    if let Some(inner) = schema.get("additionalProperties") {
        let bound = schema.get("maxProperties").and_then(Value::as_u64);
        let at = below(at.path.child("additionalProperties"), bound, false);
        walk(inner, &at, unchanged, depth + 1, total, errors);
    }
    if let Some(inner) = schema.get("items") {
        let bound = schema.get("maxItems").and_then(Value::as_u64);
        let lost = schema.text(&["x-kubernetes-list-type"]) != "map";
        let at = below(at.path.child("items"), bound, lost);
        walk(inner, &at, unchanged, depth + 1, total, errors);
    }
}

fn rules(schema: &Value, at: &At, unchanged: bool, total: &mut Total, errors: &mut ErrorList) {
    let rules = schema.items(&["x-kubernetes-validations"]);
    if rules.is_empty() {
        return;
    }
    let path = at.path.child("x-kubernetes-validations");
    let before = errors.len();
    for (index, rule) in rules.iter().enumerate() {
        words(schema, rule, &path.index(index), errors);
    }
    if errors.len() > before {
        return;
    }
    let Some(seen) = cel::schema_of(schema, at.root) else {
        let detail = "internal error: failed to retrieve type information for x-kubernetes-validations";
        return errors.push(Error::internal(&path, detail));
    };
    let times = at.times.unwrap_or_else(|| seen.max_cardinality());
    for (index, (rule, compiled)) in rules.iter().zip(cel::compile(schema, &seen)).enumerate() {
        let path = path.index(index);
        match &compiled.program {
            Ok(program) => {
                let cost = program.cost().max.saturating_mul(times);
                let here = path.child("rule");
                if !unchanged && cost > ESTIMATED_LIMIT {
                    errors.push(Error::forbidden(
                        &here,
                        too_dear("estimated rule cost", cost, ESTIMATED_LIMIT),
                    ));
                }
                total.add(&here, cost);
            }
            Err(detail) => errors.push(Error::invalid(&path.child("rule"), rule.clone(), detail.clone())),
        }
        match &compiled.message_program {
            Some(Ok(program)) => {
                let cost = program.cost().max;
                let here = path.child("messageExpression");
                if !unchanged && cost > ESTIMATED_LIMIT {
                    let detail = too_dear("estimated messageExpression cost", cost, ESTIMATED_LIMIT);
                    errors.push(Error::forbidden(&here, detail));
                }
                total.add(&here, cost);
            }
            Some(Err(detail)) if compiled.program.is_ok() => {
                errors.push(Error::invalid(&path.child("messageExpression"), rule.clone(), detail.clone()));
            }
            _ => {}
        }
        if compiled.is_transition() {
            if let Some(lost) = &at.lost {
                let detail = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within {lost}"
                );
                errors.push(Error::invalid(&path.child("rule"), rule.text(&["rule"]), detail));
            }
        } else if let Some(optional) = rule.get("optionalOldSelf").and_then(Value::as_bool) {
            let detail = "may not be set if oldSelf is not used in rule";
            errors.push(Error::invalid(&path.child("optionalOldSelf"), optional, detail));
        }
    }
}

impl Total {
    fn add(&mut self, path: &Path, cost: u64) {
        self.cost = self.cost.saturating_add(cost);
        if cost >= NOTABLE {
            self.rules.push((path.clone(), cost));
        }
    }
}

/// What a rule says beside its expression.
fn words(schema: &Value, rule: &Value, path: &Path, errors: &mut ErrorList) {
    let lines = |text: &str| text.contains(['\n', '\r']);
    let given = |name: &str| rule.get(name).and_then(Value::as_str).unwrap_or_default();
    let (text, message) = (given("rule").trim(), given("message"));
    if text.is_empty() {
        errors.push(Error::required(&path.child("rule"), "rule is not specified"));
    } else if !message.is_empty() && message.trim().is_empty() {
        errors.push(Error::invalid(&path.child("message"), message, "must be non-empty if specified"));
    } else if lines(message.trim()) {
        errors.push(Error::invalid(&path.child("message"), message, "must not contain line breaks"));
    } else if lines(text) && message.is_empty() {
        let detail = "message must be specified if rule contains line breaks";
        errors.push(Error::required(&path.child("message"), detail));
    }
    let expression = given("messageExpression");
    if !expression.is_empty() && expression.trim().is_empty() {
        let detail = "messageExpression must be non-empty if specified";
        errors.push(Error::required(&path.child("messageExpression"), detail));
    }
    if let Some(reason) =
        rule.get("reason").and_then(Value::as_str).filter(|reason| !REASONS.contains(reason))
    {
        errors.push(Error::not_supported(&path.child("reason"), reason, &REASONS));
    }
    let field = given("fieldPath");
    if !field.is_empty() {
        let here = path.child("fieldPath");
        if field.trim().is_empty() {
            errors.push(Error::invalid(&here, field, "must be non-empty if specified"));
        }
        if lines(field) {
            errors.push(Error::invalid(&here, field, "must not contain line breaks"));
        }
        if cel::steps(schema, field.trim()).is_none() {
            errors.push(Error::invalid(&here, field, "must be a valid path"));
        }
    }
}

/// In how many words a cost is too high.
#[allow(clippy::cast_precision_loss)] // a factor for people
fn too_dear(name: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{name} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, \
         and maxLength where arrays, maps, and strings are declared)"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(spec: &Value) -> Vec<String> {
        let schema = json!({"type": "object", "properties": {"spec": spec}});
        validate(&schema, &Path::new("s"), false).lines()
    }

    #[test]
    fn rules_must_compile_and_be_cheap() {
        let fine = json!({"type": "object", "properties": {"a": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.a > 0", "message": "positive"}]});
        assert_eq!(lines(&fine), Vec::<String>::new());
        let wrong = json!({"type": "object", "properties": {"a": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.b > 0"}]});
        let found = lines(&wrong);
        assert!(
            found[0].starts_with("s.properties[spec].x-kubernetes-validations[0].rule: Invalid value")
                && found[0].contains("compilation failed"),
            "{found:?}"
        );
        let dear = json!({"type": "array", "items": {"type": "array", "items": {"type": "string",
            "x-kubernetes-validations": [{"rule": "self.matches('a+b')"}]}}});
        let found = lines(&dear);
        assert!(found[0].contains("estimated rule cost exceeds budget by factor of"), "{found:?}");
        let lost = json!({"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 3,
            "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}});
        let found = lines(&lost);
        assert!(
            found[0].ends_with(
                "oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[spec]"
            ),
            "{found:?}"
        );
    }

    #[test]
    fn words_are_checked() {
        let spec = json!({"type": "string", "maxLength": 3, "x-kubernetes-validations": [
            {"rule": " "}, {"rule": "true", "message": "a\nb"}, {"rule": "true", "reason": "Bad"},
            {"rule": "true", "fieldPath": ".x"},
        ]});
        let found = lines(&spec);
        assert!(found[0].ends_with("[0].rule: Required value: rule is not specified"), "{found:?}");
        assert!(found[1].ends_with("must not contain line breaks"), "{found:?}");
        assert!(found[2].contains("reason: Unsupported value: \"Bad\""), "{found:?}");
        assert!(found[3].ends_with("fieldPath: Invalid value: \".x\": must be a valid path"), "{found:?}");
    }
}
