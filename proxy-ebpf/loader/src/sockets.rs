//! Destroying the sockets that still talk to a backend that is gone.
//!
//! A connected UDP socket would send to a dead address for ever, and a long TCP connection until its timeout: the
//! address was replaced once, when it connected. The kernel's socket diagnosis lists and destroys sockets of one
//! network namespace, so every namespace is visited. Only sockets that were translated are touched: one that dialled
//! the pod itself knows nothing of the service.

use std::fs::File;
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};
use skep_ebpf_abi::service::ReverseKey;
use skep_ebpf_abi::{Addr, TCP, UDP};

use crate::error::{Error, Result};
use crate::sys;

/// A backend that no longer serves a set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Gone {
    /// The set; sockets that came through another set keep the backend.
    pub set: u32,
    /// Its address.
    pub addr: Addr,
    /// Its port.
    pub port_be: u16,
    /// The transport protocol's number.
    pub protocol: u8,
}

/// Whether a socket was translated through a set.
pub(crate) type CameThrough<'a> = &'a (dyn Fn(&ReverseKey, u32) -> bool + Sync);

/// What a visit to all namespaces gave.
#[derive(Debug, Default)]
pub struct Destroyed {
    /// How many sockets were destroyed.
    pub sockets: usize,
    /// Namespaces or sockets that could not be reached, with the reason.
    pub failures: Vec<Error>,
}

/// Destroys, in this namespace and in each of `namespaces`, the translated sockets to `gone`. UDP comes first:
/// TCP at least notices some day.
pub(crate) fn destroy(gone: &[Gone], namespaces: &[PathBuf], came_through: CameThrough<'_>) -> Destroyed {
    let mut total = Destroyed::default();
    if gone.is_empty() {
        return total;
    }
    for protocol in [UDP, TCP] {
        let wanted: Vec<Gone> = gone.iter().copied().filter(|gone| gone.protocol == protocol).collect();
        if wanted.is_empty() {
            continue;
        }
        visit(&wanted, protocol, came_through, &mut total);
        for namespace in namespaces {
            // A thread of its own: the namespace of a thread that runs other work must not change.
            std::thread::scope(|scope| {
                let visit = scope.spawn(|| {
                    let mut found = Destroyed::default();
                    match enter(namespace) {
                        Ok(()) => visit(&wanted, protocol, came_through, &mut found),
                        Err(error) => found.failures.push(error),
                    }
                    found
                });
                match visit.join() {
                    Ok(found) => {
                        total.sockets += found.sockets;
                        total.failures.extend(found.failures);
                    }
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            });
        }
    }
    total
}

fn enter(namespace: &PathBuf) -> Result<()> {
    let action = || format!("entering network namespace {}", namespace.display());
    let file = File::open(namespace).map_err(Error::on(action()))?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::kernel(action(), errno.into()))
}

fn visit(gone: &[Gone], protocol: u8, came_through: CameThrough<'_>, total: &mut Destroyed) {
    let netlink = match sys::open_diag() {
        Ok(netlink) => netlink,
        Err(error) => return total.failures.push(Error::kernel("opening a socket for diagnosis", error)),
    };
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let sockets = match sys::list_sockets(&netlink, family, protocol) {
            Ok(sockets) => sockets,
            Err(error) => {
                total.failures.push(Error::kernel("listing sockets", error));
                continue;
            }
        };
        for socket in sockets {
            let (addr, port_be) = (socket.peer(), socket.peer_port_be());
            let mut sets = gone.iter().filter(|gone| gone.addr == addr && gone.port_be == port_be).peekable();
            if sets.peek().is_none() {
                continue;
            }
            let key = ReverseKey::new(socket.cookie(), addr, port_be);
            if !sets.any(|gone| came_through(&key, gone.set)) {
                continue;
            }
            match sys::destroy_socket(&netlink, &socket) {
                Ok(()) => total.sockets += 1,
                // It closed by itself meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => total.failures.push(Error::kernel("destroying a socket", error)),
            }
        }
    }
}
