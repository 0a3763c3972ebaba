//! The addresses of this node, from its interfaces.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::error::{Error, Result};

/// All addresses of this node: those of every interface and loopback, without link-local ones.
/// `first` (the node's own idea of its address) comes first.
pub(crate) fn node_addresses(first: &[IpAddr]) -> Result<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs().map_err(|errno| Error::Addresses(errno.into()))?;
    let mut found = BTreeSet::new();
    for interface in interfaces {
        let Some(address) = interface.address else { continue };
        if let Some(v4) = address.as_sockaddr_in() {
            found.insert(IpAddr::V4(v4.ip()));
        } else if let Some(v6) = address.as_sockaddr_in6() {
            found.insert(IpAddr::V6(v6.ip()));
        }
    }
    let usable = found.into_iter().filter(|address| is_usable(address) && !first.contains(address));
    Ok(first.iter().copied().chain(usable).collect())
}

fn is_usable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}
