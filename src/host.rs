//! What this machine is: its name and its address.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, bail};

/// A documentation address (RFC 5737): connecting a UDP socket sends nothing, but asks the routing table.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// The address that this host speaks from.
pub(crate) fn address() -> Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(SocketAddr::from((ELSEWHERE, 9))).context("this host has no default route")?;
    Ok(socket.local_addr()?.ip())
}

/// The host's name as a node's: lower case.
pub(crate) fn name() -> Result<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").context("reading the host's name")?;
    let name = name.trim().to_ascii_lowercase();
    if name.is_empty() {
        bail!("the host has no name; say --node-name");
    }
    Ok(name)
}
