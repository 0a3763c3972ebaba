//! Validation rules (`x-kubernetes-validations`): compiled once for a schema, run over each object.
//!
//! Rules of a place see the value there as `self`; a rule that names `oldSelf` is a transition rule and
//! runs only where there is an old value to compare with, unless it takes an optional one. Costs are
//! estimated when a definition is made, and counted when rules run.

use std::sync::Arc;

use serde_json::Value;
use skep_api::field::{Error, ErrorList, ErrorType, Path};
use skep_api::object::ObjectExt;
use skep_cel::{
    Budget, Env, EvalError, MESSAGE_LIMIT, OBJECT_BUDGET, Program, Schema, SchemaOptions, Type, Variables,
};

use super::json_path::JsonPath;

/// Schemas nest no deeper.
const DEEPEST: usize = 100;

/// The name the value has in a rule, and begins the names of its types.
const SELF: &str = "self";
const OLD: &str = "oldSelf";

/// One rule, compiled.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) program: Result<Program, String>,
    /// Absent, compiled, or wrong.
    pub(crate) message_program: Option<Result<Program, String>>,
    /// What is said when it does not hold.
    message: String,
    /// What it is called in errors.
    text: String,
    reason: String,
    /// Where below the place the error is, by properties and keys of maps.
    field: Vec<Step>,
    optional: bool,
}

/// One step of a `fieldPath`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Property(String),
    Key(String),
}

impl Rule {
    /// Does it compare with what was there?
    pub(crate) fn is_transition(&self) -> bool {
        self.program.as_ref().is_ok_and(|program| program.uses(OLD))
    }
}

/// The rules of one place, and of those below.
#[derive(Debug)]
pub(crate) struct Place {
    /// `None`: rules can't see such values.
    schema: Option<Arc<Schema>>,
    ty: String,
    rules: Vec<Rule>,
    properties: Vec<(String, Place)>,
    values: Option<Box<Place>>,
    items: Option<Box<Place>>,
    /// The keys by which elements are found again.
    keys: Option<Vec<String>>,
}

/// The schema rules of a place see.
pub(crate) fn schema_of(schema: &Value, root: bool) -> Option<Arc<Schema>> {
    let resource = root || schema.flag(&["x-kubernetes-embedded-resource"]);
    Schema::from_structural(schema, SELF, SchemaOptions { resource, open: false }).map(Arc::new)
}

/// Compiles the rules of one place.
pub(crate) fn compile(schema: &Value, seen: &Arc<Schema>) -> Vec<Rule> {
    let rules = schema.items(&["x-kubernetes-validations"]);
    if rules.is_empty() {
        return Vec::new();
    }
    let plain = Env::new().with_schema(SELF, seen.clone());
    let sudden = plain.clone().with_variable(OLD, Type::optional(seen.kind().clone()));
    let usual = plain.with_schema(OLD, seen.clone());
    rules
        .iter()
        .map(|rule| {
            let optional = rule.flag(&["optionalOldSelf"]);
            let env = if optional { &sudden } else { &usual };
            let text = rule.text(&["rule"]);
            let message = rule.text(&["message"]).trim();
            let name = if message.is_empty() { text.trim() } else { message };
            let expression = rule.text(&["messageExpression"]);
            Rule {
                program: program(
                    env,
                    text,
                    &Type::Bool,
                    "compilation failed",
                    "cel expression must evaluate to a bool",
                ),
                message_program: (!expression.is_empty()).then(|| {
                    let wrong = "messageExpression must evaluate to a string";
                    program(env, expression, &Type::String, "messageExpression compilation failed", wrong)
                }),
                message: if message.is_empty() { format!("failed rule: {name}") } else { message.to_owned() },
                text: name.to_owned(),
                reason: rule.text(&["reason"]).to_owned(),
                field: steps(schema, rule.text(&["fieldPath"]).trim()).unwrap_or_default(),
                optional,
            }
        })
        .collect()
}

fn program(env: &Env, text: &str, wanted: &Type, failed: &str, wrong: &str) -> Result<Program, String> {
    let program = env.compile(text).map_err(|errors| format!("{failed}: {errors}"))?;
    if program.kind() == wanted { Ok(program) } else { Err(wrong.to_owned()) }
}

impl Place {
    /// Compiles all rules of a schema; `None` when there are none.
    pub(crate) fn compile(schema: &Value) -> Option<Self> {
        Self::at(schema, true, 0)
    }

    fn at(schema: &Value, root: bool, depth: usize) -> Option<Self> {
        if depth > DEEPEST || !schema.is_object() {
            return None;
        }
        let below = |schema: &Value| Self::at(schema, false, depth + 1);
        let named = schema.map(&["properties"]).into_iter().flatten();
        let properties: Vec<_> =
            named.filter_map(|(name, schema)| Some((name.clone(), below(schema)?))).collect();
        let values = schema.get("additionalProperties").and_then(below).map(Box::new);
        let items = schema.get("items").and_then(below).map(Box::new);
        let has_rules = !schema.items(&["x-kubernetes-validations"]).is_empty();
        if !has_rules && properties.is_empty() && values.is_none() && items.is_none() {
            return None;
        }
        let seen = if has_rules { schema_of(schema, root) } else { None };
        let keys = schema.items(&["x-kubernetes-list-map-keys"]).iter().filter_map(Value::as_str);
        let keyed = schema.text(&["x-kubernetes-list-type"]) == "map";
        Some(Self {
            rules: seen.as_ref().map(|seen| compile(schema, seen)).unwrap_or_default(),
            schema: seen,
            ty: schema.text(&["type"]).to_owned(),
            properties,
            values,
            items,
            keys: keyed.then(|| keys.map(str::to_owned).collect()),
        })
    }

    /// Compiles the rules of the schema a default is for. `root`: it is that of a resource.
    pub(crate) fn of_default(schema: &Value, root: bool) -> Option<Self> {
        Self::at(schema, root, 0)
    }

    /// Runs the rules over a default: as a value that was there before, and as a new one, for rules may tell
    /// the two apart. The dearer of the two comes off the budget.
    pub(crate) fn check_default(&self, default: &Value, path: &Path, budget: &mut Budget) -> ErrorList {
        let run = |old: Option<&Value>, budget: &Budget| {
            let mut run = Run { budget: budget.clone(), ..Run::default() };
            self.walk(default, old, false, path, &mut run);
            run
        };
        let before = run(Some(default), budget);
        let mut errors = before.errors;
        let mut left = before.budget;
        if errors.is_empty() {
            let new = run(None, budget);
            errors = new.errors;
            if new.budget.remaining() < left.remaining() {
                left = new.budget;
            }
        }
        *budget = left;
        errors
    }

    /// Runs the rules over an object; what does not hold. Rules over a value that has not changed are not
    /// complained about: what holds it may be older than the rule.
    pub(crate) fn check(&self, object: &Value, old: Option<&Value>) -> ErrorList {
        let mut run = Run { ratchets: true, ..Run::default() };
        let unchanged = old.is_some_and(|old| old == object);
        self.walk(object, old, unchanged, &Path::root(), &mut run);
        run.errors
    }

    /// `unchanged`: the nearest value above that can be compared is what it was.
    fn walk(&self, value: &Value, old: Option<&Value>, unchanged: bool, path: &Path, run: &mut Run) {
        if value.is_null() || run.over {
            return;
        }
        self.run(value, old.filter(|old| !old.is_null()), unchanged, path, run);
        match value {
            Value::Object(map) => {
                if let Some(place) = &self.values {
                    for (name, value) in map {
                        let old = old.and_then(|old| old.get(name));
                        place.walk(value, old, same(value, old, unchanged), &path.key(name), run);
                    }
                }
                for (name, place) in &self.properties {
                    let Some(value) = map.get(name) else { continue };
                    let old = old.and_then(|old| old.get(name));
                    place.walk(value, old, same(value, old, unchanged), &path.child(name), run);
                }
            }
            Value::Array(items) => {
                let Some(place) = &self.items else { return };
                for (index, item) in items.iter().enumerate() {
                    let old = self.old_item(item, old);
                    place.walk(item, old, same(item, old, unchanged), &path.index(index), run);
                }
            }
            _ => {}
        }
    }

    /// The element of the old list with the same keys.
    fn old_item<'v>(&self, item: &Value, old: Option<&'v Value>) -> Option<&'v Value> {
        let keys = self.keys.as_ref()?;
        let same = |other: &&Value| keys.iter().all(|key| other.get(key) == item.get(key));
        old?.as_array()?.iter().find(same)
    }

    fn run(&self, value: &Value, old: Option<&Value>, unchanged: bool, path: &Path, run: &mut Run) {
        let Some(schema) = self.schema.as_deref().filter(|_| !self.rules.is_empty()) else { return };
        let this = skep_cel::Value::from_json(value, Some(schema));
        let before = old.map(|old| skep_cel::Value::from_json(old, Some(schema)));
        let plain = Variables::new().with(SELF, this);
        let usual = before.clone().map_or_else(|| plain.clone(), |before| plain.clone().with(OLD, before));
        let perhaps = before.map_or_else(|| skep_cel::Value::Optional(None), skep_cel::Value::some);
        let sudden = plain.with(OLD, perhaps);
        for rule in &self.rules {
            let program = match &rule.program {
                Ok(program) => program,
                Err(error) => {
                    run.errors.push(self.invalid(path, format!("rule compile error: {error}")));
                    continue;
                }
            };
            let transition = rule.is_transition();
            if transition && old.is_none() && !rule.optional {
                continue;
            }
            let variables = if rule.optional { &sudden } else { &usual };
            match program.eval(variables, &mut run.budget) {
                Ok(skep_cel::Value::Bool(true)) => continue,
                Ok(_) => {}
                Err(error) => {
                    self.failed(rule, &error, path, run);
                    if run.over {
                        return;
                    }
                    continue;
                }
            }
            let detail = match &rule.message_program {
                Some(Ok(program)) => message(program, variables, run),
                _ => None,
            };
            let error = self.broken(rule, value, detail.unwrap_or_else(|| rule.message.clone()), path);
            if transition || !unchanged || !run.ratchets {
                run.errors.push(error);
            }
        }
    }

    fn invalid(&self, path: &Path, detail: String) -> Error {
        Error::invalid(&named(path), self.ty.clone(), detail)
    }

    /// A rule that gave no answer.
    fn failed(&self, rule: &Rule, error: &EvalError, path: &Path, run: &mut Run) {
        let text = &rule.text;
        let detail = match error {
            EvalError::Budget => {
                run.over = true;
                error.to_string()
            }
            EvalError::CostLimit => {
                run.over = true;
                format!(
                    "'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {text}"
                )
            }
            _ if error.to_string().starts_with("no such overload") => format!(
                "'{error}': call arguments did not match a supported operator, function or macro signature for \
                 rule: {text}"
            ),
            _ => format!("{error} evaluating rule: {text}"),
        };
        run.errors.push(self.invalid(path, detail));
    }

    /// The error of a rule that does not hold.
    fn broken(&self, rule: &Rule, value: &Value, detail: String, path: &Path) -> Error {
        let path = rule.field.iter().fold(path.clone(), |path, step| match step {
            Step::Property(name) => path.child(name),
            Step::Key(name) => path.key(name),
        });
        let path = named(&path);
        match rule.reason.as_str() {
            "FieldValueForbidden" => Error::forbidden(&path, detail),
            "FieldValueRequired" => Error::required(&path, detail),
            "FieldValueDuplicate" => Error::duplicate(&path, value.clone()),
            _ => {
                let mut error = Error::invalid(&path, value.clone(), detail);
                // Objects and lists are too long to be shown.
                if matches!(self.ty.as_str(), "object" | "array") {
                    error.value = None;
                }
                error
            }
        }
    }
}

/// One run over one object.
struct Run {
    budget: Budget,
    errors: ErrorList,
    /// No rule is run any more.
    over: bool,
    /// What has not changed is not complained about.
    ratchets: bool,
}

impl Default for Run {
    fn default() -> Self {
        Self { budget: Budget::new(OBJECT_BUDGET), errors: ErrorList::new(), over: false, ratchets: false }
    }
}

/// A value that can't be compared is as unchanged as what is around it.
fn same(value: &Value, old: Option<&Value>, around: bool) -> bool {
    old.map_or(around, |old| old == value)
}

/// The original prints no path for the object itself.
fn named(path: &Path) -> Path {
    if path.as_str().is_empty() { Path::new("<nil>") } else { path.clone() }
}

/// What a message expression says, if that can be used.
fn message(program: &Program, variables: &Variables<'_>, run: &mut Run) -> Option<String> {
    match program.eval(variables, &mut run.budget) {
        Ok(value) => {
            let text = value.as_str()?.trim().to_owned();
            (!text.is_empty() && text.len() <= MESSAGE_LIMIT && !text.contains('\n')).then_some(text)
        }
        Err(error) => {
            run.over |= matches!(error, EvalError::Budget | EvalError::CostLimit);
            None
        }
    }
}

/// Are there errors that keep rules from being run?
pub(crate) fn has_blocking(errors: &ErrorList) -> bool {
    use ErrorType::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    errors.iter().any(|e| matches!(e.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid))
}

/// The error that stands for the rules that were not run.
pub(crate) fn unchecked() -> Error {
    let text = "some validation rules were not checked because the object was invalid; correct the existing errors \
                to complete validation";
    Error::invalid(&Path::new("<nil>"), Value::Null, text)
}

/// The steps of a path to a declared field; `None` when it leads to none.
pub(crate) fn steps(schema: &Value, path: &str) -> Option<Vec<Step>> {
    JsonPath::parse(path)?;
    let (mut here, mut rest, mut found) = (schema, path, Vec::new());
    while !rest.is_empty() {
        let (name, tail) = if let Some(tail) = rest.strip_prefix("['") {
            tail.split_once("']")?
        } else {
            let tail = rest.strip_prefix('.')?;
            tail.split_at(tail.find(['.', '[']).unwrap_or(tail.len()))
        };
        let inner = if let Some(inner) = here.at(&["properties", name]) {
            found.push(Step::Property(name.to_owned()));
            inner
        } else {
            found.push(Step::Key(name.to_owned()));
            here.get("additionalProperties").filter(|inner| inner.is_object())?
        };
        (here, rest) = (inner, tail);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place() -> Place {
        let schema = json!({"type": "object", "properties": {"spec": {
            "type": "object",
            "properties": {
                "min": {"type": "integer"}, "max": {"type": "integer"},
                "name": {"type": "string", "x-kubernetes-validations": [
                    {"rule": "self == oldSelf", "message": "name is immutable"},
                ]},
                "list": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 9,
                    "x-kubernetes-validations": [{"rule": "self.startsWith('a')"}]}},
            },
            "x-kubernetes-validations": [
                {"rule": "self.min <= self.max", "messageExpression": "'min %d is too large'.format([self.min])",
                 "fieldPath": ".min", "reason": "FieldValueForbidden"},
                {"rule": "oldSelf.hasValue() || self.min >= 0", "optionalOldSelf": true, "message": "not at first"},
            ],
        }}});
        Place::compile(&schema).expect("rules")
    }

    fn lines(old: Option<&Value>, new: &Value) -> Vec<String> {
        place().check(new, old).lines()
    }

    #[test]
    fn rules_hold_or_are_told_of() {
        let good = json!({"spec": {"min": 1, "max": 2, "name": "a", "list": ["ab"]}});
        assert_eq!(lines(None, &good), Vec::<String>::new());
        let bad = json!({"spec": {"min": 3, "max": 2, "list": ["b"]}});
        assert_eq!(
            lines(None, &bad),
            [
                "spec.min: Forbidden: min 3 is too large",
                "spec.list[0]: Invalid value: \"b\": failed rule: self.startsWith('a')",
            ]
        );
        let renamed = json!({"spec": {"min": 1, "max": 2, "name": "b", "list": ["ab"]}});
        assert_eq!(lines(Some(&good), &renamed), ["spec.name: Invalid value: \"b\": name is immutable"]);
        assert_eq!(
            lines(None, &json!({"spec": {"min": -1, "max": 2}})),
            ["spec: Invalid value: not at first"]
        );
    }

    #[test]
    fn what_has_not_changed_is_not_complained_about() {
        let old = json!({"spec": {"min": 3, "max": 2, "list": ["b"]}, "x": 1});
        let new = json!({"spec": {"min": 3, "max": 2, "list": ["b"]}, "x": 2});
        assert_eq!(lines(Some(&old), &new), Vec::<String>::new());
    }

    #[test]
    fn paths_of_fields() {
        let schema =
            json!({"type": "object", "properties": {"a.b": {"type": "object", "properties": {"c": {}}}}});
        assert!(steps(&schema, "['a.b'].c").is_some());
        assert!(steps(&schema, ".a").is_none());
    }
}
