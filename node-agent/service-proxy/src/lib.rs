//! The service proxy: Services and EndpointSlices become eBPF maps, or rules of the kernel's packet filter.
//!
//! ```text
//! informers -> source -> select (pure) -> desired tables of one service
//! host ports of pods, from the node agent    -> desired tables of one pod
//!           -> backend: ebpf    reconcile (pure): diff against what is in the maps, ids, order of writes
//!                       rules   view, nftables | iptables (pure): fragments of text, diff, one script
//!           -> run: writes, destroys sockets and stale UDP flows of backends that went, retries
//! ```
//! Tasks: one informer each for services, slices and the own node; one that owns the back end and does all
//! writing; one for each health check, one for `/healthz` and one for `/metrics`. Input: stores and their change
//! counters, and what the node agent says of its pods. Output: maps or rules, metrics, events.
//!
//! Invariants: nothing is pruned before every source has synced; every prefix of a plan's writes leaves each
//! reachable address whole (a script of nft is one transaction); what failed stays on the list and is tried again; a
//! mode is removed only when another one serves everything; the agent's own way to the API server never goes through
//! these tables.

mod addresses;
mod backend;
mod desired;
mod endpoints;
mod error;
mod host_ports;
pub mod inspect;
pub mod metrics;
mod mode;
mod names;
mod objects;
mod options;
mod reconcile;
mod rules;
mod run;
mod select;
pub mod serve;
mod timeouts;

pub use backend::{purge_rules, recorded_mode};
pub use desired::{DesiredFrontend, DesiredSet, HealthCheck, NodeView, ServiceTables, service_tables};
pub use error::{Error, Result};
pub use host_ports::{BoundPod, HostPort, HostPorts};
pub use mode::ProxyMode;
pub use names::{BackendName, Scope, ServiceName, SetName};
pub use objects::{ServiceView, SliceView};
pub use options::{NodePortAddress, ProxyOptions, TimeoutOptions};
pub use reconcile::{Done, Plan, Reconciler};
pub use rules::TABLE;
pub use run::{HOUSEKEEPING, ProxyConfig, run};
pub use skep_ebpf_loader::XdpChoice;
