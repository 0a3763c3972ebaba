//! Evaluation, with the cost of each step counted against a budget.
//!
//! Invariant: evaluation ends. Every turn of a loop and every call costs at least one unit, so that the
//! limit of a call bounds the work; functions whose result may be much larger than their arguments bound
//! its size themselves.

mod fold;

use std::sync::Arc;

use crate::ast::{Call, Expr, Kind, Literal, op};
use crate::checker::{Checked, type_ident};
use crate::cost::actual;
use crate::functions::Overload;
use crate::library::authorizer::Check;
use crate::types::{OPTIONAL, Type};
use crate::value::{Key, List, Map, Text, Value};

/// What one evaluation may cost.
pub const PER_CALL_LIMIT: u64 = 1_000_000;

/// Why an evaluation gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The expression failed: a missing key, a division by zero, ...
    #[error("{0}")]
    Failed(Arc<str>),
    /// The evaluation cost more than one may.
    #[error("operation cancelled: actual cost limit exceeded")]
    CostLimit,
    /// All evaluations together cost more than they may.
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    Budget,
    /// An answer of the authorizer is needed. Ask it, add the answer to
    /// [`Decisions`](crate::authorizer::Decisions), and evaluate again.
    #[error("an authorization decision is needed")]
    Pending(Box<Check>),
}

impl EvalError {
    /// A failure of the expression.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into().into())
    }

    pub(crate) fn no_overload() -> Self {
        Self::failed("no such overload")
    }

    /// May `&&` and `||` absorb it. What limits the work is never absorbed.
    fn absorbable(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

/// What several evaluations may cost together.
#[derive(Clone, Debug)]
pub struct Budget {
    remaining: u64,
    per_call: u64,
}

impl Budget {
    /// A budget; each evaluation may cost [`PER_CALL_LIMIT`].
    pub fn new(total: u64) -> Self {
        Self { remaining: total, per_call: PER_CALL_LIMIT }
    }

    /// What is left.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Takes costs off. An error when they are more than is left; then nothing is left.
    pub fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        match self.remaining.checked_sub(cost) {
            Some(left) => {
                self.remaining = left;
                Ok(())
            }
            None => {
                self.remaining = 0;
                Err(EvalError::Budget)
            }
        }
    }
}

/// The values of variables.
pub trait Activation<'a> {
    /// The value of a variable; `None` when there is none. What computing it costs comes off the budget.
    fn resolve(&self, name: &str, budget: &mut Budget) -> Option<Result<Value<'a>, EvalError>>;
}

/// Values by name.
#[derive(Clone, Debug, Default)]
pub struct Variables<'a>(Vec<(String, Value<'a>)>);

impl<'a> Variables<'a> {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value<'a>) -> Self {
        self.0.push((name.to_owned(), value));
        self
    }
}

impl<'a> Activation<'a> for Variables<'a> {
    fn resolve(&self, name: &str, _budget: &mut Budget) -> Option<Result<Value<'a>, EvalError>> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| Ok(value.clone()))
    }
}

pub(crate) type Outcome<'a> = Result<Value<'a>, EvalError>;

/// Evaluates a tree. The cost comes off the budget, also when it fails.
pub(crate) fn evaluate<'a>(
    root: &Expr,
    checked: &Checked,
    activation: &dyn Activation<'a>,
    budget: &mut Budget,
) -> Outcome<'a> {
    let limit = budget.per_call;
    let mut evaluator = Evaluator { checked, activation, budget, locals: Vec::new(), cost: 0, limit };
    let outcome = evaluator.eval(root);
    let cost = evaluator.cost;
    // A result that came out under the limit of a call may still be beyond the budget of all.
    budget.charge(cost)?;
    outcome
}

struct Evaluator<'p, 'a, 'e> {
    checked: &'p Checked,
    activation: &'e dyn Activation<'a>,
    budget: &'e mut Budget,
    /// Variables of folds, innermost last. An accumulator may hold an error, which the next term of `&&`
    /// or `||` can absorb.
    locals: Vec<(&'p str, Outcome<'a>)>,
    cost: u64,
    limit: u64,
}

impl<'p, 'a> Evaluator<'p, 'a, '_> {
    fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(EvalError::CostLimit) } else { Ok(()) }
    }

    fn eval(&mut self, expr: &'p Expr) -> Outcome<'a> {
        match &expr.kind {
            Kind::Literal(value) => Ok(literal(value)),
            Kind::Ident(name) => self.ident(name),
            Kind::Select { operand, field, test, optional } => {
                let operand = self.eval(operand)?;
                if !*test {
                    self.charge(1)?;
                }
                select(&operand, field, *test, *optional)
            }
            Kind::Call(call) => self.call(expr, call),
            Kind::And(terms) => self.logic(terms, false),
            Kind::Or(terms) => self.logic(terms, true),
            Kind::List(items) => self.list(items),
            Kind::Map(_) | Kind::Struct { .. } => self.entries(expr),
            Kind::Fold(fold) => self.fold(fold),
        }
    }

    fn ident(&mut self, name: &str) -> Outcome<'a> {
        let local = self.locals.iter().rev().find(|(local, _)| *local == name);
        if let Some((_, value)) = local {
            let value = value.clone();
            self.charge(1)?;
            return value;
        }
        if let Some(value) = self.activation.resolve(name, self.budget) {
            self.charge(1)?;
            return value;
        }
        match type_ident(name) {
            Some(Type::Type(Some(of))) => Ok(Value::Type(type_value_name(&of))),
            _ => Err(EvalError::failed(format!("no such attribute(s): {name}"))),
        }
    }

    /// `&&` (settled by false) and `||` (settled by true): a term that settles it wins over errors.
    fn logic(&mut self, terms: &'p [Expr], settles: bool) -> Outcome<'a> {
        let mut failed = None;
        for term in terms {
            match self.eval(term) {
                Ok(Value::Bool(value)) if value == settles => return Ok(Value::Bool(settles)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => failed = failed.or(Some(EvalError::no_overload())),
                Err(error) if error.absorbable() => failed = failed.or(Some(error)),
                Err(error) => return Err(error),
            }
        }
        failed.map_or(Ok(Value::Bool(!settles)), Err)
    }

    fn list(&mut self, items: &'p [(Expr, bool)]) -> Outcome<'a> {
        let mut values = Vec::with_capacity(items.len());
        for (item, optional) in items {
            let value = self.eval(item)?;
            match value {
                Value::Optional(inner) if *optional => values.extend(inner.map(|inner| (*inner).clone())),
                _ if *optional => return Err(EvalError::no_overload()),
                value => values.push(value),
            }
        }
        // A list of literals is made once and for all elsewhere; here it is only not charged for.
        if !is_constant_list(items) {
            self.charge(10)?;
        }
        Ok(Value::list(values))
    }

    fn entries(&mut self, expr: &'p Expr) -> Outcome<'a> {
        let mut map = std::collections::BTreeMap::new();
        let mut put = |key: Key<'a>, value: Value<'a>, optional: bool| {
            match value {
                Value::Optional(inner) if optional => {
                    if let Some(inner) = inner {
                        map.insert(key, (*inner).clone());
                    }
                }
                _ if optional => return Err(EvalError::no_overload()),
                value => {
                    if map.insert(key, value).is_some() {
                        return Err(EvalError::failed("Failed with repeated key"));
                    }
                }
            }
            Ok(())
        };
        match &expr.kind {
            Kind::Map(entries) => {
                let constant = entries.iter().all(|e| is_literal(&e.key) && is_literal(&e.value));
                for entry in entries {
                    let key = self.eval(&entry.key)?;
                    let key = Key::of(&key).ok_or_else(|| EvalError::failed("unsupported key type"))?;
                    let value = self.eval(&entry.value)?;
                    put(key, value, entry.optional)?;
                }
                self.charge(if constant { 0 } else { 30 })?;
                Ok(Value::Map(Map::Owned(Arc::new(map))))
            }
            Kind::Struct { name, fields } => {
                for field in fields {
                    let value = self.eval(&field.value)?;
                    put(Key::String(Text::Shared(Arc::clone(&field.name))), value, field.optional)?;
                }
                self.charge(40)?;
                Ok(Value::Map(Map::Struct(Arc::clone(name), Arc::new(map))))
            }
            _ => Err(EvalError::no_overload()),
        }
    }

    fn call(&mut self, expr: &'p Expr, call: &'p Call) -> Outcome<'a> {
        match (&*call.function, call.args.as_slice()) {
            (op::CONDITIONAL, [condition, yes, no]) => match self.eval(condition)? {
                Value::Bool(true) => self.eval(yes),
                Value::Bool(false) => self.eval(no),
                _ => Err(EvalError::no_overload()),
            },
            (op::INDEX | op::OPTIONAL_INDEX, [operand, index]) => {
                let operand = self.eval(operand)?;
                let index = self.eval(index)?;
                self.charge(1)?;
                index_into(&operand, &index, *call.function == *op::OPTIONAL_INDEX)
            }
            (op::NOT_STRICTLY_FALSE, [operand]) => {
                let value = self.eval(operand);
                self.charge(1)?;
                match value {
                    Ok(Value::Bool(value)) => Ok(Value::Bool(value)),
                    Err(error) if !error.absorbable() => Err(error),
                    _ => Ok(Value::Bool(true)),
                }
            }
            ("or" | "orValue", [other]) if call.target.is_some() => {
                let Some(target) = &call.target else { return Err(EvalError::no_overload()) };
                match self.eval(target)? {
                    Value::Optional(Some(inner)) if *call.function == *"or" => {
                        Ok(Value::Optional(Some(inner)))
                    }
                    Value::Optional(Some(inner)) => Ok((*inner).clone()),
                    Value::Optional(None) => self.eval(other),
                    _ => Err(EvalError::no_overload()),
                }
            }
            _ => self.function(expr, call),
        }
    }

    fn function(&mut self, expr: &'p Expr, call: &'p Call) -> Outcome<'a> {
        let mut args = Vec::with_capacity(call.args.len() + 1);
        for arg in call.target.as_deref().into_iter().chain(&call.args) {
            args.push(self.eval(arg)?);
        }
        let candidates = &self.checked.overloads[expr.id as usize];
        let overload = candidates.iter().find(|overload| overload.accepts(&args));
        let Some(overload) = overload else {
            self.charge(1)?;
            return Err(EvalError::no_overload());
        };
        let outcome = (overload.body)(&args);
        let constant_set = *call.function == *op::IN
            && call
                .args
                .get(1)
                .is_some_and(|list| matches!(&list.kind, Kind::List(items) if is_constant_list(items)));
        if !constant_set {
            let result = outcome.as_ref().unwrap_or(&Value::Null);
            self.charge(actual::call(&call.function, &overload.id, &args, result))?;
        }
        outcome
    }
}

impl Overload {
    /// Are these values of the types it takes.
    fn accepts(&self, args: &[Value<'_>]) -> bool {
        self.args.iter().zip(args).all(|(wanted, value)| is_of(value, wanted))
    }
}

fn is_of(value: &Value<'_>, wanted: &Type) -> bool {
    match (wanted, value) {
        (Type::Dyn | Type::Param(_), _)
        | (Type::Null, Value::Null)
        | (Type::Bool, Value::Bool(_))
        | (Type::Int, Value::Int(_))
        | (Type::Uint, Value::Uint(_))
        | (Type::Double, Value::Double(_))
        | (Type::String, Value::String(_))
        | (Type::Bytes, Value::Bytes(_))
        | (Type::Timestamp, Value::Timestamp(_))
        | (Type::Duration, Value::Duration(_))
        | (Type::Map(_), Value::Map(_))
        | (Type::Type(_), Value::Type(_))
        | (Type::Opaque(OPTIONAL, _), Value::Optional(_)) => true,
        // The first item tells lists apart where overloads differ by their items.
        (Type::List(item), Value::List(list)) => list.get(0).is_none_or(|first| is_of(&first, item)),
        (Type::Object(object), value) => value.type_name() == &*object.name,
        (Type::Opaque(name, _), Value::Library(_)) => value.type_name() == *name,
        _ => false,
    }
}

pub(crate) fn is_literal(expr: &Expr) -> bool {
    matches!(expr.kind, Kind::Literal(_))
}

fn is_constant_list(items: &[(Expr, bool)]) -> bool {
    items.iter().all(|(item, optional)| !optional && is_literal(item))
}

fn literal<'a>(value: &Literal) -> Value<'a> {
    match value {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::String(Text::Shared(Arc::clone(text))),
        Literal::Bytes(bytes) => Value::Bytes(Arc::clone(bytes)),
    }
}

fn type_value_name(of: &Type) -> Arc<str> {
    match of {
        Type::Null => "null_type".into(),
        Type::List(_) => "list".into(),
        Type::Map(_) => "map".into(),
        Type::Opaque(name, _) => (*name).into(),
        Type::Timestamp => "google.protobuf.Timestamp".into(),
        Type::Duration => "google.protobuf.Duration".into(),
        other => other.to_string().into(),
    }
}

fn select<'a>(operand: &Value<'a>, field: &str, test: bool, optional: bool) -> Outcome<'a> {
    match operand {
        Value::Map(map) => {
            let found = map.field(field);
            match found {
                _ if test => Ok(Value::Bool(found.is_some())),
                Some(value) if optional => Ok(Value::some(value)),
                Some(value) => Ok(value),
                None if optional => Ok(Value::Optional(None)),
                None => Err(EvalError::failed(format!("no such key: {field}"))),
            }
        }
        Value::Optional(None) if test => Ok(Value::Bool(false)),
        Value::Optional(None) => Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => select(inner, field, test, true),
        _ => Err(EvalError::no_overload()),
    }
}

fn index_into<'a>(operand: &Value<'a>, index: &Value<'a>, optional: bool) -> Outcome<'a> {
    let (found, missing) = match operand {
        Value::Optional(None) => return Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => return index_into(inner, index, true),
        Value::List(list) => match Key::lookup(index) {
            Some(Key::Number(at, _)) => {
                (usize::try_from(at).ok().and_then(|at| list.get(at)), format!("index out of bounds: {at}"))
            }
            _ => return Err(EvalError::no_overload()),
        },
        Value::Map(map) => match Key::lookup(index) {
            Some(key) => (map.get(&key), format!("no such key: {}", show_key(&key))),
            None => return Err(EvalError::failed(format!("unsupported key type '{}'", index.type_name()))),
        },
        _ => return Err(EvalError::no_overload()),
    };
    match found {
        Some(value) if optional => Ok(Value::some(value)),
        Some(value) => Ok(value),
        None if optional => Ok(Value::Optional(None)),
        None => Err(EvalError::failed(missing)),
    }
}

fn show_key(key: &Key<'_>) -> String {
    match key {
        Key::Bool(value) => value.to_string(),
        Key::Number(value, _) => value.to_string(),
        // An error message is no place for a megabyte.
        Key::String(text) => text.chars().take(256).collect(),
    }
}

/// `+` of two lists: sets keep their items unique, and lists that are maps by keys replace items of the
/// same keys in place.
pub(crate) fn add_lists<'a>(a: &List<'a>, b: &List<'a>) -> Value<'a> {
    use crate::schema::ListKind;
    let schema = a.schema();
    let mut items: Vec<Value<'a>> = a.iter().collect();
    match schema.map(crate::schema::Schema::list_kind) {
        None | Some(ListKind::Atomic) => items.extend(b.iter()),
        Some(ListKind::Set) => {
            for item in b.iter() {
                if !items.iter().any(|known| crate::value::compare::equal(known, &item)) {
                    items.push(item);
                }
            }
        }
        Some(ListKind::Map(keys)) => {
            let identity = |value: &Value<'a>| match value {
                Value::Map(map) => keys.iter().map(|key| map.field(&crate::escape(key)?)).collect::<Vec<_>>(),
                _ => Vec::new(),
            };
            for item in b.iter() {
                let own = identity(&item);
                let same = items.iter().position(|known| {
                    let other = identity(known);
                    other.iter().zip(&own).all(|pair| match pair {
                        (Some(a), Some(b)) => crate::value::compare::equal(a, b),
                        (None, None) => true,
                        _ => false,
                    })
                });
                match same {
                    Some(at) => items[at] = item,
                    None => items.push(item),
                }
            }
        }
    }
    Value::List(List::Owned(Arc::new(items), schema))
}
