//! Running one expression.

use serde_json::{Value as Json, json};
use skep_cel::{Budget, Env, EvalError, Type, Value, Variables};

/// The object `x` of the tests.
pub(crate) fn object() -> Json {
    json!({
        "a": 1, "s": "text", "b": true, "n": null, "d": 1.5,
        "list": [3, 1, 2], "words": ["b", "a"],
        "m": {"k": "v", "a-b": 2, "nested": {"deep": [{"c": 7}]}},
    })
}

/// Compiles and evaluates; the outcome as text: the value as JSON, or the error.
pub(crate) fn run(text: &str) -> String {
    let env = Env::new()
        .with_variable("x", Type::Dyn)
        .with_variable("ints", Type::list(Type::Int))
        .with_variable("one.two", Type::String);
    let program = match env.compile(text) {
        Ok(program) => program,
        Err(errors) => return format!("COMPILE {errors}"),
    };
    let object = object();
    let variables = Variables::new()
        .with("x", Value::from_json(&object, None))
        .with("ints", Value::list(vec![Value::Int(3), Value::Int(1), Value::Int(2)]))
        .with("one.two", Value::from("both"));
    show(program.eval(&variables, &mut Budget::new(10_000_000)))
}

/// The outcome of an evaluation as text.
pub(crate) fn show(outcome: Result<Value<'_>, EvalError>) -> String {
    match outcome {
        Ok(Value::Uint(value)) => format!("{value}u"),
        Ok(Value::Double(value)) => format!("{value:?}"),
        Ok(Value::Bytes(bytes)) => format!("{bytes:?}"),
        Ok(Value::Type(name)) => format!("type {name}"),
        Ok(Value::Optional(None)) => "none".to_owned(),
        Ok(Value::Optional(Some(inner))) => format!("some {}", show(Ok((*inner).clone()))),
        Ok(value) => value.to_json().map_or_else(|error| format!("NO JSON {error}"), |json| json.to_string()),
        Err(error) => format!("ERROR {error}"),
    }
}

/// Each expression has its outcome.
pub(crate) fn table(cases: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (text, want) in cases {
        let got = run(text);
        // Errors of compilation show the text as well; the first line says what matters.
        let got =
            if want.starts_with("COMPILE") { got.lines().next().unwrap_or_default().to_owned() } else { got };
        let same = match want.strip_suffix("...") {
            Some(start) => got.starts_with(start),
            None => got == *want,
        };
        if !same {
            wrong.push(format!("{text}\n  want {want}\n  got  {got}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
