//! One generic store, one strategy per kind, and the watch cache. Knows no HTTP.
//!
//! Tasks (all under the tracker and token given to [`Registry::start`]): the feed, which carries the
//! store's changes into the caches; the compactor, which lets the store forget old history; the repair
//! of service allocations; and what custom resources need (`custom`).

mod alloc;
pub mod cache;
pub mod custom;
pub mod kinds;
mod store;
pub mod strategy;

pub use store::{
    ClusterReader, DeleteOptions, Deleted, Membership, Options, Patch, Preconditions, Propagation, Registry,
    Resource, Target, WriteOptions, Written,
};
