//! Names that survive a restart; the maps know only numbers.

use std::fmt;

use skep_ebpf_abi::Addr;
use skep_ebpf_abi::hash::words;

/// A Service.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServiceName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which of a port's endpoints a set holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// All that may serve.
    Cluster,
    /// Those of this node.
    Local,
}

/// A set of backends.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SetName {
    /// The service.
    pub service: ServiceName,
    /// The port's name; empty for the only one.
    pub port: String,
    /// The transport protocol's number.
    pub protocol: u8,
    /// The family.
    pub v6: bool,
    /// Which endpoints.
    pub scope: Scope,
}

/// A backend; services share it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BackendName {
    /// The endpoint's address.
    pub addr: Addr,
    /// The endpoint's port.
    pub port: u16,
    /// The transport protocol's number.
    pub protocol: u8,
}

impl BackendName {
    /// The name as a number, the same on every node and in every version: tables of hashes are made from it.
    pub fn number(&self) -> u64 {
        let [a, b, c, d] = self.addr.words_be.map(|word| u64::from(u32::from_be(word)));
        words((a << 32) | b, (c << 32) | d, u64::from(self.port), u64::from(self.protocol))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_backends_are_for_good() {
        let name = |ip: &str, port, protocol| {
            let addr = ip.parse::<std::net::IpAddr>().expect("an address").into();
            BackendName { addr, port, protocol }.number()
        };
        // Nodes of different versions must choose alike: these may not change.
        assert_eq!(name("10.244.0.5", 8080, 6), 0x38a8_4e15_a1e4_d248);
        assert_eq!(name("fd00:10:244::5", 53, 17), 0xd331_f593_b1e6_ac47);
    }
}
