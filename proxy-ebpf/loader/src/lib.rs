//! The data plane in the kernel, as user space sees it: load, pin, attach, upgrade, read, write, remove.
//!
//! - [`DataPlane`] is everything the node agent does with the kernel.
//! - [`tables`] holds what a service proxy writes, behind [`tables::ServiceMaps`]; [`memory`] is its fake.
//! - [`policy`] holds what a network policy agent writes.
//! - [`inspect`] reads pinned maps without loading anything.
//! - [`sockets`] destroys the sockets that are connected to a backend that is gone.
//!
//! Invariants: maps and links are pinned, so nothing stops when the process does; programs are loaded before any
//! link is touched, so a refused program leaves the old one at work; all `unsafe` is in `sys`.

mod collect;
mod data_plane;
mod error;
pub mod inspect;
mod kernel_map;
mod links;
pub mod memory;
mod migrate;
mod pins;
pub mod policy;
mod programs;
mod raw_map;
mod service_maps;
mod sizes;
pub mod sockets;
#[allow(unsafe_code)]
mod sys;
pub mod tables;

pub use data_plane::{
    DataPlane, Endpoint, LoadOptions, TestRun, Tunnel, TunnelRange, XdpChoice, XdpMode, XdpState,
};
pub use error::{Error, Result};
pub use pins::LAYOUT_FOLDER;
pub use programs::OBJECT;
