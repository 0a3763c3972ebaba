//! The thin shell to rtnetlink: one connection per network namespace.

mod apply;
mod observe;

use std::os::fd::RawFd;

use netlink_packet_route::{
    link::{InfoData, InfoVeth, LinkMessage},
    route::RouteProtocol,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan};
use tokio::{sync::Mutex, task::JoinHandle};

use crate::{
    Error, Result,
    model::Mac,
    netns::{self, Namespace},
};

/// Marks the routes as ours, like a routing daemon's number: `ip route show proto 83`.
pub(crate) const PROTOCOL: RouteProtocol = RouteProtocol::Other(83);

/// A netlink connection into one namespace, however many threads and namespaces the process has.
#[derive(Debug)]
pub(crate) struct Netlink {
    handle: Handle,
    /// The kernel refuses a second dump on a socket while one is under way.
    dumping: Mutex<()>,
    driver: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The two ends of a veth pair to be made.
#[derive(Debug)]
pub(crate) struct NewPair<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) host_mac: Mac,
    pub(crate) pod_name: &'a str,
    pub(crate) pod_mac: Mac,
    pub(crate) mtu: u32,
    /// The pod's namespace, open for the time of the call.
    pub(crate) pod_netns: RawFd,
}

impl Netlink {
    /// Connects to a namespace. The socket is made by a thread that enters it; it stays bound to it.
    pub(crate) async fn connect(namespace: &Namespace) -> Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        let (connection, handle, _) = netns::inside(namespace, move || {
            let _context = runtime.enter();
            // Strict: the kernel then filters dumps by protocol and table, so that a large table costs nothing.
            rtnetlink::new_connection_with_strict_check()
        })
        .await?
        .map_err(|e| Error::namespace("open netlink in", namespace.path(), e))?;
        Ok(Self { handle, dumping: Mutex::new(()), driver: tokio::spawn(connection) })
    }

    /// Makes a veth pair with one end in the pod's namespace.
    pub(crate) async fn create_pair(&self, pair: &NewPair<'_>) -> Result<()> {
        let peer: LinkMessage = LinkMessageBuilder::<LinkUnspec>::new()
            .name(pair.pod_name.to_owned())
            .address(pair.pod_mac.to_vec())
            .mtu(pair.mtu)
            .setns_by_fd(pair.pod_netns)
            .build();
        let message = LinkMessageBuilder::<LinkVeth>::new(pair.host_name, pair.pod_name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .address(pair.host_mac.to_vec())
            .mtu(pair.mtu)
            .build();
        self.handle
            .link()
            .add(message)
            .execute()
            .await
            .map_err(|e| Error::netlink(format!("create veth pair {}", pair.host_name), e))
    }
}

impl Netlink {
    /// Makes the VXLAN device that takes the peer of each packet from the packet.
    pub(crate) async fn create_tunnel(&self, name: &str, mac: Mac, mtu: u32, port: u16) -> Result<()> {
        let message = LinkMessageBuilder::<LinkVxlan>::new(name)
            .collect_metadata(true)
            .port(port)
            // What is learned from packets would let any of them redirect others.
            .learning(false)
            .address(mac.to_vec())
            .mtu(mtu)
            .build();
        self.handle.link().add(message).execute().await.map_err(|e| {
            Error::netlink(
                format!(
                    "create the tunnel {name} on UDP port {port} (does another VXLAN device have the port?)"
                ),
                e,
            )
        })
    }
}

/// Whether the kernel says that what was to be removed is not there.
fn is_absent(error: &rtnetlink::Error) -> bool {
    const ABSENT: [i32; 4] =
        [libc_errno::ENODEV, libc_errno::ESRCH, libc_errno::ENOENT, libc_errno::EADDRNOTAVAIL];
    matches!(error, rtnetlink::Error::NetlinkError(message) if ABSENT.contains(&-message.raw_code()))
}

/// The error numbers this file compares with.
mod libc_errno {
    use nix::errno::Errno;

    pub(super) const ENODEV: i32 = Errno::ENODEV as i32;
    pub(super) const ESRCH: i32 = Errno::ESRCH as i32;
    pub(super) const ENOENT: i32 = Errno::ENOENT as i32;
    pub(super) const EADDRNOTAVAIL: i32 = Errno::EADDRNOTAVAIL as i32;
}
