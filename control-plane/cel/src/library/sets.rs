//! Lists taken as sets.

use super::{Outcome, mismatch};
use crate::functions::Declare;
use crate::value::{List, Value, compare};

pub(super) fn declare(declare: Declare<'_>) {
    declare("list_sets_contains", "sets.contains(list(T), list(T)) -> bool", |args| test(args, contains));
    declare("list_sets_equivalent", "sets.equivalent(list(T), list(T)) -> bool", |args| {
        test(args, |a, b| contains(a, b) && contains(b, a))
    });
    declare("list_sets_intersects", "sets.intersects(list(T), list(T)) -> bool", |args| {
        test(args, |a, b| a.iter().any(|item| has(b, &item)))
    });
}

fn has<'a>(list: &List<'a>, item: &Value<'a>) -> bool {
    list.iter().any(|known| compare::equal(&known, item))
}

fn contains<'a>(all: &List<'a>, some: &List<'a>) -> bool {
    some.iter().all(|item| has(all, &item))
}

fn test<'a>(args: &[Value<'a>], test: fn(&List<'a>, &List<'a>) -> bool) -> Outcome<'a> {
    let [Value::List(a), Value::List(b)] = args else { return mismatch() };
    // Charged for after the fact, so what cannot be paid is not begun.
    if (a.len() as u64).saturating_mul(b.len() as u64) > crate::eval::PER_CALL_LIMIT {
        return Err(crate::eval::EvalError::CostLimit);
    }
    Ok(Value::Bool(test(a, b)))
}
