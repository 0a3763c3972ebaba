//! "Packet too big": without it a sender never learns why its large packets vanish.
//!
//! Packets that go around the host's stack, or into the tunnel, meet nobody who would say it. The packet itself
//! becomes the error, as if its destination had sent it, and comes in where it came from or would have come back:
//! what is translated there for answers is so for errors too.

#![allow(missing_docs)] // The macro generates an undocumented item beside each documented one.

use aya_ebpf::bindings::{BPF_F_INGRESS, TC_ACT_SHOT};
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use skep_ebpf_abi::counter::Counter;
use skep_ebpf_abi::tunnel::SMALLEST_MTU;
use skep_ebpf_abi::{ICMP, ICMP_V6};

use crate::count::count;
use crate::packet::L3;
use crate::skb::{Refused, Skb, difference};

/// What is quoted of the packet: both headers, and a checksum still to be filled in stays inside.
const QUOTE: u32 = 64;
/// The quote while the packet changes.
#[map(name = "quoted")]
static QUOTED: PerCpuArray<[u32; QUOTE as usize / 4]> = PerCpuArray::with_max_entries(1, 0);
/// The headers of the error, before the quote.
const HEADERS_V4: u32 = 20 + 8;
const HEADERS_V6: u32 = 40 + 8;

/// Whether a packet must not be cut: IPv6 ones never may.
#[inline(always)]
pub fn forbids_fragments(skb: Skb, v4: bool) -> bool {
    const DONT_FRAGMENT: u8 = 0x40;
    !v4 || skb.load::<u8>(L3 + 6).is_some_and(|flags| flags & DONT_FRAGMENT != 0)
}

/// Turns a packet that is longer than `mtu` into the error about it, received at the interface of the hook. The
/// packet itself is no ICMP error: an error about an error would never end.
#[inline(never)]
pub fn bounce(skb: Skb, v4: bool, mtu: u32) -> i32 {
    // Kernels before 5.12 do not say what fits.
    let mtu = if mtu == 0 { SMALLEST_MTU } else { mtu };
    if turn(skb, v4, mtu).is_err() {
        count(Counter::DropRewrite);
        return TC_ACT_SHOT;
    }
    count(Counter::TooBig);
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_redirect(skb.ifindex(), u64::from(BPF_F_INGRESS)) as i32 }
}

#[inline(always)]
fn turn(skb: Skb, v4: bool, mtu: u32) -> Result<(), Refused> {
    let quote = QUOTED.get_ptr_mut(0).ok_or(Refused)?;
    // SAFETY: this processor's own value, and the program is not preempted.
    let quote = unsafe { &mut *quote };
    skb.load_into(L3, quote)?;
    let grow = if v4 { HEADERS_V4 } else { HEADERS_V6 };
    const MAC: u32 = 1;
    // SAFETY: the helpers check the lengths.
    let resized = unsafe {
        bpf_skb_change_tail(skb.raw, L3 + QUOTE, 0) == 0
            && bpf_skb_adjust_room(skb.raw, grow as i32, MAC, 0) == 0
    };
    if !resized {
        return Err(Refused);
    }
    swap_hardware_addresses(skb)?;
    if v4 { write_v4(skb, quote, mtu) } else { write_v6(skb, quote, mtu) }
}

/// Turns a frame back to where it came from.
#[inline(always)]
pub fn swap_hardware_addresses(skb: Skb) -> Result<(), Refused> {
    let old: [u32; 3] = skb.load(0).ok_or(Refused)?;
    let [d0, d1, d2, d3] = old[0].to_ne_bytes();
    let [d4, d5, s0, s1] = old[1].to_ne_bytes();
    let [s2, s3, s4, s5] = old[2].to_ne_bytes();
    let new = [
        u32::from_ne_bytes([s0, s1, s2, s3]),
        u32::from_ne_bytes([s4, s5, d0, d1]),
        u32::from_ne_bytes([d2, d3, d4, d5]),
    ];
    skb.store(0, &new)
}

/// The checksum of words whose sum is `sum` so far.
#[inline(always)]
fn folded(sum: u32) -> u32 {
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    !sum & 0xffff
}

/// The sum of `words`, on top of `seed`.
#[inline(always)]
fn sum<const N: usize>(words: &[u32; N], seed: u32) -> u32 {
    let more = difference(&[0; N], words);
    let (total, carry) = seed.overflowing_add(more);
    total + u32::from(carry)
}

#[inline(always)]
fn write_v4(skb: Skb, quote: &[u32; 16], mtu: u32) -> Result<(), Refused> {
    let (src, dst) = (quote[3], quote[4]);
    let [high, low] = ((HEADERS_V4 + QUOTE) as u16).to_be_bytes();
    let mut header = [
        u32::from_ne_bytes([0x45, 0, high, low]),
        u32::from_ne_bytes([0, 0, 0x40, 0]),
        u32::from_ne_bytes([64, ICMP, 0, 0]),
        dst,
        src,
    ];
    // In the machine's order the checksum is the upper half of a word whose lower half comes first in memory.
    header[2] |= (folded(sum(&header, 0)) as u16 as u32) << 16;
    skb.store(L3, &header)?;
    let [high, low] = (mtu as u16).to_be_bytes();
    // Unreachable: fragmentation needed.
    let mut error = [u32::from_ne_bytes([3, 4, 0, 0]), u32::from_ne_bytes([0, 0, high, low])];
    error[0] |= folded(sum(&error, sum(quote, 0))) << 16;
    skb.store(L3 + 20, &error)
}

#[inline(always)]
fn write_v6(skb: Skb, quote: &[u32; 16], mtu: u32) -> Result<(), Refused> {
    let src = [quote[2], quote[3], quote[4], quote[5]];
    let dst = [quote[6], quote[7], quote[8], quote[9]];
    let length = 8 + QUOTE;
    let [high, low] = (length as u16).to_be_bytes();
    let header = [
        u32::from_ne_bytes([0x60, 0, 0, 0]),
        u32::from_ne_bytes([high, low, ICMP_V6, 64]),
        dst[0],
        dst[1],
        dst[2],
        dst[3],
        src[0],
        src[1],
        src[2],
        src[3],
    ];
    skb.store(L3, &header)?;
    let mut error = [u32::from_ne_bytes([2, 0, 0, 0]), mtu.to_be()];
    let pseudo = [length.to_be(), u32::from(ICMP_V6).to_be()];
    let addresses = sum(&src, sum(&dst, 0));
    error[0] |= folded(sum(&error, sum(&pseudo, sum(quote, addresses)))) << 16;
    skb.store(L3 + 40, &error)
}
