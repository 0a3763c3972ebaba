//! What tests ask the kernel that no library asks.

#![allow(unsafe_code)]

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_STXCSUM: u32 = 0x17;

/// `struct ifreq`.
#[repr(C)]
struct Request {
    name: [u8; 16],
    value: *mut [u32; 2],
    rest: [u8; 16],
}

/// Makes an interface of this thread's namespace complete the checksums of what it sends, as on a wire.
pub(crate) fn complete_checksums(interface: &str) -> io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let mut value = [ETHTOOL_STXCSUM, 0];
    let mut request = Request { name: [0; 16], value: &raw mut value, rest: [0; 16] };
    request.name.iter_mut().zip(interface.bytes().take(15)).for_each(|(place, byte)| *place = byte);
    // SAFETY: the request is laid out as the kernel expects, and what it points to outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
