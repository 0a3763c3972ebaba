//! Folds: the loops macros become.
//!
//! A step that adds to the accumulator changes it in place, so that building a list of n items takes n
//! steps and not n².

use std::sync::Arc;

use super::{EvalError, Evaluator, Outcome, is_constant_list};
use crate::ast::{Expr, Fold, Kind, Literal, op};
use crate::value::{Key, List, Map, Value};

impl<'p, 'a> Evaluator<'p, 'a, '_> {
    pub(super) fn fold(&mut self, fold: &'p Fold) -> Outcome<'a> {
        if fold.is_bind() {
            return self.bind(fold);
        }
        let range = self.eval(&fold.range)?;
        let init = self.eval(&fold.init);
        let depth = self.locals.len();
        self.locals.push((&fold.accumulator, init));
        let ended = self.turns(fold, &range, depth);
        self.locals.truncate(depth + 1);
        let result = ended.and_then(|()| self.eval(&fold.result));
        self.locals.truncate(depth);
        result
    }

    /// A variable for one expression. It is computed even if it is never used.
    fn bind(&mut self, fold: &'p Fold) -> Outcome<'a> {
        self.charge(10)?;
        let value = self.eval(&fold.init)?;
        self.locals.push((&fold.accumulator, Ok(value)));
        let result = self.eval(&fold.result);
        self.locals.pop();
        result
    }

    fn turns(&mut self, fold: &'p Fold, range: &Value<'a>, depth: usize) -> Result<(), EvalError> {
        match range {
            Value::List(list) => {
                for index in 0..list.len() {
                    let Some(item) = list.get(index) else { break };
                    let position = Value::Int(i64::try_from(index).unwrap_or(i64::MAX));
                    let pair = if fold.second.is_some() { (position, Some(item)) } else { (item, None) };
                    if !self.turn(fold, pair, depth)? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for key in map.keys() {
                    let value = fold.second.as_ref().and_then(|_| map.get(&key));
                    if !self.turn(fold, (key.value(), value), depth)? {
                        break;
                    }
                }
            }
            _ => return Err(EvalError::no_overload()),
        }
        Ok(())
    }

    /// One turn; false ends the loop.
    fn turn(
        &mut self,
        fold: &'p Fold,
        (first, second): (Value<'a>, Option<Value<'a>>),
        depth: usize,
    ) -> Result<bool, EvalError> {
        self.locals.truncate(depth + 1);
        self.locals.push((&fold.variable, Ok(first)));
        if let (Some(name), Some(value)) = (&fold.second, second) {
            self.locals.push((name, Ok(value)));
        }
        let forever = matches!(fold.condition.kind, Kind::Literal(Literal::Bool(true)));
        if !forever {
            match self.eval(&fold.condition) {
                Ok(Value::Bool(true)) => {}
                Err(error) if !error.absorbable() => return Err(error),
                _ => return Ok(false),
            }
        }
        match self.step(fold, &fold.step, depth) {
            Ok(()) => Ok(true),
            // Only `all` and `exists` can get over an error.
            Err(error) if forever || !error.absorbable() => Err(error),
            Err(error) => {
                self.locals[depth].1 = Err(error);
                Ok(true)
            }
        }
    }

    /// Brings the accumulator one step on.
    fn step(&mut self, fold: &'p Fold, step: &'p Expr, depth: usize) -> Result<(), EvalError> {
        let is_accumulator =
            |expr: &Expr| matches!(&expr.kind, Kind::Ident(name) if *name == fold.accumulator);
        if is_accumulator(step) {
            return self.charge(1);
        }
        let Kind::Call(call) = &step.kind else { return self.step_plainly(step, depth) };
        match (&*call.function, call.args.as_slice()) {
            (op::CONDITIONAL, [condition, yes, no]) => match self.eval(condition)? {
                Value::Bool(true) => self.step(fold, yes, depth),
                Value::Bool(false) => self.step(fold, no, depth),
                _ => Err(EvalError::no_overload()),
            },
            (op::ADD, [first, Expr { kind: Kind::List(items), .. }])
                if is_accumulator(first) && items.len() == 1 && !items[0].1 =>
            {
                let item = self.eval(&items[0].0)?;
                // The accumulator, the list around the item, the addition.
                self.charge(if is_constant_list(items) { 2 } else { 12 })?;
                match &mut self.locals[depth].1 {
                    Ok(Value::List(List::Owned(list, _))) => {
                        Arc::make_mut(list).push(item);
                        Ok(())
                    }
                    _ => Err(EvalError::no_overload()),
                }
            }
            (op::MAP_INSERT, [first, rest @ ..]) if is_accumulator(first) => {
                let mut args = Vec::with_capacity(2);
                for arg in rest {
                    args.push(self.eval(arg)?);
                }
                self.charge(2)?;
                match &mut self.locals[depth].1 {
                    Ok(Value::Map(Map::Owned(map))) => insert(Arc::make_mut(map), args),
                    _ => Err(EvalError::no_overload()),
                }
            }
            _ => self.step_plainly(step, depth),
        }
    }

    fn step_plainly(&mut self, step: &'p Expr, depth: usize) -> Result<(), EvalError> {
        let value = self.eval(step)?;
        self.locals[depth].1 = Ok(value);
        Ok(())
    }
}

/// Inserts a key and a value, or the entries of a map. A key is inserted once.
fn insert<'a>(
    map: &mut std::collections::BTreeMap<Key<'a>, Value<'a>>,
    mut args: Vec<Value<'a>>,
) -> Result<(), EvalError> {
    let entries = match (args.pop(), args.pop()) {
        (Some(value), Some(key)) => {
            vec![(Key::of(&key).ok_or_else(|| EvalError::failed("unsupported key type"))?, value)]
        }
        (Some(Value::Map(more)), None) => more.iter().collect(),
        _ => return Err(EvalError::no_overload()),
    };
    for (key, value) in entries {
        if map.contains_key(&key) {
            let key = super::show_key(&key);
            return Err(EvalError::failed(format!("insert failed: key {key} already exists")));
        }
        map.insert(key, value);
    }
    Ok(())
}
