//! Names of chains: a digest that keeps them apart, and words that people read.

use sha2::{Digest, Sha256};

use super::view::UnitName;
use crate::names::BackendName;

/// nft and the kernel take more; what is cut off is in the digest.
const LONGEST: usize = 120;
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The first `length` letters of the digest in base 32.
pub(crate) fn digest(text: &str, length: usize) -> String {
    let mut letters = String::with_capacity(length);
    let (mut buffer, mut bits) = (0_u32, 0);
    for byte in Sha256::digest(text.as_bytes()) {
        buffer = (buffer << 8) | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            letters.push(char::from(ALPHABET[(buffer >> bits) as usize & 31]));
        }
        buffer &= (1 << bits) - 1;
    }
    letters.truncate(length);
    letters
}

/// A chain of a service's port for nft: `service-XXXXXXXX-namespace/name/tcp/port`.
pub(crate) fn nft_unit(kind: &str, unit: &UnitName) -> String {
    cut(format!("{kind}-{}-{unit}", digest(&unit.to_string(), 8)))
}

/// A chain of an endpoint of a service's port for nft.
pub(crate) fn nft_endpoint(kind: &str, unit: &UnitName, backend: &BackendName) -> String {
    // A colon ends a name.
    let address = backend.addr.to_string().replace(':', ".");
    let words = format!("{unit}__{address}/{}", backend.port);
    cut(format!("{kind}-{}-{words}", digest(&words, 8)))
}

/// A chain of a service's port for iptables, which takes 28 letters.
pub(crate) fn iptables_unit(kind: &str, unit: &UnitName) -> String {
    format!("SKEP-{kind}-{}", digest(&unit.to_string(), 16))
}

/// A chain of an endpoint of a service's port for iptables.
pub(crate) fn iptables_endpoint(unit: &UnitName, backend: &BackendName) -> String {
    format!("SKEP-SEP-{}", digest(&format!("{unit}__{}/{}", backend.addr, backend.port), 16))
}

fn cut(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(LONGEST));
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ServiceName;

    fn unit(port: &str) -> UnitName {
        let service = ServiceName { namespace: "ns".to_owned(), name: "web".to_owned() };
        UnitName { service, port: port.to_owned(), protocol: 6, v6: false }
    }

    #[test]
    fn names_are_short_stable_and_apart() {
        assert_eq!(digest("", 8), "4OYMIQUY");
        assert_ne!(nft_unit("service", &unit("a")), nft_unit("service", &unit("b")));
        assert!(nft_unit("service", &unit("http")).ends_with("-ns/web/tcp/http"));
        assert!(nft_unit("service", &unit(&"x".repeat(300))).len() <= LONGEST);
        assert!(iptables_unit("SVC", &unit(&"x".repeat(300))).len() <= 28);
        let address: std::net::IpAddr = "fd00::1".parse().expect("an address");
        let backend = BackendName { addr: address.into(), port: 80, protocol: 6 };
        assert!(nft_endpoint("endpoint", &unit("http"), &backend).ends_with("__fd00..1/80"));
    }
}
