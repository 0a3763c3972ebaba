//! The XDP program of an uplink: a packet to a service whose backend is on another node, and the answer to it, go out
//! again where they came in, before the kernel has made a buffer for them.
//!
//! Everything else passes up to the tc program, which does it all by itself: what is for this node or its pods, what
//! leaves over another interface or through the tunnel, what nobody serves, fragments, ICMP, SCTP, packets too long for
//! their way, neighbours whose hardware address is not known yet. A flow that is opened here is known there, so that
//! both always agree on the backend.
//!
//! Checksums are complete here: where a device leaves them to be filled in (a peer on the same machine that shares its
//! buffers), it must not. Helpers that read and write frames are in kernels from 5.18 on.

#![allow(missing_docs)] // The macro generates an undocumented item beside each documented one.

use aya_ebpf::bindings::{BPF_FIB_LKUP_RET_SUCCESS, xdp_action, xdp_md};
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_xdp_load_bytes, bpf_xdp_store_bytes};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use skep_ebpf_abi::counter::Counter;
use skep_ebpf_abi::service::FrontendKey;
use skep_ebpf_abi::sum::{fold, word};
use skep_ebpf_abi::{TCP, UDP};

use crate::count::count;
use crate::flows::{Found, Plan, find, open};
use crate::hooks::{NOBODY, Origin, PLANNED, balance};
use crate::maps::FRONTENDS;
use crate::packet::{Content, parse_as};
use crate::rewrite::{address_difference, write_addresses};
use crate::route::{local, way};
use crate::skb::{Bytes, Refused, difference, done};
use crate::work::{Work, settled};

/// A frame that has no buffer yet.
#[derive(Clone, Copy)]
struct Frame {
    raw: *mut xdp_md,
}

impl Bytes for Frame {
    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> Option<T> {
        let mut value = core::mem::MaybeUninit::<T>::uninit();
        let size = core::mem::size_of::<T>() as u32;
        // SAFETY: the helper writes exactly `size_of::<T>()` bytes, and `T` is only instantiated with integers.
        unsafe {
            if bpf_xdp_load_bytes(self.raw, offset, value.as_mut_ptr().cast(), size) == 0 {
                Some(value.assume_init())
            } else {
                None
            }
        }
    }

    #[inline(always)]
    fn store<T: Copy>(self, offset: u32, value: &T) -> Result<(), Refused> {
        let size = core::mem::size_of::<T>() as u32;
        // SAFETY: the helper reads exactly `size_of::<T>()` bytes of a live value.
        done(unsafe { bpf_xdp_store_bytes(self.raw, offset, (&raw const *value).cast_mut().cast(), size) })
    }
}

/// From outside, as early as can be.
#[xdp]
pub fn skep_xdp(ctx: XdpContext) -> u32 {
    let frame = Frame { raw: ctx.ctx };
    match forward(frame) {
        Some(verdict) => verdict,
        None => xdp_action::XDP_PASS,
    }
}

/// The verdict on a packet that is forwarded or dropped here.
#[inline(always)]
fn forward(frame: Frame) -> Option<u32> {
    let kind: u16 = frame.load(12)?;
    let work = parse_as(frame, u32::from(kind))?;
    let packet = &work.packet;
    if packet.content != Content::Flow || packet.first_fragment || !matches!(packet.protocol, TCP | UDP) {
        return None;
    }
    match turn(settled(work)) {
        DROPPED => return Some(xdp_action::XDP_DROP),
        NOT_OURS => return None,
        _ => {}
    }
    // For a pod or a socket of this node: the flow is open, and the programs on its way find it.
    if local(&work.to.dst).is_some() {
        return None;
    }
    match send(frame, settled(work)) {
        xdp_action::XDP_PASS => None,
        verdict => Some(verdict),
    }
}

const TURNED: u32 = 0;
const DROPPED: u32 = 1;
const NOT_OURS: u32 = 2;

/// Finds or opens the packet's flow: `work.to` is what it becomes.
#[inline(never)]
fn turn(work: &mut Work) -> u32 {
    match find(work) {
        Found::Forward | Found::Reply => return TURNED,
        Found::AsIs => return NOT_OURS,
        Found::Unknown => {}
    }
    let packet = &work.packet;
    let key = FrontendKey::new(packet.tuple.dst, packet.tuple.dst_port_be, packet.protocol);
    // SAFETY: the value is only read.
    let Some(frontend) = (unsafe { FRONTENDS.get(key) }) else { return NOT_OURS };
    let mut plan = Plan::default();
    match balance(packet, frontend, Origin::Outside, &mut plan) {
        PLANNED if open(work, &plan) => TURNED,
        NOBODY => NOT_OURS,
        _ => DROPPED,
    }
}

/// Sends the packet out again where it came in, if that is its way.
#[inline(never)]
fn send(frame: Frame, work: &Work) -> u32 {
    try_send(frame, work).unwrap_or(xdp_action::XDP_PASS)
}

#[inline(always)]
fn try_send(frame: Frame, work: &Work) -> Option<u32> {
    let (packet, to) = (&work.packet, &work.to);
    // SAFETY: the context is valid for the program's life.
    let ifindex = unsafe { (*frame.raw).ingress_ifindex };
    let hops_at = packet.l3 + if packet.v4 { 8 } else { 7 };
    let hops: u8 = frame.load(hops_at)?;
    if hops <= 1 {
        return None;
    }
    let length = packet.end(frame)?.wrapping_sub(packet.l3);
    let query = way(packet, to, ifindex)?;
    let [low, high] = (length as u16).to_ne_bytes();
    query[1] = u32::from_ne_bytes([0, 0, low, high]);
    // SAFETY: the query is as large as the helper's structure.
    let found = unsafe { bpf_fib_lookup(frame.raw.cast(), query.as_mut_ptr().cast(), 64, 0) };
    if found != i64::from(BPF_FIB_LKUP_RET_SUCCESS) || query[2] != ifindex {
        return None;
    }
    if rewrite(frame, work, query, hops).is_err() {
        count(Counter::DropRewrite);
        return Some(xdp_action::XDP_DROP);
    }
    count(Counter::XdpForwarded);
    Some(xdp_action::XDP_TX)
}

/// Makes the packet what it is to become, with all checksums and one hop less.
#[inline(always)]
fn rewrite(frame: Frame, work: &Work, way: &[u32; 16], hops: u8) -> Result<(), Refused> {
    let (packet, to) = (&work.packet, &work.to);
    let addresses = address_difference(packet.v4, &packet.tuple, to);
    let at = packet.l4 + if packet.protocol == TCP { 16 } else { 6 };
    let checksum: u16 = frame.load(at).ok_or(Refused)?;
    // Zero is UDP without one.
    if packet.protocol == TCP || checksum != 0 {
        let pair = |src: u16, dst: u16| [u32::from(src) | (u32::from(dst) << 16)];
        let ports = difference(
            &pair(packet.tuple.src_port_be, packet.tuple.dst_port_be),
            &pair(to.src_port_be, to.dst_port_be),
        );
        let sum = fold(u32::from(!checksum) + word(addresses) + word(ports));
        frame.store(at, &if packet.protocol == UDP && sum == 0 { 0xffff } else { sum })?;
    }
    frame.store(packet.l4, &[to.src_port_be, to.dst_port_be])?;
    if packet.v4 {
        let header: [u16; 2] = frame.load(packet.l3 + 8).ok_or(Refused)?;
        let [_, protocol] = header[0].to_ne_bytes();
        let less = u16::from_ne_bytes([hops - 1, protocol]);
        let change = difference(&[u32::from(header[0])], &[u32::from(less)]);
        let sum = fold(u32::from(!header[1]) + word(addresses) + word(change));
        frame.store(packet.l3 + 8, &[less, sum])?;
    } else {
        frame.store(packet.l3 + 7, &(hops - 1))?;
    }
    write_addresses(frame, packet.v4, packet.l3, to)?;
    hardware(frame, way)
}

/// `struct bpf_fib_lookup` ends with the hardware addresses of the interface and of the next hop.
#[inline(always)]
fn hardware(frame: Frame, way: &[u32; 16]) -> Result<(), Refused> {
    let (a, b, c) = (way[13].to_ne_bytes(), way[14].to_ne_bytes(), way[15].to_ne_bytes());
    frame.store(
        0,
        &[
            u32::from_ne_bytes([b[2], b[3], c[0], c[1]]),
            u32::from_ne_bytes([c[2], c[3], a[0], a[1]]),
            u32::from_ne_bytes([a[2], a[3], b[0], b[1]]),
        ],
    )
}
