//! Cluster DNS, answered on every node.
//!
//! Tasks (all owned by [`run`], ended by its token): two informers (Services, EndpointSlices), the feeder that
//! turns their changes into a new [`Index`], the answerer on UDP and TCP, and the watcher of resolv.conf. The
//! index is immutable and published through an `ArcSwap`; an answer about the cluster is the pure function
//! [`answer()`] of index, name and type. All other names go to the node's own name servers, through a cache.
//!
//! Invariants: before the first lists are in, cluster names get SERVFAIL, never NXDOMAIN (which clients keep);
//! a query about the cluster never leaves the node; no query is sent to ourselves.

mod advertise;
pub mod answer;
mod config;
pub mod entry;
mod feed;
mod forward;
mod index;
mod resolv_conf;
mod serve;
mod sharded;

pub use advertise::{Advertisement, advertise};
pub use answer::answer;
pub use config::{DnsConfig, Error, Result};
pub use index::{Index, ServiceKey, Zone};
pub use serve::run;
