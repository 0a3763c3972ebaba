//! Keeping node ports for services: a process of the node that binds one would wait for connections which never reach
//! it, as they are translated before.

#![allow(missing_docs)] // The macro generates an undocumented item beside each documented one.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use skep_ebpf_abi::Addr;
use skep_ebpf_abi::service::{FrontendKey, frontend};

use crate::flows::node_source;
use crate::maps::FRONTENDS;
use crate::socket::{Family, LOOPBACK_V4, LOOPBACK_V6, PASS, Socket, fail, is_node};

const EADDRINUSE: i32 = 98;

#[inline(always)]
fn is_node_port(addr: &Addr, port_be: u16, protocol: u8) -> bool {
    // SAFETY: the value is only read.
    match unsafe { FRONTENDS.get(FrontendKey::new(*addr, port_be, protocol)) } {
        Some(known) => known.flags & frontend::KIND_MASK == frontend::NODE_PORT,
        None => false,
    }
}

/// Whether a service has the port at one of the addresses that "any" stands for. Where node ports are served on some
/// addresses only, the node's main one and loopback speak for all.
#[inline(always)]
fn is_taken(v4: bool, port_be: u16, protocol: u8) -> bool {
    let loopback = if v4 { LOOPBACK_V4 } else { LOOPBACK_V6 };
    if is_node_port(&loopback, port_be, protocol) {
        return true;
    }
    match node_source(v4) {
        Some(addr) => is_node_port(&addr, port_be, protocol),
        None => false,
    }
}

/// Whether a service has what a socket is to be bound to. A function of its own: the verifier must see the verdict as a
/// constant, and would lose it among so many branches.
#[inline(never)]
fn conflicts<const V6: bool>(raw: *mut bpf_sock_addr) -> bool {
    let socket = Socket { raw, family: if V6 { Family::V6 } else { Family::V4 } };
    let (addr, port_be, protocol) = (socket.addr(), socket.port_be(), socket.protocol());
    // Port 0 is one that the kernel chooses, outside of the range of node ports. Pods have ports of their own.
    if port_be == 0 || !is_node(socket.namespace()) {
        return false;
    }
    if !addr.is_unspecified() {
        return is_node_port(&addr, port_be, protocol);
    }
    is_taken(true, port_be, protocol) || (V6 && is_taken(false, port_be, protocol))
}

#[inline(always)]
fn guard<const V6: bool>(ctx: &SockAddrContext) -> i32 {
    if conflicts::<V6>(ctx.as_ptr().cast()) { fail(EADDRINUSE) } else { PASS }
}

/// bind(2), IPv4.
#[cgroup_sock_addr(bind4)]
pub fn skep_bind4(ctx: SockAddrContext) -> i32 {
    guard::<false>(&ctx)
}

/// bind(2), IPv6 and v4-mapped.
#[cgroup_sock_addr(bind6)]
pub fn skep_bind6(ctx: SockAddrContext) -> i32 {
    guard::<true>(&ctx)
}
