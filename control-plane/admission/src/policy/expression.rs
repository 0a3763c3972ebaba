//! One compiled expression, and the variables of a policy.

use serde_json::Value;
use skep_api::object::ObjectExt;
use skep_cel::admission::{Composition, Setting};
use skep_cel::{Budget, Env, EvalError, Program, Type};

use super::input::{Input, Stop};

/// What an expression may give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A condition or a validation.
    Bool,
    /// A message.
    Text,
    /// An audit annotation.
    TextOrNull,
    /// A variable.
    Anything,
    /// An apply configuration.
    Object,
    /// A JSON patch.
    Patch,
}

impl Wanted {
    fn types(self) -> Vec<(Type, &'static str)> {
        let structure = |name: &str| Type::object::<String>(name, []);
        match self {
            Self::Bool => vec![(Type::Bool, "bool")],
            Self::Text => vec![(Type::String, "string")],
            Self::TextOrNull => vec![(Type::String, "string"), (Type::Null, "null_type")],
            Self::Anything => Vec::new(),
            Self::Object => vec![(structure("Object"), "Object")],
            Self::Patch => vec![(Type::list(structure("JSONPatch")), "list(JSONPatch)")],
        }
    }
}

/// An expression, compiled or not.
#[derive(Clone, Debug)]
pub(super) struct Expression {
    pub(super) text: String,
    pub(super) program: Result<Program, String>,
}

impl Expression {
    pub(super) fn compile(env: &Env, text: &str, wanted: Wanted) -> Self {
        let program = env.compile(text).map_err(|errors| format!("compilation failed: {errors}"));
        let program = program.and_then(|program| {
            let types = wanted.types();
            if types.is_empty() || types.iter().any(|(kind, _)| kind == program.kind()) {
                return Ok(program);
            }
            let got = match program.kind() {
                Type::Null => "null_type".to_owned(),
                kind => kind.to_string(),
            };
            let names: Vec<&str> = types.iter().map(|(_, name)| *name).collect();
            Err(match names.as_slice() {
                [one] => format!("must evaluate to {one} but got {got}"),
                many => format!("must evaluate to one of [{}] but got {got}", many.join(" ")),
            })
        });
        Self { text: text.to_owned(), program }
    }

    /// Its value, or the text of what went wrong. What ends the whole evaluation is apart.
    pub(super) fn eval<'a>(
        &self,
        input: &Input<'a>,
        budget: &mut Budget,
    ) -> Result<Result<skep_cel::Value<'a>, String>, Stop> {
        let program = match &self.program {
            Ok(program) => program,
            Err(error) => return Ok(Err(format!("compilation error: {error}"))),
        };
        match program.eval(input, budget) {
            Ok(value) => Ok(Ok(value)),
            Err(EvalError::Pending(check)) => Err(Stop::Pending(check)),
            Err(error @ EvalError::Budget) => Err(Stop::Budget(error.to_string())),
            Err(error) => Ok(Err(format!("expression '{}' resulted in error: {error}", self.text))),
        }
    }
}

/// The variables of a policy, each compiled with those before it in sight.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables {
    pub(super) list: Vec<(String, Expression)>,
    composition: Composition,
}

impl Variables {
    /// Compiles `spec.variables`.
    pub(super) fn compile(spec: &Value, setting: &Setting) -> Self {
        let mut variables = Self::default();
        for variable in spec.items(&["variables"]) {
            let name = variable.text(&["name"]);
            let expression = Expression::compile(
                &variables.env(setting),
                variable.text(&["expression"]),
                Wanted::Anything,
            );
            variables.composition.declare(name, expression.program.as_ref().ok());
            variables.list.push((name.to_owned(), expression));
        }
        variables
    }

    /// The environment in which all of them are known.
    pub(super) fn env(&self, setting: &Setting) -> Env {
        self.composition.extend(setting.env())
    }
}
