//! Custom resources: what a CustomResourceDefinition says, compiled, and what it does to objects.
//!
//! One cache holds what is stored of a custom resource, in whatever version it was written. A [`Lens`]
//! for each served version shows it in that version: coerced, pruned, defaulted, converted, made when it
//! is asked for and remembered. A changed definition swaps the lens; caches and watches stay.
//!
//! Tasks: [`table`](crate::custom::follow) keeps the table of resources in step with the definitions,
//! [`conditions`](crate::custom::tend) accepts names, establishes, and clears up after a deletion.

mod cel;
mod convert;
mod defaults;
mod definition;
mod formats;
mod fuzz;
mod json_path;
mod kind;
mod lens;
mod lists;
mod meta;
mod names;
mod pattern;
mod printer;
#[cfg(test)]
mod properties;
mod prune;
pub(crate) mod rules;
mod scale;
mod schema;
mod stream;
mod structural;
mod table;
mod tend;
mod validate;

pub(crate) use convert::{Conversion, Webhooks};
pub use definition::{Definition, Version};
pub use fuzz::{fuzz, fuzz_path};
pub use kind::CustomKind;
pub(crate) use kind::VERBS;
pub(crate) use lens::Lens;
pub(crate) use names::begin_delete;
pub use stream::Stream;
pub(crate) use table::{Table, follow};
pub(crate) use tend::tend;
