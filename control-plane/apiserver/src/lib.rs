//! HTTP: negotiation, discovery, watches, tables and streams over the registry. Knows no storage.
//!
//! A request runs through `pipeline`; a request to a resource ends in `resources`, which is one
//! function for all kinds: what differs between them is in the table of kinds.

mod aggregation;
pub mod audit;
pub mod bootstrap;
mod components;
mod connection;
mod discovery;
pub mod endpoints;
mod flow;
pub mod gates;
pub mod health;
pub mod identity;
pub mod identity_lease;
mod impersonation;
pub mod input;
mod limits;
mod metrics;
pub mod negotiate;
mod openapi;
mod pipeline;
pub mod proxy;
mod published;
pub mod query;
pub mod request_info;
mod resources;
pub mod respond;
mod reviews;
mod serve;
mod server;
mod shapes;
pub mod starting;
mod subresources;
pub mod tokens;
pub mod version;
mod watching;

pub use server::{ApiServer, Config, Error};
