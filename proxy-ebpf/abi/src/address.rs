//! One form for addresses of both families.
//!
//! IPv4 is kept as its v4-mapped IPv6 address. One set of maps and one piece of code then serve both families, and
//! a v4-mapped destination of an IPv6 socket finds IPv4 services with no special case. The price is twelve more
//! bytes to hash, a few nanoseconds in a connect.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::plain::plain;

/// An IPv6 or v4-mapped IPv4 address as it lies in memory.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Addr {
    /// The address in network byte order.
    pub words_be: [u32; 4],
}
plain!(Addr, 16);

/// The third word of every v4-mapped address.
const MAPPED: u32 = 0xffff_u32.to_be();

impl Addr {
    /// `::`.
    pub const UNSPECIFIED: Self = Self { words_be: [0; 4] };

    /// From the four bytes of an IPv4 header, unswapped.
    #[inline(always)]
    pub const fn v4(word_be: u32) -> Self {
        Self { words_be: [0, 0, MAPPED, word_be] }
    }

    /// From the words of an IPv6 header, unswapped.
    #[inline(always)]
    pub const fn v6(words_be: [u32; 4]) -> Self {
        Self { words_be }
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.words_be[0] == 0 && self.words_be[1] == 0 && self.words_be[2] == MAPPED
    }

    /// The IPv4 address as in a header; meaningful when [`is_v4`](Self::is_v4).
    #[inline(always)]
    pub const fn v4_word_be(&self) -> u32 {
        self.words_be[3]
    }

    /// Whether nothing is set, in either family.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        self.words_be[3] == 0
            && self.words_be[0] == 0
            && self.words_be[1] == 0
            && (self.words_be[2] == 0 || self.is_v4())
    }

    /// How many leading bits of this form a prefix length of the address's own family covers.
    pub const fn prefix_bits(&self, length: u8) -> u32 {
        if self.is_v4() { 96 + length as u32 } else { length as u32 }
    }
}

impl From<IpAddr> for Addr {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::v4(u32::from_ne_bytes(v4.octets())),
            IpAddr::V6(v6) => {
                let bytes = v6.octets();
                let mut words_be = [0; 4];
                for (word, chunk) in words_be.iter_mut().zip(bytes.chunks_exact(4)) {
                    *word = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
                }
                Self { words_be }
            }
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(address: Addr) -> Self {
        if address.is_v4() {
            return Self::V4(Ipv4Addr::from(address.v4_word_be().to_ne_bytes()));
        }
        let mut bytes = [0; 16];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(address.words_be) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        Self::V6(Ipv6Addr::from(bytes))
    }
}

impl core::fmt::Display for Addr {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn both_families_survive_the_way_there_and_back() {
        for text in ["10.96.0.1", "0.0.0.0", "255.255.255.255", "::", "::1", "fd00:1:2:3:4:5:6:7"] {
            assert_eq!(IpAddr::from(Addr::from(ip(text))), ip(text));
        }
    }

    #[test]
    fn a_v4_mapped_address_of_an_ipv6_socket_equals_the_ipv4_one() {
        assert_eq!(Addr::from(ip("::ffff:10.96.0.1")), Addr::from(ip("10.96.0.1")));
    }

    #[test]
    fn unspecified_is_known_in_both_families() {
        assert!(Addr::from(ip("0.0.0.0")).is_unspecified());
        assert!(Addr::from(ip("::")).is_unspecified());
        assert!(!Addr::from(ip("127.0.0.1")).is_unspecified());
        assert!(!Addr::from(ip("::1")).is_unspecified());
    }
}
