//! Stale UDP entries of the kernel's table of connections.
//!
//! A translation is chosen once for a flow, and UDP knows no end of a flow: a client that goes on sending keeps a dead
//! endpoint's entry alive for ever, or one that was made before there was any endpoint. After each change the entries
//! of the changed addresses are compared with their endpoints; those that lead elsewhere are deleted, and the next
//! datagram chooses anew. Nothing else is touched: entries of endpoints that still serve stay, also over a restart.

mod message;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;
use skep_ebpf_abi::UDP;
use skep_ebpf_abi::service::FrontendKey;

use crate::desired::ServiceTables;
use crate::error::{Error, Result};
use message::{Answer, Entry};

/// An address and a port.
type Place = (IpAddr, u16);

/// What may have become stale.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Stale {
    /// Addresses that are served, and the endpoints a flow may lead to.
    live: BTreeMap<Place, BTreeSet<Place>>,
    /// Addresses that are no more.
    gone: BTreeSet<Place>,
}

fn place(key: &FrontendKey) -> Place {
    (key.addr.into(), u16::from_be(key.port_be))
}

/// The UDP addresses of a service with their endpoints of any scope.
fn addresses(tables: Option<&ServiceTables>) -> BTreeMap<Place, BTreeSet<Place>> {
    let Some(tables) = tables else { return BTreeMap::new() };
    let udp = tables.frontends.iter().filter(|(key, _)| key.protocol == UDP);
    udp.map(|(key, value)| {
        let sets = [&value.external, &value.internal].into_iter().filter_map(|name| tables.sets.get(name));
        let backends = sets.flat_map(|set| &set.backends);
        (place(key), backends.map(|backend| (backend.addr.into(), backend.port)).collect())
    })
    .collect()
}

impl Stale {
    /// Notes a service's change; `all` when it is not known what flows were made by.
    pub(crate) fn note(&mut self, old: Option<&ServiceTables>, new: Option<&ServiceTables>, all: bool) {
        let (old, new) = (addresses(old), addresses(new));
        for address in old.keys().filter(|address| !new.contains_key(*address)) {
            self.gone.insert(*address);
            self.live.remove(address);
        }
        for (address, endpoints) in new {
            self.gone.remove(&address);
            let lost = match old.get(&address) {
                None => true,
                Some(before) => before.is_empty() != endpoints.is_empty() || !before.is_subset(&endpoints),
            };
            if all || lost {
                self.live.insert(address, endpoints);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.live.is_empty() && self.gone.is_empty()
    }

    fn is_stale(&self, entry: &Entry) -> bool {
        let translated = entry.answers_from != entry.dialled;
        match self.live.get(&entry.dialled) {
            Some(endpoints) => !endpoints.contains(&entry.answers_from),
            None => translated && self.gone.contains(&entry.dialled),
        }
    }
}

/// Deletes what is stale; says how many entries. Blocks.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn delete(stale: &Stale) -> Result<usize> {
    let socket = open().map_err(Error::Conntrack)?;
    let mut found = Vec::new();
    send(socket.as_raw_fd(), &message::dump(1), MsgFlags::empty()).map_err(refused)?;
    receive(&socket, |entry| {
        if entry.protocol == UDP && stale.is_stale(&entry) {
            found.push(entry);
        }
    })?;
    let mut deleted = 0;
    for (number, entry) in found.iter().enumerate() {
        let request = message::delete(number as u32 + 2, entry);
        send(socket.as_raw_fd(), &request, MsgFlags::empty()).map_err(refused)?;
        match receive(&socket, |_| {}) {
            Ok(()) => deleted += 1,
            // It ended by itself meanwhile.
            Err(Error::Conntrack(error))
                if error.raw_os_error() == Some(nix::errno::Errno::ENOENT as i32) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

fn refused(errno: nix::errno::Errno) -> Error {
    Error::Conntrack(errno.into())
}

fn open() -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    // The kernel answers at once or not at all.
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(10, 0))?;
    Ok(socket)
}

/// Reads answers until the last one.
fn receive(socket: &OwnedFd, mut each: impl FnMut(Entry)) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(refused)?;
        for answer in message::answers(buffer.get(..length).unwrap_or_default()) {
            match answer {
                Answer::Entry(entry) => each(entry),
                Answer::Done => return Ok(()),
                Answer::Error(code) => return Err(Error::Conntrack(io::Error::from_raw_os_error(code))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        let address: std::net::SocketAddr = text.parse().expect("an address");
        (address.ip(), address.port())
    }

    /// `dialled -> who answers`, and whether it must go.
    #[test]
    fn only_entries_that_lead_elsewhere_are_stale() {
        let stale = Stale {
            live: [
                (place("10.96.0.10:53"), [place("10.244.0.5:53")].into()),
                (place("10.96.0.11:53"), BTreeSet::new()),
            ]
            .into(),
            gone: [place("10.96.0.12:53")].into(),
        };
        for (dialled, answers_from, expected) in [
            ("10.96.0.10:53", "10.244.0.5:53", false),
            ("10.96.0.10:53", "10.244.0.6:53", true),
            // Made before there was an endpoint.
            ("10.96.0.10:53", "10.96.0.10:53", true),
            ("10.96.0.11:53", "10.244.0.5:53", true),
            ("10.96.0.12:53", "10.244.0.5:53", true),
            // Nobody's service: a plain flow to that address.
            ("10.96.0.12:53", "10.96.0.12:53", false),
            ("192.0.2.1:53", "10.244.0.6:53", false),
        ] {
            let entry = Entry {
                dialled: place(dialled),
                answers_from: place(answers_from),
                protocol: UDP,
                key: Vec::new(),
                v6: false,
            };
            assert_eq!(stale.is_stale(&entry), expected, "{dialled} -> {answers_from}");
        }
    }
}
