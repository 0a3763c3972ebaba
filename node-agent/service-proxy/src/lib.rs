//! The service proxy: Services and EndpointSlices become the tables of the eBPF data plane.
//!
//! ```text
//! informers -> source -> select (pure) -> desired tables of one service
//!           -> reconcile (pure): diff against what is in the maps, ids, order of writes
//!           -> run: writes, destroys sockets of backends that went, retries
//! ```
//! Tasks: one informer each for services, slices and the own node; one that owns the reconciler and does all
//! writing. Input: stores and their change counters. Output: maps, metrics.
//!
//! Invariants: nothing is pruned before every source has synced; every prefix of a plan's writes leaves each
//! reachable address whole; what failed stays on the list and is tried again; the agent's own way to the API server
//! never goes through these tables.

mod addresses;
mod desired;
mod endpoints;
mod error;
pub mod inspect;
pub mod metrics;
mod names;
mod reconcile;
mod run;
mod select;

pub use desired::{DesiredFrontend, DesiredSet, NodeView, ServiceTables, service_tables};
pub use error::{Error, Result};
pub use names::{BackendName, Scope, ServiceName, SetName};
pub use reconcile::{Plan, Reconciler};
pub use run::{ProxyConfig, run};
