//! The admission chain and its built-in plug-ins.
//!
//! Admission runs after authorization and before storage: first every plug-in may change the object,
//! then every plug-in may refuse it. Plug-ins see objects as JSON and read the rest of the cluster
//! through [`Reader`], which the registry implements from its cache.

pub mod access;
pub mod chain;
pub mod matching;
mod metrics;
pub mod notes;
pub mod plugins;
pub mod policy;
pub mod reinvocation;
pub mod webhook;

pub use access::{Access, Answer, LateAccess, Question};
pub use chain::{Attributes, Chain, Operation, Plugin, Reader};
pub use notes::Notes;
pub use reinvocation::Reinvocation;
