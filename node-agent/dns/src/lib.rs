//! Cluster DNS, answered on every node.
//!
//! Tasks (all owned by [`run`], ended by its token): two informers (Services, EndpointSlices), the feeder that
//! turns their changes into a new [`Index`], the watcher of resolv.conf; and the thread `dns`, which answers on UDP
//! and TCP and asks other name servers. The index is immutable and published through an `ArcSwap`; an answer about
//! the cluster is the pure function [`answer()`] of index, name and type, kept as a [`packet::Packet`].
//!
//! Invariants: before the first lists are in, cluster names get SERVFAIL or what an earlier life knew, never
//! NXDOMAIN (which clients keep); a query about the cluster never leaves the node; no query is sent to ourselves.

mod advertise;
pub mod answer;
mod clients;
mod config;
pub mod entry;
mod feed;
mod forward;
mod index;
pub mod metrics;
pub mod packet;
pub mod query;
mod resolv_conf;
mod respond;
mod serve;
mod sharded;
mod snapshot;
mod tcp;
mod udp;
mod upstreams;

pub use advertise::{Advertisement, advertise};
pub use answer::answer;
pub use clients::Clients;
pub use config::{DnsConfig, Error, Result};
pub use forward::Upstreams;
pub use hickory_proto::rr::Name;
pub use index::{Index, ServiceKey, Zone};
pub use serve::run;
pub use upstreams::UpstreamConfig;
