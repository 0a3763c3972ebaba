//! Listing and destroying sockets over `NETLINK_SOCK_DIAG`.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use skep_ebpf_abi::{Addr, Plain};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NETLINK_SOCK_DIAG: i32 = 4;
/// Much more than one machine holds; a kernel that keeps answering must not keep us for ever.
const MAX_SOCKETS: usize = 4_000_000;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct SocketId {
    src_port_be: u16,
    dst_port_be: u16,
    src: [u32; 4],
    dst: [u32; 4],
    interface: u32,
    cookie: [u32; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Request {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    family: u8,
    protocol: u8,
    extensions: u8,
    zero: u8,
    states: u32,
    id: SocketId,
}
impl Plain for Request {}

#[repr(C)]
#[derive(Clone, Copy)]
struct Answer {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: SocketId,
}
impl Plain for Answer {}

const HEADER: usize = 16;

/// A socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiagSocket {
    family: u8,
    protocol: u8,
    state: u8,
    id: SocketId,
}

impl DiagSocket {
    /// The socket's cookie, as the programs see it.
    pub(crate) fn cookie(&self) -> u64 {
        u64::from(self.id.cookie[0]) | (u64::from(self.id.cookie[1]) << 32)
    }

    /// Its own address.
    pub(crate) fn own(&self) -> Addr {
        if i32::from(self.family) == libc::AF_INET { Addr::v4(self.id.src[0]) } else { Addr::v6(self.id.src) }
    }

    /// Its own port.
    pub(crate) fn own_port_be(&self) -> u16 {
        self.id.src_port_be
    }

    /// Whether it waits for connections.
    pub(crate) fn is_listening(&self) -> bool {
        const LISTEN: u8 = 10;
        self.state == LISTEN
    }

    /// The peer's address.
    pub(crate) fn peer(&self) -> Addr {
        if i32::from(self.family) == libc::AF_INET { Addr::v4(self.id.dst[0]) } else { Addr::v6(self.id.dst) }
    }

    /// The peer's port.
    pub(crate) fn peer_port_be(&self) -> u16 {
        self.id.dst_port_be
    }
}

/// Opens the netlink socket of this thread's network namespace.
pub(crate) fn open_diag() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let fd =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, NETLINK_SOCK_DIAG) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn send(netlink: &OwnedFd, request: &Request) -> io::Result<()> {
    // SAFETY: the pointer and length are those of a live structure without padding.
    let sent = unsafe {
        libc::send(netlink.as_raw_fd(), std::ptr::from_ref(request).cast(), size_of::<Request>(), 0)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn receive(netlink: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and length are those of a live buffer.
    let got = unsafe { libc::recv(netlink.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(got.cast_unsigned()) }
}

fn read<T: Plain>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: long enough, and `Plain` types accept every bit pattern; the read may be unaligned.
    Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// All sockets of a family and protocol that have a peer, or listen.
pub(crate) fn list_sockets(netlink: &OwnedFd, family: u8, protocol: u8) -> io::Result<Vec<DiagSocket>> {
    let request = Request {
        length: size_of::<Request>() as u32,
        kind: SOCK_DIAG_BY_FAMILY,
        flags: (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16,
        sequence: 1,
        port: 0,
        family,
        protocol,
        extensions: 0,
        zero: 0,
        states: u32::MAX,
        id: SocketId::default(),
    };
    send(netlink, &request)?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while found.len() < MAX_SOCKETS {
        let length = receive(netlink, &mut buffer)?;
        let mut rest = &buffer[..length];
        while let (Some(size), Some(kind)) =
            (read::<u32>(rest), rest.get(4..6).map(|k| u16::from_ne_bytes([k[0], k[1]])))
        {
            let size = size as usize;
            if size < HEADER || size > rest.len() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(found),
                libc::NLMSG_ERROR => return answer_error(&rest[HEADER..size]).map(|()| found),
                _ => {
                    let answer: Answer = read(&rest[HEADER..size]).ok_or(io::ErrorKind::InvalidData)?;
                    let Answer { family, state, id, .. } = answer;
                    let socket = DiagSocket { family, protocol, state, id };
                    if id.dst_port_be != 0 || socket.is_listening() {
                        found.push(socket);
                    }
                }
            }
            rest = &rest[size.next_multiple_of(4).min(rest.len())..];
        }
    }
    Ok(found)
}

fn answer_error(body: &[u8]) -> io::Result<()> {
    match read::<u32>(body).ok_or(io::ErrorKind::InvalidData)?.cast_signed() {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}

/// Destroys one socket: its owner's next call fails with ECONNABORTED.
pub(crate) fn destroy_socket(netlink: &OwnedFd, socket: &DiagSocket) -> io::Result<()> {
    let request = Request {
        length: size_of::<Request>() as u32,
        kind: SOCK_DESTROY,
        flags: (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16,
        sequence: 2,
        port: 0,
        family: socket.family,
        protocol: socket.protocol,
        extensions: 0,
        zero: 0,
        states: u32::MAX,
        id: socket.id,
    };
    send(netlink, &request)?;
    let mut buffer = [0; 4096];
    let length = receive(netlink, &mut buffer)?;
    answer_error(buffer[..length].get(HEADER..).unwrap_or_default())
}
