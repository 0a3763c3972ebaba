//! The API client: requests, informers, the work queue, events and leader election.
//!
//! One [`Client`] speaks either HTTPS (HTTP/2 preferred) or, in process, straight to a tower service
//! such as an `axum::Router`; everything above it is the same code. Tasks started here: one per
//! [`Informer`] (list + watch), one per [`events::Recorder`]; all take a cancellation token and are
//! owned by the caller's `TaskTracker`.
//!
//! Invariants: a store never goes back in time for one object; the old/new pairs an informer
//! reports never join two objects of different uid; a work queue never hands one key to two workers.

pub mod api;
pub mod client;
pub mod config;
pub mod error;
pub mod events;
pub mod informer;
pub mod kind;
pub mod kubeconfig;
pub mod leader;
pub mod params;
pub mod queue;
pub mod reconcile;
mod retry;
mod tls;
mod transport;
pub mod watch;

pub use api::{Api, ObjectList};
pub use client::{Body, Client};
pub use config::ClientConfig;
pub use error::{Error, Result};
pub use informer::{Informer, Store};
pub use kind::{DynamicObject, Identity, Kept, Kind, PartialObject, Stored};
pub use params::{DeleteParams, ListParams, Patch, PatchParams, Preconditions, Propagation, WatchParams};
pub use queue::WorkQueue;
pub use watch::WatchEvent;
