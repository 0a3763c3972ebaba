//! Boxes, segments and measuring tools for tests and benchmarks.
//!
//! A [`NetBox`] is a network namespace with child cgroups: what a node is when many nodes live on one machine.
//! A [`Segment`] is an Ethernet segment that boxes are plugged into. Both vanish with their value, and
//! [`reap`] removes what killed runs left behind. Nothing here touches the machine's own namespace or its root
//! cgroups, besides making the children.

pub mod cgroup;
pub mod dns;
pub mod histogram;
pub mod http;
pub mod load;
pub mod netbox;
mod privilege;
mod reaper;
mod registry;
mod segment;
mod steps;
mod tool;

pub use netbox::NetBox;
pub use privilege::{have_privileges, may_skip, require};
pub use reaper::reap;
pub use registry::Registry;
pub use segment::Segment;
pub use steps::{eventually, read};
pub use tool::{ip, output, succeed};
