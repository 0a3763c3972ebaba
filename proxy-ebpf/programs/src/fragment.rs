//! Giving later fragments the ports of the first, in whatever order they come.
//!
//! A fragment that comes first is held: its frame is kept in a map and the packet let go. When the one with the ports
//! has been translated, the held frames are sent into the same interface again, one after another in a copy of its
//! buffer, and find the ports known. Removing the entry of a held frame is the right to send it, so no two processors
//! both do.
//!
//! What cannot be held (too many, too long) passes untranslated.

#![allow(missing_docs)] // The macro generates an undocumented item beside each documented one.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{LruHashMap, PerCpuArray};
use skep_ebpf_abi::counter::Counter;
use skep_ebpf_abi::fragment::{Datagram, Held, HeldKey, MAX_FRAME, MAX_HELD, Ports};

use crate::count::count;
use crate::flows::EEXIST;
use crate::packet::Packet;
use crate::select::now;
use crate::skb::Skb;
use crate::work::Work;

/// The ports of datagrams. Not pinned: an upgrade costs the datagrams that are just under way.
#[map(name = "datagrams")]
static DATAGRAMS: LruHashMap<Datagram, Ports> = LruHashMap::with_max_entries(8_192, 0);

/// Fragments that came before the first.
#[map(name = "held")]
static HELD: LruHashMap<HeldKey, Held> = LruHashMap::with_max_entries(1_024, 0);

/// A frame that is to be held, and the first fragment while its buffer carries others.
#[map(name = "frame")]
static FRAME: PerCpuArray<Held> = PerCpuArray::with_max_entries(1, 0);

/// What becomes of a later fragment.
pub enum Later {
    /// The packet has its ports.
    Known,
    /// It is kept; the packet itself must go.
    Held,
    /// Nobody knows its ports.
    Unknown,
}

#[inline(always)]
fn datagram(packet: &Packet) -> Datagram {
    let (src, dst) = (packet.tuple.src, packet.tuple.dst);
    Datagram { src, dst, id: packet.id, protocol: packet.protocol, zero: [0; 3] }
}

/// Gives a packet the ports of its datagram, if they are known.
#[inline(always)]
fn fill(datagram: &Datagram, packet: &mut Packet) -> bool {
    // SAFETY: the value is only read.
    let Some(ports) = (unsafe { DATAGRAMS.get(datagram) }) else { return false };
    if !ports.are_fresh(now()) {
        return false;
    }
    packet.tuple.src_port_be = ports.src_port_be;
    packet.tuple.dst_port_be = ports.dst_port_be;
    true
}

/// Notes the ports of a datagram.
#[inline(always)]
pub fn note(packet: &Packet) {
    let (src_port_be, dst_port_be) = (packet.tuple.src_port_be, packet.tuple.dst_port_be);
    let ports = Ports { src_port_be, dst_port_be, seen_ticks: now() };
    // Without room the others pass untranslated.
    let _ = DATAGRAMS.insert(datagram(packet), ports, 0);
}

/// Gives a later fragment the ports that the first one left, if it did.
#[inline(always)]
pub fn look_up(packet: &mut Packet) -> bool {
    fill(&datagram(packet), packet)
}

/// A later fragment of what comes in.
#[inline(always)]
pub fn later(skb: Skb, packet: &mut Packet) -> Later {
    let datagram = datagram(packet);
    if fill(&datagram, packet) {
        return Later::Known;
    }
    let Some(key) = hold(skb, &datagram) else { return Later::Unknown };
    // The first one may have passed on another processor meanwhile, and have missed this one.
    if fill(&datagram, packet) && HELD.remove(key).is_ok() {
        return Later::Known;
    }
    count(Counter::FragmentHeld);
    Later::Held
}

#[inline(always)]
fn hold(skb: Skb, datagram: &Datagram) -> Option<HeldKey> {
    let frame = FRAME.get_ptr_mut(0)?;
    // SAFETY: the pointer is this processor's value, and the programs are not preempted.
    let frame = unsafe { &mut *frame };
    if !copy_out(skb, frame) {
        return None;
    }
    let mut key = HeldKey { datagram: *datagram, index: 0 };
    for index in 0..MAX_HELD {
        key.index = index;
        match HELD.insert(key, &*frame, u64::from(BPF_NOEXIST)) {
            Ok(()) => return Some(key),
            Err(error) if error == EEXIST => {}
            Err(_) => return None,
        }
    }
    None
}

/// Copies the whole frame, if it is short enough.
#[inline(always)]
fn copy_out(skb: Skb, frame: &mut Held) -> bool {
    let length = skb.length();
    if length >= MAX_FRAME as u32 {
        return false;
    }
    frame.length = length;
    skb.load_frame(&mut frame.bytes, length).is_ok()
}

/// Puts a frame into the packet's place.
#[inline(always)]
fn copy_in(skb: Skb, frame: &Held) -> bool {
    let length = frame.length;
    skb.set_length(length).is_ok() && skb.store_frame(&frame.bytes, length).is_ok()
}

/// Notes a first fragment that has been dealt with, and sends on those that came before it.
#[inline(never)]
pub fn first(skb: Skb, work: &Work) {
    note(&work.packet);
    let Some(own) = FRAME.get_ptr_mut(0) else { return };
    // SAFETY: the pointer is this processor's value, and the programs are not preempted.
    let own = unsafe { &mut *own };
    let mut saved = false;
    let mut key = HeldKey { datagram: datagram(&work.packet), index: 0 };
    for index in 0..MAX_HELD {
        key.index = index;
        let Some(held) = HELD.get_ptr(key) else { continue };
        if !saved && !copy_out(skb, own) {
            return;
        }
        saved = true;
        // SAFETY: map values stay readable while the program runs. One that is given to another frame meanwhile has
        // lost its key, and is not sent.
        let is_whole = copy_in(skb, unsafe { &*held });
        if HELD.remove(key).is_ok() && is_whole {
            skb.clone_in();
        }
    }
    if saved {
        copy_in(skb, own);
    }
}
