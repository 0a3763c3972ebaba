//! Expressions and what comes of them.

mod costs;
mod functions;
mod language;
mod schemas;
mod support;
