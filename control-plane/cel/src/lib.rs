//! Kubernetes' expression language: CEL with the API server's libraries, checked before it runs and
//! bounded when it does.
//!
//! An [`Env`] declares variables; [`Env::compile`] parses and type-checks an expression, estimates its
//! cost, and gives a [`Program`]; [`Program::eval`] evaluates it over an [`Activation`] within a
//! [`Budget`]. Errors of compilation print as API clients know them.
//!
//! ```
//! use std::sync::Arc;
//! use serde_json::json;
//! use skep_cel::{Budget, Env, Schema, SchemaOptions, Value, Variables};
//!
//! let structural = json!({"type": "object", "properties": {"replicas": {"type": "integer"}}});
//! let schema = Schema::from_structural(&structural, "self", SchemaOptions::default()).unwrap();
//! let schema = Arc::new(schema);
//! let env = Env::new().with_schema("self", Arc::clone(&schema));
//! let program = env.compile("self.replicas <= 5").unwrap();
//!
//! let object = json!({"replicas": 3});
//! let variables = Variables::new().with("self", Value::from_json(&object, Some(&schema)));
//! let value = program.eval(&variables, &mut Budget::new(10_000_000)).unwrap();
//! assert!(matches!(value, Value::Bool(true)));
//! ```
//!
//! For the validation rules of a custom resource: build the [`Schema`] of the place once from its
//! structural schema; declare `self` and `oldSelf` with it (`oldSelf` of type
//! [`Type::optional`] under `optionalOldSelf`); [`Program::uses`] `oldSelf` makes a rule a transition
//! rule; [`Program::cost`] times how often the place may occur ([`Schema::max_elements`] of the lists and
//! maps above it, [`Schema::max_cardinality`] where nothing bounds them) goes against
//! [`ESTIMATED_LIMIT`] for a rule and [`ESTIMATED_TOTAL_LIMIT`] for a whole definition; evaluation takes
//! one [`Budget`] of [`OBJECT_BUDGET`] for a whole object. Values borrow the JSON they are made of, so binding `self` costs nothing.
//!
//! # Why not a library
//!
//! There are interpreters of CEL, but none checks types before it runs, knows the costs that decide which
//! expressions a cluster accepts, or reads objects through a structural schema; what would be left of one
//! is its parser. The parser here is bounded in length, nesting and the size of what macros expand to, and
//! everything after relies on that.

pub mod admission;
mod ast;
mod checker;
mod cost;
mod env;
mod escaping;
mod eval;
mod functions;
mod lexer;
mod library;
mod parser;
mod schema;
mod source;
mod types;
mod value;

pub use cost::Range as Cost;
pub use env::{Env, Program};
pub use escaping::{escape, is_reserved, unescape};
pub use eval::{Activation, Budget, EvalError, PER_CALL_LIMIT, Variables};
pub use library::authorizer;
pub use schema::{Options as SchemaOptions, Schema};
pub use source::{CompileErrors, Issue};
pub use types::{ObjectType, Type};
pub use value::{Key, Library, List, Map, Text, Value};

/// What the rules of one object may cost together when they run.
pub const OBJECT_BUDGET: u64 = 10_000_000;
/// What the match conditions of one webhook or policy may cost together when they run.
pub const MATCH_CONDITIONS_BUDGET: u64 = 2_500_000;
/// What one rule of a custom resource may be estimated to cost.
pub const ESTIMATED_LIMIT: u64 = 10_000_000;
/// What all rules of a custom resource may be estimated to cost.
pub const ESTIMATED_TOTAL_LIMIT: u64 = 100_000_000;
/// No message an expression makes is longer, in bytes.
pub const MESSAGE_LIMIT: usize = 5 * 1024;

/// Takes any text through all of compilation and, when it compiles, evaluation: what a fuzzer calls.
pub fn fuzz(text: &str) {
    let env = Env::new().with_variable("x", Type::Dyn).with_variable("l", Type::list(Type::Int));
    if let Ok(program) = env.compile(text) {
        let json = serde_json::json!({"a": [1, "b", null, {"c": 1.5}]});
        let numbers = Value::list((0..5).map(Value::Int).collect());
        let variables = Variables::new().with("x", Value::from_json(&json, None)).with("l", numbers);
        let value = program.eval(&variables, &mut Budget::new(100_000));
        if let Ok(value) = value {
            // Whatever came out, writing it down must not fail badly either.
            drop(value.to_json());
        }
    }
}
