//! Calls out of the API server: admission, conversion, authentication and authorization webhooks, and
//! the servers behind API aggregation.
//!
//! An [`Endpoint`] says where and whom to trust, a [`Client`] keeps the connections. Invariants:
//! - every answer has a size limit and every call a deadline;
//! - a server is believed only with a certificate for its name (`NAME.NAMESPACE.svc` for a service),
//!   whatever address it was reached at;
//! - redirects are not followed, so a webhook can't send the API server elsewhere;
//! - connections are shared only between endpoints with the same trust and the same credentials.

mod client;
mod connect;
mod credentials;
mod endpoint;
mod error;
mod kubeconfig;
mod pool;
mod resolve;
mod tls;

#[cfg(test)]
mod tests;

pub use client::{Body, Client, DEFAULT_LIMIT, body};
pub use connect::Stream;
pub use credentials::Credentials;
pub use endpoint::{Endpoint, Trust};
pub use error::Error;
pub use kubeconfig::read as read_kubeconfig;
pub use resolve::{Destination, NoServices, ServiceResolver, destination};
