//! The interfaces through which the world reaches this node.

use std::collections::BTreeSet;

use nix::net::if_::{InterfaceFlags, if_nametoindex};

use crate::error::{Error, Result};

/// Every interface that is up and has an address that is not link-local, except loopback. The host's ends of the
/// pods' pairs have none, so they are not among them.
pub(super) fn find() -> Result<Vec<u32>> {
    let interfaces = nix::ifaddrs::getifaddrs().map_err(|errno| Error::Addresses(errno.into()))?;
    let mut names = BTreeSet::new();
    for interface in interfaces {
        let usable = interface.address.is_some_and(|address| {
            address.as_sockaddr_in().is_some_and(|v4| !v4.ip().is_link_local())
                || address.as_sockaddr_in6().is_some_and(|v6| !v6.ip().is_unicast_link_local())
        });
        if usable
            && interface.flags.contains(InterfaceFlags::IFF_UP)
            && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
        {
            names.insert(interface.interface_name);
        }
    }
    // One that went meanwhile is no uplink.
    Ok(names.iter().filter_map(|name| if_nametoindex(name.as_str()).ok()).collect())
}
