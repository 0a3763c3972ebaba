//! Pod networking of a node: network namespaces, veth pairs, addresses, routes.
//!
//! A pod has a pinned network namespace with one veth end (`eth0`) holding a host address (/32, /128). Its
//! default route leads through a link-local gateway that no interface has; a permanent neighbour entry gives
//! the hardware address of the host's end, so nothing is ever asked by ARP or neighbour discovery. The host
//! has a route per pod. There is no bridge and no packet filter rule.
//!
//! What leaves the cluster must carry the node's address. That is the data path's work, not a rule's: pods send
//! with their own address, [`PodNetwork`] keeps the uplink programs on the interfaces that lead out, and the
//! programs translate whatever goes to none of the ranges that know pod addresses. Without a data path pods reach
//! the node, each other and, by routes of [`PodNetwork::set_peers`], the pods of other nodes on a segment of ours.
//!
//! Nodes that share no segment are reached through one VXLAN device (`tunnel`): it has no peers of its own, the
//! programs on it look up whom a packet is for and check whom one is from. Each node has an address inside the
//! tunnel, the first of its pod range, under which its own processes speak to pods elsewhere; so answers come back
//! the same way.
//!
//! Tasks: [`PodNetwork::new`] starts the watcher (repairs what someone deleted) and the drivers of the netlink
//! sockets; all end with the [`PodNetwork`]. Inputs: calls of the agent, netlink notifications. Outputs: the
//! kernel's state, the records in `state_dir/network`, the eBPF endpoint map through [`PodDataPath`].
//!
//! Invariants:
//! - What to do is decided by pure functions (`plan`, `ipam`); the shell around them only reads and writes.
//! - A record is on disk before its device exists, and until its last trace is gone.
//! - Only what carries our mark is ever removed: routes of protocol 83, interfaces named by `names`.
//! - Sysctls are changed inside pods and on our interfaces; of the node's own only forwarding, recorded first.

mod config;
mod data_path;
mod disk;
mod error;
mod ipam;
mod kernel;
mod locks;
mod model;
mod names;
mod netns;
mod plan;
mod pod_network;
mod purge;
mod records;
mod sysctl;
mod watcher;

pub use config::{NetworkConfig, Peer, PodAttachment, PodRequest, PodRouting, TUNNEL_PORT};
pub use data_path::{DataPathError, PodDataPath, PodEndpoint, Tunnel, TunnelRange};
pub use error::{Error, Result};
pub use pod_network::{PodNetwork, Reconciled};
