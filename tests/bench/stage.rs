//! What the benchmarks of services share.

#[path = "stage/node.rs"]
pub(crate) mod node;
#[path = "stage/server.rs"]
pub(crate) mod server;
#[path = "stage/stats.rs"]
pub(crate) mod stats;
