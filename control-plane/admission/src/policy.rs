//! Admission by expressions: ValidatingAdmissionPolicy, MutatingAdmissionPolicy, and the match conditions
//! that webhooks share with them.
//!
//! Policies and bindings are compiled once and kept until the objects change. Evaluation is synchronous and
//! pure; what it needs of the authorizers it is told between two runs ([`input::decide`]).

mod check;
mod conditions;
mod expression;
mod input;
mod mutating;
mod params;
mod patches;
mod source;
mod types;
mod validating;

pub use check::{check_match_conditions, check_policy};
pub use conditions::MatchConditions;
pub use mutating::MutatingAdmissionPolicy;
pub use types::{MOST_KINDS, TypedKind, named_resources, parameter_kind, type_warnings};
pub use validating::ValidatingAdmissionPolicy;
