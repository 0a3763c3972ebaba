//! Network policy of a node: NetworkPolicies, Namespaces and Pods to rule tables, and those into the kernel's maps.
//!
//! - [`model`] is what policies are about; [`read`] makes it of the API's objects.
//! - [`table`] compiles what pods of one kind of selection may, purely.
//! - [`engine`] keeps the state and says what to write when something changes.
//! - [`explain`] says why one may talk to another; [`inspect`] prints what the maps hold.
//! - [`spawn`] starts the task that does it: fed by informers and by the agent, which tells of each pod before it starts.

mod ask;
pub mod brief;
pub mod engine;
mod error;
pub mod explain;
mod identities;
pub mod inspect;
pub mod metrics;
pub mod model;
pub mod read;
mod run;
pub mod table;

pub use error::Error;
pub use run::{Policies, PolicyConfig, spawn};
