//! Load balancing at the socket: what a process dials is replaced before the first packet exists.

#![allow(missing_docs)] // The macro generates an undocumented item beside each documented one.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_set_retval,
};
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use skep_ebpf_abi::counter::Counter;
use skep_ebpf_abi::hash;
use skep_ebpf_abi::service::{AffinityKey, Connected, FrontendKey, Reverse, ReverseKey, frontend};
use skep_ebpf_abi::{Addr, UDP};

use crate::count::count;
use crate::flows::{node_source, same_addr};
use crate::maps::{CONNECTED, FRONTENDS, REVERSE, SKIP_SOCKET};
use crate::select::{Choice, Lot, choose, may_come};

/// Set by the loader where the kernel has `bpf_set_retval` (5.18); without it a refused connect says EPERM.
#[unsafe(no_mangle)]
static HAS_SET_RETVAL: u32 = 0;

/// The cookie of the node's own network namespace, set by the loader; 0 where the kernel cannot tell it to user space
/// (before 5.14): then the machine's first namespace is the node's.
#[unsafe(no_mangle)]
static NODE_NETNS: u64 = 0;

/// The verdict of a call that goes on.
pub const PASS: i32 = 1;
const REFUSE: i32 = 0;
const ECONNREFUSED: i32 = 111;
/// 127.0.0.1.
pub const LOOPBACK_V4: Addr = Addr::v4(0x7f00_0001_u32.to_be());
/// ::1.
pub const LOOPBACK_V6: Addr = Addr::v6([0, 0, 0, 1_u32.to_be()]);

/// The four forms of an address in the context, behind one face.
#[derive(Clone, Copy)]
pub enum Family {
    /// An IPv4 socket.
    V4,
    /// An IPv6 socket, which may speak IPv4 under mapped addresses.
    V6,
}

/// A socket address in a hook.
pub struct Socket {
    /// The context.
    pub raw: *mut bpf_sock_addr,
    /// Of the hook.
    pub family: Family,
}

impl Socket {
    #[inline(always)]
    fn new(ctx: &SockAddrContext, family: Family) -> Self {
        Self { raw: ctx.as_ptr().cast(), family }
    }

    /// The address.
    #[inline(always)]
    pub fn addr(&self) -> Addr {
        // SAFETY: the context is valid for the program's life; the verifier allows whole-word reads of these fields.
        unsafe {
            match self.family {
                Family::V4 => Addr::v4(core::ptr::read_volatile(&raw const (*self.raw).user_ip4)),
                Family::V6 => Addr::v6([
                    core::ptr::read_volatile(&raw const (*self.raw).user_ip6[0]),
                    core::ptr::read_volatile(&raw const (*self.raw).user_ip6[1]),
                    core::ptr::read_volatile(&raw const (*self.raw).user_ip6[2]),
                    core::ptr::read_volatile(&raw const (*self.raw).user_ip6[3]),
                ]),
            }
        }
    }

    /// The port.
    #[inline(always)]
    pub fn port_be(&self) -> u16 {
        // SAFETY: as above. The port is in the low half, in network byte order.
        unsafe { core::ptr::read_volatile(&raw const (*self.raw).user_port) as u16 }
    }

    /// The transport protocol's number.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        // SAFETY: as above.
        unsafe { core::ptr::read_volatile(&raw const (*self.raw).protocol) as u8 }
    }

    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the helper takes the context.
        unsafe { bpf_get_socket_cookie(self.raw.cast()) }
    }

    /// The cookie of the socket's network namespace.
    #[inline(always)]
    pub fn namespace(&self) -> u64 {
        // SAFETY: the helper takes the context.
        unsafe { bpf_get_netns_cookie(self.raw.cast()) }
    }

    /// The address that the socket is bound to, if it is to one.
    #[inline(always)]
    fn source(&self) -> Option<Addr> {
        // SAFETY: as above.
        let sk = unsafe { core::ptr::read_volatile(&raw const (*self.raw).__bindgen_anon_1.sk) };
        if sk.is_null() {
            return None;
        }
        // SAFETY: a socket of the context, checked to be there; the verifier allows whole-word reads of these fields.
        let addr = unsafe {
            match self.family {
                Family::V4 => Addr::v4(core::ptr::read_volatile(&raw const (*sk).src_ip4)),
                Family::V6 => Addr::v6([
                    core::ptr::read_volatile(&raw const (*sk).src_ip6[0]),
                    core::ptr::read_volatile(&raw const (*sk).src_ip6[1]),
                    core::ptr::read_volatile(&raw const (*sk).src_ip6[2]),
                    core::ptr::read_volatile(&raw const (*sk).src_ip6[3]),
                ]),
            }
        };
        if addr.is_unspecified() { None } else { Some(addr) }
    }

    #[inline(always)]
    fn write(&self, addr: &Addr, port_be: u16) {
        // SAFETY: the verifier allows whole-word writes of these fields.
        unsafe {
            match self.family {
                Family::V4 => core::ptr::write_volatile(&raw mut (*self.raw).user_ip4, addr.v4_word_be()),
                Family::V6 => {
                    core::ptr::write_volatile(&raw mut (*self.raw).user_ip6[0], addr.words_be[0]);
                    core::ptr::write_volatile(&raw mut (*self.raw).user_ip6[1], addr.words_be[1]);
                    core::ptr::write_volatile(&raw mut (*self.raw).user_ip6[2], addr.words_be[2]);
                    core::ptr::write_volatile(&raw mut (*self.raw).user_ip6[3], addr.words_be[3]);
                }
            }
            core::ptr::write_volatile(&raw mut (*self.raw).user_port, u32::from(port_be));
        }
    }
}

/// Whether the choice is made once or for every datagram.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    Connect,
    Send,
}

#[inline(always)]
fn translate(socket: &Socket, moment: Moment) -> i32 {
    let mut addr = socket.addr();
    let port_be = socket.port_be();
    let protocol = if moment == Moment::Send { UDP } else { socket.protocol() };
    if addr.is_unspecified() {
        // Linux takes "any" as a destination for loopback.
        addr = match (socket.family, addr.is_v4()) {
            (Family::V6, false) => LOOPBACK_V6,
            _ => LOOPBACK_V4,
        };
    }
    // SAFETY: the value is only read.
    let Some(frontend) = (unsafe { FRONTENDS.get(FrontendKey::new(addr, port_be, protocol)) }) else {
        return PASS;
    };
    let set = frontend.internal_set;
    let namespace = socket.namespace();
    if is_loopback(&addr) && !is_node(namespace) {
        // A pod's loopback is its own.
        return PASS;
    }
    // SAFETY: the value is only read.
    if unsafe { SKIP_SOCKET.get(namespace) }.is_some() {
        return PASS;
    }
    if frontend.flags & frontend::SOURCE_RANGES != 0 {
        // A pod's address is known where its packets pass. What the node sends passes nowhere.
        if !is_node(namespace) {
            return PASS;
        }
        match socket.source().or_else(|| node_source(addr.is_v4())) {
            Some(source) if may_come(frontend, &source) => {}
            _ => {
                count(Counter::DropSourceRange);
                return fail(ECONNREFUSED);
            }
        }
    }
    let cookie = socket.cookie();
    let entropy = match moment {
        // SAFETY: the helper has no preconditions.
        Moment::Connect => unsafe { bpf_get_prandom_u32() },
        // Datagrams of one socket to one service stay on one backend.
        Moment::Send => hash::words(0x736b_6570, cookie, u64::from(set), 0) as u32,
    };
    let backend = match choose(set, &AffinityKey::namespace(namespace, set), Lot::Chance(entropy)) {
        Choice::Backend(_, backend) => backend,
        Choice::Empty(_) => {
            count(Counter::SocketNoBackend);
            return fail(ECONNREFUSED);
        }
        Choice::Broken => {
            count(Counter::SocketInconsistent);
            return PASS;
        }
    };
    if backend.addr.is_v4() != addr.is_v4() {
        count(Counter::SocketInconsistent);
        return PASS;
    }
    let reverse = Reverse { addr, port_be, zero: [0; 2], set };
    // Without the way back, answers would come from an unknown peer. A table without room costs just that, not the
    // connection.
    match moment {
        Moment::Connect => {
            let value = Connected {
                backend: backend.addr,
                reverse,
                namespace: [namespace as u32, (namespace >> 32) as u32],
                port_be: backend.port_be,
                protocol,
                zero: 0,
            };
            let _ = CONNECTED.insert(cookie, value, 0);
        }
        Moment::Send => remember(ReverseKey::new(cookie, backend.addr, backend.port_be), &reverse),
    }
    socket.write(&backend.addr, backend.port_be);
    count(Counter::SocketTranslated);
    PASS
}

#[inline(always)]
fn is_loopback(addr: &Addr) -> bool {
    if addr.is_v4() { addr.v4_word_be().to_ne_bytes()[0] == 127 } else { same_addr(addr, &LOOPBACK_V6) }
}

/// Whether a network namespace is the node's own.
#[inline(always)]
pub fn is_node(namespace: u64) -> bool {
    // SAFETY: a plain read; volatile, since the loader fills the value in after compilation.
    let node = unsafe { core::ptr::read_volatile(&raw const NODE_NETNS) };
    if node != 0 {
        return namespace == node;
    }
    // SAFETY: without a context the helper tells the first namespace's cookie.
    namespace == unsafe { bpf_get_netns_cookie(core::ptr::null_mut()) }
}

/// Notes an unconnected socket's peer, unless it is known: most datagrams go where the last one went.
#[inline(always)]
fn remember(key: ReverseKey, reverse: &Reverse) {
    // SAFETY: the value is only read.
    let known = match unsafe { REVERSE.get(key) } {
        Some(known) => {
            same_addr(&known.addr, &reverse.addr)
                && known.port_be == reverse.port_be
                && known.set == reverse.set
        }
        None => false,
    };
    if !known {
        let _ = REVERSE.insert(key, reverse, 0);
    }
}

/// The verdict of a call that fails; with this error where the kernel lets us choose.
#[inline(always)]
pub fn fail(error: i32) -> i32 {
    // SAFETY: a plain read; volatile, since the loader fills the value in after compilation.
    if unsafe { core::ptr::read_volatile(&raw const HAS_SET_RETVAL) } != 0 {
        // SAFETY: the helper has no preconditions in this hook.
        unsafe { bpf_set_retval(-error) };
    }
    REFUSE
}

/// Shows the address that the program dialled.
#[inline(always)]
fn restore(socket: &Socket) -> i32 {
    let (cookie, addr, port_be) = (socket.cookie(), socket.addr(), socket.port_be());
    // SAFETY: the value is only read.
    if let Some(connected) = unsafe { CONNECTED.get(cookie) }
        && same_addr(&connected.backend, &addr)
        && connected.port_be == port_be
    {
        let (addr, port_be) = (connected.reverse.addr, connected.reverse.port_be);
        socket.write(&addr, port_be);
        return PASS;
    }
    let key = ReverseKey::new(cookie, addr, port_be);
    // SAFETY: the value is only read.
    if let Some(reverse) = unsafe { REVERSE.get(key) } {
        let (addr, port_be) = (reverse.addr, reverse.port_be);
        socket.write(&addr, port_be);
    }
    PASS
}

/// connect(2), IPv4.
#[cgroup_sock_addr(connect4)]
pub fn skep_connect4(ctx: SockAddrContext) -> i32 {
    translate(&Socket::new(&ctx, Family::V4), Moment::Connect)
}

/// connect(2), IPv6 and v4-mapped.
#[cgroup_sock_addr(connect6)]
pub fn skep_connect6(ctx: SockAddrContext) -> i32 {
    translate(&Socket::new(&ctx, Family::V6), Moment::Connect)
}

/// sendmsg(2) of an unconnected socket, IPv4.
#[cgroup_sock_addr(sendmsg4)]
pub fn skep_sendmsg4(ctx: SockAddrContext) -> i32 {
    translate(&Socket::new(&ctx, Family::V4), Moment::Send)
}

/// sendmsg(2) of an unconnected socket, IPv6 and v4-mapped.
#[cgroup_sock_addr(sendmsg6)]
pub fn skep_sendmsg6(ctx: SockAddrContext) -> i32 {
    translate(&Socket::new(&ctx, Family::V6), Moment::Send)
}

/// The sender that recvmsg(2) reports, IPv4.
#[cgroup_sock_addr(recvmsg4)]
pub fn skep_recvmsg4(ctx: SockAddrContext) -> i32 {
    restore(&Socket::new(&ctx, Family::V4))
}

/// The sender that recvmsg(2) reports, IPv6 and v4-mapped.
#[cgroup_sock_addr(recvmsg6)]
pub fn skep_recvmsg6(ctx: SockAddrContext) -> i32 {
    restore(&Socket::new(&ctx, Family::V6))
}

/// getpeername(2), IPv4.
#[cgroup_sock_addr(getpeername4)]
pub fn skep_getpeername4(ctx: SockAddrContext) -> i32 {
    restore(&Socket::new(&ctx, Family::V4))
}

/// getpeername(2), IPv6 and v4-mapped.
#[cgroup_sock_addr(getpeername6)]
pub fn skep_getpeername6(ctx: SockAddrContext) -> i32 {
    restore(&Socket::new(&ctx, Family::V6))
}

/// The end of a socket.
#[cgroup_sock(sock_release)]
pub fn skep_release(ctx: SockContext) -> i32 {
    // SAFETY: the helper takes the context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // Most sockets were never translated: absent is as good as removed.
    let _ = CONNECTED.remove(cookie);
    PASS
}
