//! Lists.

use std::cmp::Ordering;

use super::{Outcome, bounded, fail, mismatch};
use crate::eval::EvalError;
use crate::functions::{Body, Declare};
use crate::value::{List, Value, compare};

const COMPARABLE: [&str; 8] = ["int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes"];

pub(super) fn declare(declare: Declare<'_>) {
    for kind in COMPARABLE {
        let list = format!("(list({kind}))");
        declare(&format!("list_{kind}_is_sorted_bool"), &format!("{list}.isSorted() -> bool"), is_sorted);
        declare(&format!("list_{kind}_max_{kind}"), &format!("{list}.max() -> {kind}"), |args| {
            extreme(args, "max", Ordering::Greater)
        });
        declare(&format!("list_{kind}_min_{kind}"), &format!("{list}.min() -> {kind}"), |args| {
            extreme(args, "min", Ordering::Less)
        });
        declare(&format!("list_{kind}_sort"), &format!("{list}.sort() -> list({kind})"), sort);
        let by = format!("(list(T)).@sortByAssociatedKeys(list({kind})) -> list(T)");
        declare(&format!("list_{kind}_sortByAssociatedKeys"), &by, sort);
    }
    let sums: [(&str, Body); 4] = [
        ("int", |args| sum(args, Value::Int(0))),
        ("uint", |args| sum(args, Value::Uint(0))),
        ("double", |args| sum(args, Value::Double(0.0))),
        ("duration", |args| sum(args, Value::Duration(0))),
    ];
    for (kind, body) in sums {
        declare(&format!("list_{kind}_sum_{kind}"), &format!("(list({kind})).sum() -> {kind}"), body);
    }
    declare("list_a_index_of_int", "(list(A)).indexOf(A) -> int", |args| {
        position(args, |list, item| (0..list.len()).find(|at| is_at(list, *at, item)))
    });
    declare("list_a_last_index_of_int", "(list(A)).lastIndexOf(A) -> int", |args| {
        position(args, |list, item| (0..list.len()).rev().find(|at| is_at(list, *at, item)))
    });
    declare("list_slice", "(list(T)).slice(int, int) -> list(T)", slice);
    declare("list_flatten", "(list(list(T))).flatten() -> list(T)", flatten);
    declare("list_flatten_int", "(list(dyn)).flatten(int) -> list(dyn)", flatten);
    declare("lists_range", "lists.range(int) -> list(int)", range);
    declare("list_reverse", "(list(T)).reverse() -> list(T)", reverse);
    declare("list_distinct", "(list(T)).distinct() -> list(T)", distinct);
    declare("list_first", "(list(T)).first() -> optional(T)", |args| end(args, |_| 0));
    declare("list_last", "(list(T)).last() -> optional(T)", |args| {
        end(args, |list| list.len().wrapping_sub(1))
    });
}

fn is_sorted<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list)] = args else { return mismatch() };
    for at in 1..list.len() {
        let (Some(a), Some(b)) = (list.get(at - 1), list.get(at)) else { break };
        if !compare::comparable(&a, &b) {
            return mismatch();
        }
        if compare::order(&a, &b) == Some(Ordering::Greater) {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

fn extreme<'a>(args: &[Value<'a>], name: &str, better: Ordering) -> Outcome<'a> {
    let [Value::List(list)] = args else { return mismatch() };
    let mut best: Option<Value<'a>> = None;
    for item in list.iter() {
        best = match best {
            None => Some(item),
            Some(best) if !compare::comparable(&item, &best) => return mismatch(),
            Some(best) if compare::order(&item, &best) == Some(better) => Some(item),
            best => best,
        };
    }
    best.map_or_else(|| fail(format!("{name} called on empty list")), Ok)
}

fn sum<'a>(args: &[Value<'a>], zero: Value<'a>) -> Outcome<'a> {
    let [Value::List(list)] = args else { return mismatch() };
    let overflow = |what: &'static str| move || EvalError::failed(format!("{what} overflow"));
    let mut total = zero;
    for item in list.iter() {
        total = match (total, item) {
            (Value::Int(a), Value::Int(b)) => Value::Int(a.checked_add(b).ok_or_else(overflow("integer"))?),
            (Value::Uint(a), Value::Uint(b)) => {
                Value::Uint(a.checked_add(b).ok_or_else(overflow("unsigned integer"))?)
            }
            (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
            (Value::Duration(a), Value::Duration(b)) => {
                Value::Duration(a.checked_add(b).ok_or_else(overflow("duration"))?)
            }
            _ => return mismatch(),
        };
    }
    Ok(total)
}

fn is_at<'a>(list: &List<'a>, at: usize, item: &Value<'a>) -> bool {
    list.get(at).is_some_and(|known| compare::equal(&known, item))
}

fn position<'a>(args: &[Value<'a>], find: fn(&List<'a>, &Value<'a>) -> Option<usize>) -> Outcome<'a> {
    let [Value::List(list), item] = args else { return mismatch() };
    let found = find(list, item).and_then(|at| i64::try_from(at).ok());
    Ok(Value::Int(found.unwrap_or(-1)))
}

fn slice<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list), Value::Int(start), Value::Int(end)] = args else { return mismatch() };
    let (Ok(from), Ok(to)) = (usize::try_from(*start), usize::try_from(*end)) else {
        return fail(format!("cannot slice({start}, {end}), negative indexes not supported"));
    };
    if from > to {
        return fail(format!(
            "cannot slice({start}, {end}), start index must be less than or equal to end index"
        ));
    }
    if list.len() < to {
        return fail(format!("cannot slice({start}, {end}), list is length {}", list.len()));
    }
    Ok(Value::list((from..to).filter_map(|at| list.get(at)).collect()))
}

fn flatten<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    fn into<'a>(out: &mut Vec<Value<'a>>, list: &List<'a>, depth: i64) -> Result<(), EvalError> {
        for item in list.iter() {
            match item {
                Value::List(inner) if depth > 0 => into(out, &inner, depth - 1)?,
                item => out.push(item),
            }
            bounded(out.len().saturating_mul(16))?;
        }
        Ok(())
    }
    let (list, depth) = match args {
        [Value::List(list)] => (list, 1),
        [Value::List(list), Value::Int(depth)] => (list, *depth),
        _ => return mismatch(),
    };
    if depth < 0 {
        return fail("level must be non-negative");
    }
    let mut out = Vec::new();
    // Values nest no deeper than JSON or an expression does, but both may add up.
    into(&mut out, list, depth.min(500))?;
    Ok(Value::list(out))
}

fn range<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Int(count)] = args else { return mismatch() };
    bounded(usize::try_from((*count).max(0)).unwrap_or(usize::MAX).saturating_mul(16))?;
    Ok(Value::list((0..*count).map(Value::Int).collect()))
}

fn reverse<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list)] = args else { return mismatch() };
    Ok(Value::list((0..list.len()).rev().filter_map(|at| list.get(at)).collect()))
}

fn distinct<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list)] = args else { return mismatch() };
    // Quadratic; charged for after the fact, so what cannot be paid is not begun.
    if list.len() > 2000 {
        return Err(EvalError::CostLimit);
    }
    let mut out: Vec<Value<'a>> = Vec::new();
    for item in list.iter() {
        if !out.iter().any(|known| compare::equal(known, &item)) {
            out.push(item);
        }
    }
    Ok(Value::list(out))
}

fn end<'a>(args: &[Value<'a>], which: fn(&List<'a>) -> usize) -> Outcome<'a> {
    let [Value::List(list)] = args else { return mismatch() };
    Ok(list.get(which(list)).map_or(Value::Optional(None), Value::some))
}

fn sort<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (list, keys) = match args {
        [Value::List(list)] => (list, list),
        [Value::List(list), Value::List(keys)] => (list, keys),
        _ => return mismatch(),
    };
    if list.len() != keys.len() {
        return fail(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} elements respectively",
            list.len(),
            keys.len()
        ));
    }
    let mut pairs: Vec<(Value<'a>, Value<'a>)> = keys.iter().zip(list.iter()).collect();
    let Some((first, _)) = pairs.first() else { return Ok(Value::list(Vec::new())) };
    let kind = first.type_name().to_owned();
    if compare::order(first, first).is_none() && !matches!(first, Value::Double(_)) {
        return fail("list elements must be comparable");
    }
    if pairs.iter().any(|(key, _)| key.type_name() != kind) {
        return fail("list elements must have the same type");
    }
    pairs.sort_by(|(a, _), (b, _)| total_order(a, b));
    Ok(Value::list(pairs.into_iter().map(|(_, item)| item).collect()))
}

/// An order even where doubles have none.
fn total_order(a: &Value<'_>, b: &Value<'_>) -> Ordering {
    match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.total_cmp(b),
        _ => compare::order(a, b).unwrap_or(Ordering::Equal),
    }
}
