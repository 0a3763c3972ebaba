//! What expressions may name, and programs: expressions that passed the check.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::{Expr, Kind, Literal};
use crate::checker::{self, Checked};
use crate::cost::{Range, estimate};
use crate::eval::{self, Activation, Budget, EvalError};
use crate::functions::{ALL, Function};
use crate::library::regex;
use crate::parser;
use crate::schema::Schema;
use crate::source::{CompileErrors, Issue};
use crate::types::Type;
use crate::value::{Value, time};

/// Declarations of variables and types. All functions of the API server are there always.
#[derive(Clone, Debug, Default)]
pub struct Env {
    variables: HashMap<String, Type>,
    schemas: HashMap<String, Arc<Schema>>,
    structures: HashMap<String, Type>,
    open: Option<&'static str>,
}

impl Env {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares a variable. The name may have several parts: `authorizer.requestResource`.
    #[must_use]
    pub fn with_variable(mut self, name: &str, kind: Type) -> Self {
        self.variables.insert(name.to_owned(), kind);
        self
    }

    /// Declares a variable with a schema: its type, and the sizes its values may have.
    #[must_use]
    pub fn with_schema(mut self, name: &str, schema: Arc<Schema>) -> Self {
        self.variables.insert(name.to_owned(), schema.kind().clone());
        self.schemas.insert(name.to_owned(), schema);
        self
    }

    /// Declares a type expressions may make objects of: `JSONPatch{op: 'remove', path: '/a'}`.
    #[must_use]
    pub fn with_structure(mut self, name: &str, kind: Type) -> Self {
        self.structures.insert(name.to_owned(), kind);
        self
    }

    /// Lets expressions make objects of any fields under this name and names below it: `Object{spec:
    /// Object.spec{...}}`.
    #[must_use]
    pub fn with_open_structure(mut self, name: &'static str) -> Self {
        self.open = Some(name);
        self
    }

    pub(crate) fn variable_type(&self, name: &str) -> Option<&Type> {
        self.variables.get(name)
    }

    pub(crate) fn schema(&self, name: &str) -> Option<&Schema> {
        self.schemas.get(name).map(|schema| &**schema)
    }

    pub(crate) fn function(&self, name: &str) -> Option<&'static Function> {
        ALL.get(name)
    }

    pub(crate) fn is_open(&self, name: &str) -> bool {
        let rest = self.open.and_then(|open| name.strip_prefix(open));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    pub(crate) fn structure(&self, name: &str) -> Option<Type> {
        if self.is_open(name) {
            return Some(Type::object::<String>(name, []));
        }
        self.structures.get(name).cloned()
    }

    /// Checks an expression.
    pub fn compile(&self, text: &str) -> Result<Program, CompileErrors> {
        let refuse = |issues| CompileErrors::new(text, issues);
        let mut tree = parser::parse(text).map_err(|issue| refuse(vec![issue]))?;
        let checked = checker::check(self, &mut tree.root, tree.nodes).map_err(refuse)?;
        let mut issues = Vec::new();
        check_literals(&tree.root, &mut issues);
        if !issues.is_empty() {
            return Err(refuse(issues));
        }
        let kind = checked.types[tree.root.id as usize].clone();
        let cost = estimate::estimate(self, &checked, &tree.root);
        Ok(Program { inner: Arc::new(Inner { root: tree.root, checked, kind, cost }) })
    }
}

/// Literals that are known to fail are refused at once.
fn check_literals(expr: &Expr, issues: &mut Vec<Issue>) {
    if let Kind::Call(call) = &expr.kind {
        let argument = match (&*call.function, call.target.as_deref(), call.args.as_slice()) {
            ("duration" | "timestamp", None, [argument]) | ("matches", Some(_), [argument]) => Some(argument),
            ("matches", None, [_, argument]) => Some(argument),
            _ => None,
        };
        if let Some(Expr { position, kind: Kind::Literal(Literal::String(text)), .. }) = argument {
            let fine = match &*call.function {
                "duration" => time::parse_duration(text).is_some(),
                "timestamp" => time::parse_timestamp(text).is_some(),
                _ => regex::compile(text).is_ok(),
            };
            if !fine {
                issues.push(Issue::at(*position, format!("invalid {} argument", call.function)));
            }
        }
    }
    for child in expr.children() {
        check_literals(child, issues);
    }
}

/// A checked expression. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Program {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: Expr,
    checked: Checked,
    kind: Type,
    cost: Range,
}

impl Program {
    /// The type of its value.
    pub fn kind(&self) -> &Type {
        &self.inner.kind
    }

    /// What it may cost.
    pub fn cost(&self) -> Range {
        self.inner.cost
    }

    /// Does it name this variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.inner.checked.variables.contains(variable)
    }

    /// Does it name this field of this variable: `variable.field`, `variable.?field`, `has(variable.field)`.
    pub fn selects(&self, variable: &str, field: &str) -> bool {
        fn selects(expr: &Expr, variable: &str, wanted: &str) -> bool {
            if let Kind::Select { operand, field, .. } = &expr.kind
                && **field == *wanted
                && matches!(&operand.kind, Kind::Ident(name) if **name == *variable)
            {
                return true;
            }
            expr.children().into_iter().any(|child| selects(child, variable, wanted))
        }
        selects(&self.inner.root, variable, field)
    }

    /// Evaluates it. What it costs comes off the budget.
    pub fn eval<'a>(
        &self,
        activation: &dyn Activation<'a>,
        budget: &mut Budget,
    ) -> Result<Value<'a>, EvalError> {
        eval::evaluate(&self.inner.root, &self.inner.checked, activation, budget)
    }
}
