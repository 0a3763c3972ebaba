//! Equality and order.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Library, List, Map, Value, number};
use crate::library::authorizer::Authorization;
use crate::schema::ListKind;

/// More steps than a comparison of anything that came in a request takes: stops the comparison of values
/// that share their parts and are exponentially larger than they look.
const STEPS: u32 = 10_000_000;

/// Are two values equal? Values of different types are not, except that numbers compare by value.
pub(crate) fn equal(a: &Value<'_>, b: &Value<'_>) -> bool {
    let mut steps = STEPS;
    same(a, b, &mut steps)
}

fn same(a: &Value<'_>, b: &Value<'_>, steps: &mut u32) -> bool {
    *steps = steps.saturating_sub(1);
    if *steps == 0 {
        return false;
    }
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::String(a), Value::String(b)) => **a == **b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a == b,
        (Value::List(a), Value::List(b)) => lists(a, b, steps),
        (Value::Map(a), Value::Map(b)) => maps(a, b, steps),
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => same(a, b, steps),
            (None, None) => true,
            _ => false,
        },
        (Value::Library(a), Value::Library(b)) => libraries(a, b),
        _ => order(a, b) == Some(Ordering::Equal),
    }
}

fn lists(a: &List<'_>, b: &List<'_>, steps: &mut u32) -> bool {
    if let (List::Owned(a, _), List::Owned(b, _)) = (a, b)
        && Arc::ptr_eq(a, b)
    {
        return true;
    }
    if a.len() != b.len() {
        return false;
    }
    let kind = a.schema().or(b.schema()).map_or(ListKind::Atomic, crate::schema::Schema::list_kind);
    match kind {
        ListKind::Atomic => a.iter().zip(b.iter()).all(|(a, b)| same(&a, &b, steps)),
        ListKind::Set | ListKind::Map(_) => {
            let rest: Vec<_> = b.iter().collect();
            a.iter().all(|item| rest.iter().any(|other| same(&item, other, steps)))
        }
    }
}

fn maps(a: &Map<'_>, b: &Map<'_>, steps: &mut u32) -> bool {
    match (a, b) {
        (Map::Owned(a), Map::Owned(b)) if Arc::ptr_eq(a, b) => return true,
        (Map::Json(a, _), Map::Json(b, _)) if std::ptr::eq(*a, *b) => return true,
        _ => {}
    }
    let (left, right) = (a.keys(), b.keys());
    left.len() == right.len()
        && left.iter().all(|key| {
            let own = a.get(key);
            // The keys of one may not outlive the other; look up by the other's own key.
            let other = right.iter().find(|other| *other == key).and_then(|key| b.get(key));
            matches!((own, other), (Some(own), Some(other)) if same(&own, &other, steps))
        })
}

fn libraries(a: &Library, b: &Library) -> bool {
    match (a, b) {
        (Library::Url(a), Library::Url(b)) => a.text == b.text,
        (Library::Quantity(a), Library::Quantity(b)) => a == b,
        (Library::Ip(a), Library::Ip(b)) => a == b,
        (Library::Cidr(a), Library::Cidr(b)) => a == b,
        (Library::Semver(a), Library::Semver(b)) => a.cmp_precedence(b) == Ordering::Equal,
        (Library::Format(a), Library::Format(b)) => a.name == b.name,
        (Library::Authorization(a), Library::Authorization(b)) => {
            let (a, b): (&Authorization, &Authorization) = (a, b);
            a == b
        }
        _ => false,
    }
}

/// The order of two values; `None` when they have none.
pub(crate) fn order(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    Some(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) | (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        (Value::Uint(a), Value::Uint(b)) => a.cmp(b),
        (Value::Double(a), Value::Double(b)) => return a.partial_cmp(b),
        (Value::Int(a), Value::Uint(b)) => number::int_uint(*a, *b),
        (Value::Uint(a), Value::Int(b)) => number::int_uint(*b, *a).reverse(),
        (Value::Int(a), Value::Double(b)) => return number::int_double(*a, *b),
        (Value::Double(a), Value::Int(b)) => return number::int_double(*b, *a).map(Ordering::reverse),
        (Value::Uint(a), Value::Double(b)) => return number::uint_double(*a, *b),
        (Value::Double(a), Value::Uint(b)) => return number::uint_double(*b, *a).map(Ordering::reverse),
        (Value::String(a), Value::String(b)) => (**a).cmp(&**b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        _ => return None,
    })
}

/// Are these comparable at all (even if, for NaN, without an answer).
pub(crate) fn comparable(a: &Value<'_>, b: &Value<'_>) -> bool {
    let numeric = |value: &Value<'_>| matches!(value, Value::Int(_) | Value::Uint(_) | Value::Double(_));
    order(a, b).is_some() || (numeric(a) && numeric(b))
}
