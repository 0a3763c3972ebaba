//! Destroying the sockets that still talk to a backend that is gone.
//!
//! A connected UDP socket would send to a dead address for ever, and a long TCP connection until its timeout: the
//! address was replaced once, when it connected. The kernel's socket diagnosis lists and destroys sockets of one
//! network namespace, so every namespace is visited. Only sockets that were translated are touched: one that dialled
//! the pod itself knows nothing of the service.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};
use skep_ebpf_abi::{Addr, TCP, UDP};

use crate::error::{Error, Result};
use crate::sys;

/// A backend that no longer serves a set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Gone {
    /// The set, or [`ANY_SET`](Self::ANY_SET); sockets that came through another set keep the backend.
    pub set: u32,
    /// Its address.
    pub addr: Addr,
    /// Its port.
    pub port_be: u16,
    /// The transport protocol's number.
    pub protocol: u8,
}

impl Gone {
    /// Stands for every set: the backend has left all of them.
    pub const ANY_SET: u32 = 0;
    /// Stands for the set of an address that is served no more.
    pub const NO_SET: u32 = u32::MAX;
}

/// A socket that is sought.
#[derive(Clone, Copy, Debug)]
struct Sought {
    /// The peer that it was translated to: one that was connected anew, past any service, is not meant.
    peer: (Addr, u16),
    /// The cookie of its namespace; 0 where that is not known.
    namespace: u64,
}

/// Sockets by their cookies; a cookie is one socket's for ever.
type Sockets = BTreeMap<u64, Sought>;

/// The sockets to be destroyed.
#[derive(Debug, Default)]
pub(crate) struct Translated {
    udp: Sockets,
    tcp: Sockets,
}

impl Translated {
    pub(crate) fn add(&mut self, cookie: u64, gone: &Gone, namespace: u64) {
        let sockets = if gone.protocol == UDP { &mut self.udp } else { &mut self.tcp };
        sockets.insert(cookie, Sought { peer: (gone.addr, gone.port_be), namespace });
    }
}

/// What a visit to all namespaces gave.
#[derive(Debug, Default)]
pub struct Destroyed {
    /// How many sockets were destroyed.
    pub sockets: usize,
    /// Namespaces or sockets that could not be reached, with the reason.
    pub failures: Vec<Error>,
}

/// The cookies of namespaces, which it takes a visit to learn. Another namespace under the same name has another inode.
#[derive(Debug, Default)]
pub(crate) struct Cookies(BTreeMap<PathBuf, (u64, u64)>);

impl Cookies {
    /// A namespace's cookie; 0 if it cannot be had.
    fn of(&mut self, namespace: &PathBuf) -> u64 {
        let Ok(inode) = std::fs::metadata(namespace).map(|file| file.ino()) else { return 0 };
        if let Some((known, cookie)) = self.0.get(namespace)
            && *known == inode
        {
            return *cookie;
        }
        let asked = inside(|| enter(namespace).ok().and_then(|()| sys::netns_cookie().ok()));
        let cookie = asked.unwrap_or(0);
        self.0.insert(namespace.clone(), (inode, cookie));
        cookie
    }

    /// Forgets namespaces that are not among these.
    fn keep(&mut self, namespaces: &[PathBuf]) {
        self.0.retain(|path, _| namespaces.contains(path));
    }
}

/// Runs `work` on a thread of its own: the namespace of a thread that runs other work must not change.
fn inside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Destroys the sockets, wherever they are: in this namespace or in one of `namespaces`. UDP comes first: TCP at least
/// notices some day.
pub(crate) fn destroy(translated: Translated, namespaces: &[PathBuf], cookies: &mut Cookies) -> Destroyed {
    let mut total = Destroyed::default();
    for (protocol, mut sought) in [(UDP, translated.udp), (TCP, translated.tcp)] {
        if sought.is_empty() {
            continue;
        }
        // A listing costs the kernel a walk through the sockets of all namespaces, for each of them.
        let is_in = |sought: &Sockets, cookie: u64| {
            sought.values().any(|socket| cookie == 0 || socket.namespace == 0 || socket.namespace == cookie)
        };
        if is_in(&sought, sys::netns_cookie().unwrap_or(0)) {
            visit(&mut sought, protocol, &mut total);
        }
        for namespace in namespaces {
            if sought.is_empty() {
                break;
            }
            if is_in(&sought, cookies.of(namespace)) {
                inside(|| match enter(namespace) {
                    Ok(()) => visit(&mut sought, protocol, &mut total),
                    Err(error) => total.failures.push(error),
                });
            }
        }
    }
    cookies.keep(namespaces);
    total
}

fn enter(namespace: &PathBuf) -> Result<()> {
    let action = || format!("entering network namespace {}", namespace.display());
    let file = File::open(namespace).map_err(Error::on(action()))?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::kernel(action(), errno.into()))
}

/// Destroys the sockets of this namespace that are sought, and takes them from there.
fn visit(sought: &mut Sockets, protocol: u8, total: &mut Destroyed) {
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
            let is_it = |sought: &Sought| sought.peer == (socket.peer(), socket.peer_port_be());
            if !sought.remove(&socket.cookie()).as_ref().is_some_and(is_it) {
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
