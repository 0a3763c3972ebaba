//! Resource quantities.

use skep_api::quantity::Quantity;

use super::{Outcome, fail, mismatch};
use crate::functions::Declare;
use crate::value::{Library, Value};

pub(super) fn declare(declare: Declare<'_>) {
    declare("string_to_quantity", "quantity(string) -> kubernetes.Quantity", |args| match args {
        [Value::String(text)] => match text.parse::<Quantity>() {
            Ok(quantity) => Ok(Value::Library(Library::Quantity(quantity))),
            Err(error) => fail(error.to_string()),
        },
        _ => mismatch(),
    });
    declare("is_quantity_string", "isQuantity(string) -> bool", |args| match args {
        [Value::String(text)] => Ok(Value::Bool(text.parse::<Quantity>().is_ok())),
        _ => mismatch(),
    });
    declare("quantity_sign", "sign(kubernetes.Quantity) -> int", sign);
    declare("quantity_sign_member", "(kubernetes.Quantity).sign() -> int", sign);
    let two = "(kubernetes.Quantity)";
    declare(
        "quantity_is_greater_than",
        &format!("{two}.isGreaterThan(kubernetes.Quantity) -> bool"),
        |args| compare(args, |order| Value::Bool(order.is_gt())),
    );
    declare("quantity_is_less_than", &format!("{two}.isLessThan(kubernetes.Quantity) -> bool"), |args| {
        compare(args, |order| Value::Bool(order.is_lt()))
    });
    declare("quantity_compare_to", &format!("{two}.compareTo(kubernetes.Quantity) -> int"), |args| {
        compare(args, |order| Value::Int(order as i64))
    });
    declare("quantity_get_float", &format!("{two}.asApproximateFloat() -> double"), |args| match args {
        [Value::Library(Library::Quantity(quantity))] => Ok(Value::Double(approximate(quantity))),
        _ => mismatch(),
    });
    declare("quantity_get_int", &format!("{two}.asInteger() -> int"), |args| match args {
        [Value::Library(Library::Quantity(quantity))] if quantity.is_integer() => {
            Ok(Value::Int(quantity.value()))
        }
        [Value::Library(Library::Quantity(_))] => fail("cannot convert value to integer"),
        _ => mismatch(),
    });
    declare("quantity_is_integer", &format!("{two}.isInteger() -> bool"), |args| match args {
        [Value::Library(Library::Quantity(quantity))] => Ok(Value::Bool(quantity.is_integer())),
        _ => mismatch(),
    });
    declare("quantity_add", &format!("{two}.add(kubernetes.Quantity) -> kubernetes.Quantity"), |args| {
        combine(args, Quantity::plus)
    });
    declare("quantity_add_int", &format!("{two}.add(int) -> kubernetes.Quantity"), |args| {
        combine(args, Quantity::plus)
    });
    declare("quantity_sub", &format!("{two}.sub(kubernetes.Quantity) -> kubernetes.Quantity"), |args| {
        combine(args, Quantity::minus)
    });
    declare("quantity_sub_int", &format!("{two}.sub(int) -> kubernetes.Quantity"), |args| {
        combine(args, Quantity::minus)
    });
}

fn sign<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Library(Library::Quantity(quantity))] => Ok(Value::Int(i64::from(quantity.sign()))),
        _ => mismatch(),
    }
}

fn approximate(quantity: &Quantity) -> f64 {
    // Whole numbers are exact as far as doubles are; the rest goes by thousandths.
    if quantity.is_integer() { quantity.value() as f64 } else { quantity.milli_value() as f64 / 1000.0 }
}

fn compare<'a>(args: &[Value<'a>], answer: fn(std::cmp::Ordering) -> Value<'static>) -> Outcome<'a> {
    match args {
        [Value::Library(Library::Quantity(a)), Value::Library(Library::Quantity(b))] => Ok(answer(a.cmp(b))),
        _ => mismatch(),
    }
}

fn combine<'a>(args: &[Value<'a>], combine: fn(&Quantity, &Quantity) -> Quantity) -> Outcome<'a> {
    let [Value::Library(Library::Quantity(a)), other] = args else { return mismatch() };
    let b = match other {
        Value::Library(Library::Quantity(b)) => *b,
        Value::Int(value) => Quantity::from_int(*value),
        _ => return mismatch(),
    };
    Ok(Value::Library(Library::Quantity(combine(a, &b))))
}
