//! Kubernetes types, selectors, quantities, names, `metav1::Status` errors and field validation: pure, no I/O.

pub mod duration;
pub mod error;
pub mod field;
pub mod names;
pub mod object;
pub mod quantity;
pub mod quota;
pub mod resource;
pub mod selector;
pub mod user;

pub use k8s_openapi;
