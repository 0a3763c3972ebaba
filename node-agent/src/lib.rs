//! The node agent: registers the node, runs its pods and its service proxy.

pub mod server;
pub mod volumes;
