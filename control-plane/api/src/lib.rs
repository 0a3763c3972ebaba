//! Kubernetes types, selectors, quantities, names, `metav1::Status` errors and field validation: pure, no I/O.

pub mod resource;
pub mod user;

pub use k8s_openapi;
