//! The functions expressions may call, by library, as the API server enables them.

pub(crate) mod address;
pub mod authorizer;
pub(crate) mod cidr;
mod convert;
pub(crate) mod format;
mod lists;
mod operators;
mod optional;
mod printf;
mod quantity;
pub(crate) mod regex;
mod semver;
mod sets;
mod strings;
mod time;
pub(crate) mod urls;

use crate::eval::EvalError;
use crate::functions::Declare;
use crate::value::Value;

/// Text a function makes may not be longer: what comes out of a request is shorter, and costs only count
/// what goes in.
const TEXT: usize = 16 * 1024 * 1024;

type Outcome<'a> = Result<Value<'a>, EvalError>;

/// Declares every function.
pub(crate) fn declare(declare: Declare<'_>) {
    operators::declare(declare);
    convert::declare(declare);
    time::declare(declare);
    strings::declare(declare);
    lists::declare(declare);
    sets::declare(declare);
    regex::declare(declare);
    urls::declare(declare);
    quantity::declare(declare);
    address::declare(declare);
    cidr::declare(declare);
    format::declare(declare);
    semver::declare(declare);
    optional::declare(declare);
    authorizer::declare(declare);
}

/// Text of a length that may be; the work is not done when it may not.
fn bounded(length: usize) -> Result<(), EvalError> {
    if length > TEXT { Err(EvalError::CostLimit) } else { Ok(()) }
}

fn fail<T>(message: impl Into<String>) -> Result<T, EvalError> {
    Err(EvalError::failed(message))
}

fn mismatch<'a>() -> Outcome<'a> {
    Err(EvalError::no_overload())
}
