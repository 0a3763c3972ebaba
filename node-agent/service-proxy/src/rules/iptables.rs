//! Rules for iptables, in the shape that kube-proxy gives them, under our own prefix.
//!
//! ```text
//! nat    SKEP-SERVICES -> SKEP-SVC-* | SKEP-EXT-* | SKEP-FW-* -> SKEP-SVL-* -> SKEP-SEP-* (dnat); SKEP-NODEPORTS
//!        SKEP-MARK-MASQ, SKEP-POSTROUTING
//! filter SKEP-SERVICES (nobody serves), SKEP-EXTERNAL-SERVICES, SKEP-PROXY-FIREWALL (source ranges), SKEP-FORWARD,
//!        SKEP-NODEPORTS (health checks)
//! ```
//! Chains of one service are written when they change; the chains with a line for every service are written whole
//! when one of their lines changes, as `iptables-restore --noflush` replaces chains, not lines.

mod fragment;
mod script;
mod service;
#[cfg(test)]
mod tests;

pub(crate) use fragment::{ChainKey, Fragment, Jump, Table, ground, jumps};
pub(crate) use script::{Chains, full, partial, removal, script};
pub(crate) use service::service;
