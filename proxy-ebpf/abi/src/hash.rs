//! A small, well-mixing hash that needs no table, no loop and no 128-bit arithmetic.

use crate::address::Addr;

/// Spreads the bits of `value` over all 64.
#[inline(always)]
pub const fn mix(value: u64) -> u64 {
    let mut x = value;
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// Hashes the words in order.
#[inline(always)]
pub const fn words(seed: u64, a: u64, b: u64, c: u64) -> u64 {
    let h = mix(seed ^ a).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let h = mix(h ^ b).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mix(h ^ c)
}

/// Hashes one end of a flow and the port and protocol it dials.
#[inline(always)]
pub const fn client(seed: u64, addr: &Addr, src_port_be: u16, dst_port_be: u16, protocol: u8) -> u64 {
    let a = ((addr.words_be[0] as u64) << 32) | addr.words_be[1] as u64;
    let b = ((addr.words_be[2] as u64) << 32) | addr.words_be[3] as u64;
    words(seed, a, b, ((src_port_be as u64) << 32) | ((dst_port_be as u64) << 16) | protocol as u64)
}

/// Maps a hash onto `0..count` without a division; 0 when `count` is 0.
#[inline(always)]
pub const fn scale(hash: u32, count: u32) -> u32 {
    ((hash as u64 * count as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn neighbouring_ports_spread_evenly() {
        let mut buckets = [0u32; 16];
        let addr = Addr::v4(0x0100_000a);
        for port in 0..16_000u16 {
            let hash = client(1, &addr, port, 80, 6);
            buckets[scale(hash as u32, 16) as usize] += 1;
        }
        assert!(buckets.iter().all(|&n| (850..1150).contains(&n)), "{buckets:?}");
    }

    proptest! {
        #[test]
        fn scaling_stays_inside(hash: u32, count in 1u32..) {
            prop_assert!(scale(hash, count) < count);
        }
    }
}
