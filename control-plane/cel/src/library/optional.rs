//! Values that may be absent.

use super::{Outcome, fail, mismatch};
use crate::functions::Declare;
use crate::value::Value;

pub(super) fn declare(declare: Declare<'_>) {
    declare("optional_of", "optional.of(V) -> optional(V)", |args| Ok(Value::some(args[0].clone())));
    declare("optional_ofNonZeroValue", "optional.ofNonZeroValue(V) -> optional(V)", |args| {
        Ok(if args[0].is_zero() { Value::Optional(None) } else { Value::some(args[0].clone()) })
    });
    declare("optional_none", "optional.none() -> optional(V)", |_| Ok(Value::Optional(None)));
    declare("optional_value", "(optional(V)).value() -> V", |args| match args {
        [Value::Optional(Some(value))] => Ok((**value).clone()),
        [Value::Optional(None)] => fail("optional.none() dereference"),
        _ => mismatch(),
    });
    declare("optional_hasValue", "(optional(V)).hasValue() -> bool", |args| match args {
        [Value::Optional(value)] => Ok(Value::Bool(value.is_some())),
        _ => mismatch(),
    });
    // The evaluator knows these itself: they do not evaluate what they do not need.
    declare("optional_or_optional", "(optional(V)).or(optional(V)) -> optional(V)", |_| mismatch());
    declare("optional_orValue_value", "(optional(V)).orValue(V) -> V", |_| mismatch());
    declare("optional_unwrap", "optional.unwrap(list(optional(V))) -> list(V)", unwrap);
    declare("optional_unwrapOpt", "(list(optional(V))).unwrapOpt() -> list(V)", unwrap);
}

fn unwrap<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list)] = args else { return mismatch() };
    let mut out = Vec::new();
    for item in list.iter() {
        match item {
            Value::Optional(value) => out.extend(value.map(|value| (*value).clone())),
            _ => return fail("value is not optional"),
        }
    }
    Ok(Value::list(out))
}
