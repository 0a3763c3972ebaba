//! Estimated and actual costs, and their limits.

use std::sync::Arc;

use serde_json::json;
use skep_cel::{Budget, Env, EvalError, Schema, SchemaOptions, Type, Value, Variables};

fn schema() -> Arc<Schema> {
    let structural = json!({"type": "object", "properties": {
        "i": {"type": "integer"},
        "s": {"type": "string", "maxLength": 100},
        "long": {"type": "string"},
        "list": {"type": "array", "maxItems": 10, "items": {"type": "integer"}},
        "words": {"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 5}},
        "free": {"type": "array", "items": {"type": "string"}},
        "m": {"type": "object", "maxProperties": 4, "additionalProperties": {"type": "string", "maxLength": 10}},
        "o": {"type": "object", "properties": {"a": {"type": "integer"}}},
    }});
    Arc::new(Schema::from_structural(&structural, "self", SchemaOptions::default()).unwrap())
}

#[test]
fn costs() {
    let schema = schema();
    let env = Env::new().with_schema("self", Arc::clone(&schema));
    let object = json!({
        "i": 3, "s": "abcdefghij", "list": [1, 2, 3], "words": ["a", "b"], "m": {"k": "v"}, "o": {"a": 1},
    });
    let mut wrong = Vec::new();
    for (text, min, max, actual) in [
        ("true", 0, 0, 0),
        ("self.i == 3", 2, 2, 3),
        ("self.o.a > 1", 4, 4, 4),
        ("has(self.s)", 1, 1, 1),
        ("self.i > 1 && self.i < 5", 3, 6, 6),
        ("self.i > 1 || self.i < 5", 3, 6, 3),
        ("self.i > 1 ? self.i : 2", 3, 5, 5),
        ("self.list.all(i, i > 0)", 3, 53, 18),
        ("self.list.map(i, i)", 13, 143, 42),
        ("self.s.startsWith('ab')", 3, 3, 3),
        ("self.s.contains('ab')", 2, 42, 3),
        ("self.s.matches('^a')", 3, 43, 4),
        ("self.s + 'b'", 3, 43, 4),
        ("'b' in self.words", 2, 12, 4),
        ("self.i in [1, 2, 3]", 15, 15, 2),
        ("self.list.sum() > 1", 3, 13, 6),
        ("[self.i, 2].size()", 13, 13, 13),
        ("{'a': self.i}.size()", 33, 33, 33),
        ("self.m.all(k, k == 'k')", 3, 19, 8),
        ("self.words.join(',')", 2, 23, 3),
        ("self.s.lowerAscii()", 2, 42, 3),
        ("self.list[0] == 1", 3, 3, 4),
    ] {
        let program = env.compile(text).unwrap_or_else(|errors| panic!("{text}: {errors}"));
        let estimated = (program.cost().min, program.cost().max);
        let variables = Variables::new().with("self", Value::from_json(&object, Some(&schema)));
        let mut budget = Budget::new(1000);
        program.eval(&variables, &mut budget).unwrap_or_else(|error| panic!("{text}: {error}"));
        let got = (estimated, 1000 - budget.remaining());
        if got != ((min, max), actual) {
            wrong.push(format!("{text}: {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_not_bounded_is_estimated_to_be_too_dear() {
    let env = Env::new().with_schema("self", schema());
    let cost = |text: &str| env.compile(text).unwrap().cost().max;
    assert!(cost("self.free.all(a, self.free.all(b, a != b))") > skep_cel::ESTIMATED_LIMIT);
    assert!(cost("self.words.all(a, self.words.all(b, a != b))") < 1000);
    assert!(cost("self.long.matches('^[a-z]+$')") < skep_cel::ESTIMATED_LIMIT);
}

#[test]
fn limits_stop_evaluation() {
    let env = Env::new().with_variable("x", Type::Dyn);
    let run = |text: &str, total: u64| {
        let mut budget = Budget::new(total);
        let outcome = env.compile(text).unwrap().eval(&Variables::new(), &mut budget);
        (outcome.map(|_| ()), budget.remaining())
    };
    let loops = "lists.range(1000).all(a, lists.range(1000).all(b, a + b >= 0))";
    let (outcome, left) = run(loops, 10_000_000);
    assert_eq!(outcome, Err(EvalError::CostLimit));
    assert!((8_900_000..9_000_000).contains(&left), "{left}");
    // Not even `||` absorbs it.
    assert_eq!(run(&format!("{loops} || true"), 10_000_000).0, Err(EvalError::CostLimit));
    assert_eq!(run("lists.range(100).size() > 0", 10).0, Err(EvalError::Budget));
    assert_eq!(run("lists.range(100).size() > 0", 10).1, 0);
    // Text that grows faster than it costs.
    let grown = "[1, 2, 3, 4, 5, 6].map(i, 'x'.replace('', 'yyyyyyyyyy'))";
    assert_eq!(run(grown, 10_000_000).0, Ok(()));
    let huge =
        "optional.of(lists.range(100000).map(i, 'abcdefghij').join()).optMap(s, s.replace('', s)).hasValue()";
    assert!(run(huge, 10_000_000).0.is_err());
}
