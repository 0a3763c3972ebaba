//! The system calls no library offers, each with its safety argued; nothing else in this crate is `unsafe`.

mod batch;
mod bytes;
mod diag;

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use skep_ebpf_abi::Plain;

pub(crate) use batch::{Walk, is_unsupported, map_put_batch, map_remove_batch};
pub(crate) use bytes::{ByteWalk, get_bytes, next_bytes, put_bytes, remove_bytes};
pub(crate) use diag::{DiagSocket, destroy_socket, list_sockets, open_diag};

const MAP_LOOKUP: u32 = 1;
const MAP_UPDATE: u32 = 2;
const MAP_DELETE: u32 = 3;
const MAP_NEXT_KEY: u32 = 4;
const OBJ_PIN: u32 = 6;
const OBJ_GET: u32 = 7;
const PROG_TEST_RUN: u32 = 10;
const OBJ_INFO: u32 = 15;
const LINK_CREATE: u32 = 28;
const LINK_DETACH: u32 = 34;
const LINK_UPDATE: u32 = 29;

#[repr(C)]
#[derive(Default)]
struct Element {
    map: u32,
    zero: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Info {
    fd: u32,
    length: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct Link {
    /// The program, or the link when one is updated.
    first: u32,
    /// The target, or the new program when a link is updated.
    second: u32,
    attach_type: u32,
    flags: u32,
    rest: [u64; 2],
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    result: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
}

/// What the kernel says of a map.
#[repr(C)]
#[derive(Default, Clone, Copy, Debug)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
}

/// What the kernel says of a link; the last two depend on its kind.
#[repr(C)]
#[derive(Default, Clone, Copy, Debug)]
pub(crate) struct LinkInfo {
    kind: u32,
    id: u32,
    pub(crate) program: u32,
    zero: u32,
    words: [u32; 4],
}

impl LinkInfo {
    /// Of a cgroup link: the cgroup's id; 0 when the cgroup is gone.
    pub(crate) fn cgroup(&self) -> u64 {
        u64::from(self.words[0]) | (u64::from(self.words[1]) << 32)
    }

    /// Of a TCX link: the interface; 0 when it is gone.
    pub(crate) fn ifindex(&self) -> u32 {
        self.words[0]
    }
}

fn bpf<T>(command: u32, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: `attributes` is a live, initialised `repr(C)` structure laid out as the kernel expects for `command`,
    // and its size is passed along; the pointers inside stay valid for the call, which the callers see to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            libc::c_long::from(command),
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn address<T>(value: &T) -> u64 {
    std::ptr::from_ref(value) as u64
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor to us alone.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Reads an element. `V` must have the map's value size; the callers check it when they open the map.
pub(crate) fn map_get<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = std::mem::MaybeUninit::<V>::zeroed();
    let mut attributes =
        Element { map: raw(map), key: address(key), value: value.as_mut_ptr() as u64, ..Element::default() };
    match bpf(MAP_LOOKUP, &mut attributes) {
        // SAFETY: zeroed, then written by the kernel; `Plain` types accept every bit pattern.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads an element of a per-processor map of 64-bit values; `values` has one place per possible processor.
pub(crate) fn map_get_per_cpu(map: BorrowedFd<'_>, key: u32, values: &mut [u64]) -> io::Result<()> {
    let mut attributes = Element {
        map: raw(map),
        key: address(&key),
        value: values.as_mut_ptr() as u64,
        ..Element::default()
    };
    bpf(MAP_LOOKUP, &mut attributes).map(|_| ())
}

/// Writes an element of a per-processor map, with one value for each possible processor.
pub(crate) fn map_put_per_cpu(map: BorrowedFd<'_>, key: u32, values: &[u64]) -> io::Result<()> {
    let mut attributes =
        Element { map: raw(map), key: address(&key), value: values.as_ptr() as u64, ..Element::default() };
    bpf(MAP_UPDATE, &mut attributes).map(|_| ())
}

/// Writes an element.
pub(crate) fn map_put<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let mut attributes =
        Element { map: raw(map), key: address(key), value: address(value), ..Element::default() };
    bpf(MAP_UPDATE, &mut attributes).map(|_| ())
}

/// Removes an element; whether there was one.
pub(crate) fn map_remove<K: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    let mut attributes = Element { map: raw(map), key: address(key), ..Element::default() };
    match bpf(MAP_DELETE, &mut attributes) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The key after `key`, or the first.
pub(crate) fn map_next<K: Plain>(map: BorrowedFd<'_>, key: Option<&K>) -> io::Result<Option<K>> {
    let mut next = std::mem::MaybeUninit::<K>::zeroed();
    let mut attributes = Element {
        map: raw(map),
        key: key.map_or(0, address),
        value: next.as_mut_ptr() as u64,
        ..Element::default()
    };
    match bpf(MAP_NEXT_KEY, &mut attributes) {
        // SAFETY: zeroed, then written by the kernel; `Plain` types accept every bit pattern.
        Ok(_) => Ok(Some(unsafe { next.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Pins an object.
pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attributes = Object { path: path.as_ptr() as u64, fd: raw(fd), flags: 0 };
    bpf(OBJ_PIN, &mut attributes).map(|_| ())
}

/// Opens a pinned object.
pub(crate) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attributes = Object { path: path.as_ptr() as u64, ..Object::default() };
    bpf(OBJ_GET, &mut attributes).map(owned)
}

fn info<T: Default>(fd: BorrowedFd<'_>) -> io::Result<T> {
    let mut value = T::default();
    let mut attributes =
        Info { fd: raw(fd), length: size_of::<T>() as u32, info: std::ptr::from_mut(&mut value) as u64 };
    bpf(OBJ_INFO, &mut attributes)?;
    Ok(value)
}

/// Describes a map.
pub(crate) fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    info(map)
}

/// Describes a link.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    info(link)
}

/// Attaches a program by a link; `target` is a cgroup's descriptor or an interface's index.
pub(crate) fn link_create(
    program: BorrowedFd<'_>,
    target: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attributes = Link { first: raw(program), second: target, attach_type, flags, ..Link::default() };
    bpf(LINK_CREATE, &mut attributes).map(owned)
}

/// Puts another program into a link, without a moment in which neither runs.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = Link { first: raw(link), second: raw(program), ..Link::default() };
    bpf(LINK_UPDATE, &mut attributes).map(|_| ())
}

/// Ends a link's attachment at once; removing its pin ends it a moment later.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = Link { first: raw(link), ..Link::default() };
    bpf(LINK_DETACH, &mut attributes).map(|_| ())
}

/// The cookie of this thread's network namespace, as programs see it. Linux 5.14.
pub(crate) fn netns_cookie() -> io::Result<u64> {
    const SO_NETNS_COOKIE: i32 = 71;
    let socket =
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    let mut cookie = 0_u64;
    let mut size = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the pointers are those of live variables, and the size is the value's.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// The clock of the programs in nanoseconds: since the machine started, with the time that it slept.
pub(crate) fn boot_time() -> io::Result<u64> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live structure, which the call fills.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned())
}

/// What a test run gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) verdict: u32,
    pub(crate) packet: Vec<u8>,
    /// Nanoseconds of one run.
    pub(crate) duration: u32,
}

/// Runs a tc or XDP program on a packet.
pub(crate) fn test_run(program: BorrowedFd<'_>, packet: &[u8], repeat: u32) -> io::Result<Ran> {
    run_test(program, packet, repeat, &[])
}

/// Runs an XDP program on a packet that comes in at an interface of this thread's network namespace, which has such a
/// program in its driver.
pub(crate) fn test_run_at(
    program: BorrowedFd<'_>,
    packet: &[u8],
    repeat: u32,
    ifindex: u32,
) -> io::Result<Ran> {
    // The words of `struct xdp_md`: data, its end, meta data, interface, queue, and the interface it goes to.
    run_test(program, packet, repeat, &[0, packet.len() as u32, 0, ifindex, 0, 0])
}

fn run_test(program: BorrowedFd<'_>, packet: &[u8], repeat: u32, context: &[u32]) -> io::Result<Ran> {
    let mut out = vec![0; packet.len() + 256];
    let mut attributes = TestRun {
        program: raw(program),
        size_in: packet.len() as u32,
        size_out: out.len() as u32,
        data_in: packet.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat,
        context_size_in: size_of_val(context) as u32,
        context_in: if context.is_empty() { 0 } else { context.as_ptr() as u64 },
        ..TestRun::default()
    };
    bpf(PROG_TEST_RUN, &mut attributes)?;
    out.truncate(attributes.size_out as usize);
    Ok(Ran { verdict: attributes.result, packet: out, duration: attributes.duration })
}
