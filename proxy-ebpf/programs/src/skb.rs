//! The few helpers on a packet buffer, with their safety argued once.

use aya_ebpf::bindings::{__sk_buff, BPF_F_INGRESS, BPF_F_INVALIDATE_HASH, BPF_F_RECOMPUTE_CSUM};
use aya_ebpf::helpers::generated::{
    bpf_clone_redirect, bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect,
    bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes,
};

use skep_ebpf_abi::fragment::MAX_FRAME;

use crate::packet::L3;

/// A packet buffer.
#[derive(Clone, Copy)]
pub struct Skb {
    /// The context.
    pub raw: *mut __sk_buff,
}

/// A helper refused.
pub struct Refused;

/// A packet as a hook sees it: a buffer here, a frame before there is one in `xdp`.
pub trait Bytes: Copy {
    /// Reads plain data at `offset`.
    fn load<T: Copy>(self, offset: u32) -> Option<T>;
    /// Writes plain data at `offset`.
    fn store<T: Copy>(self, offset: u32, value: &T) -> Result<(), Refused>;
}

impl Bytes for Skb {
    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> Option<T> {
        Self::load(self, offset)
    }

    #[inline(always)]
    fn store<T: Copy>(self, offset: u32, value: &T) -> Result<(), Refused> {
        Self::store(self, offset, value)
    }
}

impl Skb {
    /// Reads plain data at `offset`.
    #[inline(always)]
    pub fn load<T: Copy>(self, offset: u32) -> Option<T> {
        let mut value = core::mem::MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes exactly `size_of::<T>()` bytes, and `T` is only instantiated with integers.
        unsafe {
            let size = core::mem::size_of::<T>() as u32;
            if bpf_skb_load_bytes(self.raw.cast(), offset, value.as_mut_ptr().cast(), size) == 0 {
                Some(value.assume_init())
            } else {
                None
            }
        }
    }

    /// Reads plain data at `offset` into a place that is there already.
    #[inline(always)]
    pub fn load_into<T: Copy>(self, offset: u32, place: &mut T) -> Result<(), Refused> {
        let size = core::mem::size_of::<T>() as u32;
        // SAFETY: the helper writes exactly `size_of::<T>()` bytes, and `T` is only instantiated with integers.
        done(unsafe { bpf_skb_load_bytes(self.raw.cast(), offset, (&raw mut *place).cast(), size) })
    }

    /// Writes plain data at `offset`.
    #[inline(always)]
    pub fn store<T: Copy>(self, offset: u32, value: &T) -> Result<(), Refused> {
        // SAFETY: the helper reads exactly `size_of::<T>()` bytes of a live value.
        let result = unsafe {
            bpf_skb_store_bytes(
                self.raw,
                offset,
                (&raw const *value).cast(),
                core::mem::size_of::<T>() as u32,
                0,
            )
        };
        done(result)
    }

    /// Repairs an IP header's checksum by a difference.
    #[inline(always)]
    pub fn fix_l3(self, offset: u32, difference: u32) -> Result<(), Refused> {
        // SAFETY: the helper checks the offset.
        done(unsafe { bpf_l3_csum_replace(self.raw, offset, 0, u64::from(difference), 0) })
    }

    /// Repairs a transport checksum by a difference of `from_to` values of `flags`' width.
    #[inline(always)]
    pub fn fix_l4(self, offset: u32, from: u64, to: u64, flags: u64) -> Result<(), Refused> {
        // SAFETY: the helper checks the offset.
        done(unsafe { bpf_l4_csum_replace(self.raw, offset, from, to, flags) })
    }

    /// The kind of network protocol, in network byte order.
    #[inline(always)]
    pub fn protocol(self) -> u32 {
        // SAFETY: the context is valid for the program's life.
        unsafe { (*self.raw).protocol }
    }

    /// Cuts the packet off, or makes it longer.
    #[inline(always)]
    pub fn set_length(self, length: u32) -> Result<(), Refused> {
        // SAFETY: the helper checks the length; no pointer into the packet is kept anywhere.
        done(unsafe { bpf_skb_change_tail(self.raw, length, 0) })
    }

    /// Makes room before the network header.
    #[inline(always)]
    pub fn make_room(self, bytes: i32, mode: u32) -> Result<(), Refused> {
        // SAFETY: the helper checks the length; no pointer into the packet is kept anywhere.
        done(unsafe { bpf_skb_adjust_room(self.raw, bytes, mode, 0) })
    }

    /// The packet's length from its Ethernet header on.
    #[inline(always)]
    pub fn length(self) -> u32 {
        // SAFETY: the context is valid for the program's life.
        unsafe { (*self.raw).len }
    }

    /// Reads the whole frame of `length` bytes.
    #[inline(always)]
    pub fn load_frame(self, into: &mut [u8; MAX_FRAME], length: u32) -> Result<(), Refused> {
        let length = bounded(length)?;
        // SAFETY: the length is within the buffer, and the helper checks that the packet is as long.
        done(unsafe { bpf_skb_load_bytes(self.raw.cast(), 0, into.as_mut_ptr().cast(), length) })
    }

    /// Writes the whole frame of `length` bytes.
    #[inline(always)]
    pub fn store_frame(self, from: &[u8; MAX_FRAME], length: u32) -> Result<(), Refused> {
        let length = bounded(length)?;
        let flags = u64::from(BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH);
        // SAFETY: the length is within the buffer, and the helper checks that the packet is as long.
        done(unsafe { bpf_skb_store_bytes(self.raw, 0, from.as_ptr().cast(), length, flags) })
    }

    /// Lets a copy of the packet come in once more over the same interface.
    #[inline(always)]
    pub fn clone_in(self) {
        // SAFETY: the helper has no preconditions; a copy that cannot be made is lost like a packet on the wire.
        let _ = unsafe { bpf_clone_redirect(self.raw, self.ifindex(), u64::from(BPF_F_INGRESS)) };
    }

    /// Sends the packet out where it came in; the verdict.
    #[inline(always)]
    pub fn send_back(self) -> i32 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_redirect(self.ifindex(), 0) as i32 }
    }

    /// The payload of each packet that this large one will become; 0 for one that stays as it is.
    #[inline(always)]
    pub fn gso_size(self) -> u32 {
        // SAFETY: the context is valid for the program's life.
        unsafe { (*self.raw).gso_size }
    }

    /// The interface the program is attached to.
    #[inline(always)]
    pub fn ifindex(self) -> u32 {
        // SAFETY: the context is valid for the program's life.
        unsafe { (*self.raw).ifindex }
    }
}

/// Whether a helper did what it should.
#[inline(always)]
pub fn done(result: i64) -> Result<(), Refused> {
    if result == 0 { Ok(()) } else { Err(Refused) }
}

/// What to add to a checksum when `from` becomes `to`.
#[inline(always)]
pub fn difference<T: Copy>(from: &T, to: &T) -> u32 {
    let size = core::mem::size_of::<T>() as u32;
    // SAFETY: both values are live, and their size is a multiple of four.
    let result = unsafe {
        bpf_csum_diff((&raw const *from).cast_mut().cast(), size, (&raw const *to).cast_mut().cast(), size, 0)
    };
    result as u32
}

/// A frame's length as the verifier wants to see it: masked to the buffer, and not nothing.
#[inline(always)]
fn bounded(length: u32) -> Result<u32, Refused> {
    let length = length & (MAX_FRAME as u32 - 1);
    if length < L3 { Err(Refused) } else { Ok(length) }
}
