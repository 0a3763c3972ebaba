//! Names that survive a restart; the maps know only numbers.

use std::fmt;

use skep_ebpf_abi::Addr;

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
