//! Who is asking, and may they: authentication, authorization and the cluster's PKI.
//!
//! Deciding is pure where it can be: the RBAC evaluator, the Node authorizer and the policy file look at
//! data they are handed; what needs the cluster (is this service account still there?) goes through a
//! small trait of the caller. No secret is ever logged or put into an error.

pub mod audit;
pub mod authentication;
pub mod authorization;
pub mod bootstrap;
pub mod bootstrap_token;
pub mod certificates;
pub mod configuration;
mod memory;
pub mod pki;
pub mod tokens;
