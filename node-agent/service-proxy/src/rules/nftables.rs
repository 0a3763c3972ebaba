//! Rules for nftables, in the shape that kube-proxy gives them.
//!
//! ```text
//! prerouting, output -> services: address . protocol . port -> verdict map -> service-… | external-…
//!   external-…   marks for masquerading, or keeps to local endpoints
//!   service-…    affinity, then a random number -> endpoint-…
//!   endpoint-…   hairpin mark, remembers the client, dnat
//! forward, input, output -> what nobody serves: reject or drop; prerouting, output -> source ranges
//! postrouting -> masquerading
//! ```
//! One table per family. Text is made here, and compared; [`super::apply`] hands it to `nft -f -`.

mod fragment;
mod script;
mod service;
#[cfg(test)]
mod tests;

pub(crate) use fragment::{Fragment, ground};
pub(crate) use script::{Present, Retired, full, partial, removal};
pub(crate) use service::service;
