//! Names derived from a pod's uid: file names, interface names, hardware addresses.
//!
//! All are pure functions of the uid, so that an agent that lost its records finds its devices again.

use crate::{Error, Result};

/// Every host-side interface of a pod starts with this.
const PREFIX: &str = "skep";
/// Hexadecimal digits after the prefix: 4 + 11 is the longest interface name Linux takes.
const DIGITS: usize = 11;

/// The VXLAN device that leads to nodes on other segments.
pub(crate) const TUNNEL: &str = "skep-vxlan";

/// The hardware address of a node's end of the tunnel, a function of its address inside: every node knows
/// those of all others without asking.
pub(crate) fn tunnel_mac(inside: std::net::IpAddr) -> [u8; 6] {
    let [a, b, c, d, e, ..] = fnv64(&inside.to_string(), 0).to_be_bytes();
    [0x02, a, b, c, d, e]
}

/// Refuses a uid that could escape the namespace folder.
pub(crate) fn check_uid(uid: &str) -> Result<()> {
    let safe = (1..=64).contains(&uid.len()) && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if safe { Ok(()) } else { Err(Error::InvalidUid(uid.chars().take(80).collect())) }
}

/// The host's end of a pod's veth pair. `attempt` tells apart two uids whose hashes collide.
pub(crate) fn host_interface(uid: &str, attempt: u32) -> String {
    let hash = fnv64(uid, attempt) >> (64 - 4 * DIGITS);
    format!("{PREFIX}{hash:0DIGITS$x}")
}

/// Whether an interface name is one that [`host_interface`] makes.
pub(crate) fn is_host_interface(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .is_some_and(|rest| rest.len() == DIGITS && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The hardware addresses of the pod's and the host's end. They are set rather than left to the kernel,
/// because udev rewrites random ones on some systems after the neighbours were written.
pub(crate) fn macs(uid: &str) -> ([u8; 6], [u8; 6]) {
    let [a, b, c, d, e, ..] = fnv64(uid, 0).to_be_bytes();
    // 0x02: locally administered, unicast.
    ([0x02, a, b, c, d, e & 0xfe], [0x02, a, b, c, d, e | 0x01])
}

/// FNV-1a with a final mix, for the high bits are the ones used.
fn fnv64(uid: &str, attempt: u32) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in uid.bytes().chain(attempt.to_le_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_uids_pass() {
        for (uid, good) in [
            ("3f2a1c9e-6a51-4a68-9be1-000000000001", true),
            ("a", true),
            ("", false),
            ("..", false),
            ("a/b", false),
            ("a b", false),
            (&"x".repeat(65), false),
        ] {
            assert_eq!(check_uid(uid).is_ok(), good, "{uid}");
        }
    }

    #[test]
    fn interface_names_fit_and_are_recognised() {
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..10_000 {
            let name = host_interface(&format!("uid-{n}"), 0);
            assert_eq!(name.len(), 15);
            assert!(is_host_interface(&name));
            seen.insert(name);
        }
        assert_eq!(seen.len(), 10_000);
        assert_ne!(host_interface("a", 0), host_interface("a", 1));
        for other in ["eth0", "skep", "skep0", "skepnotahexnum", "veth12345678901"] {
            assert!(!is_host_interface(other), "{other}");
        }
    }

    #[test]
    fn the_two_ends_have_different_local_unicast_addresses() {
        let (pod, host) = macs("some-uid");
        assert_ne!(pod, host);
        assert_eq!((pod[0] & 3, host[0] & 3), (2, 2));
    }
}
