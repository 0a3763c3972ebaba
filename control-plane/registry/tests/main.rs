//! The registry over the embedded store: the watch cache against a model, the verbs, allocation.

mod allocation;
mod cache;
mod support;
mod writes;
