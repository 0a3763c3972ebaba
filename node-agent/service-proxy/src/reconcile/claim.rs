//! What a service has in the maps, or is about to have. Kept for every service, so it is small.

use skep_ebpf_abi::service::FrontendKey;
use skep_ebpf_loader::sockets::Gone;

use crate::names::{Scope, SetName};

/// Which of a service's sets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SetKey {
    port: Box<str>,
    protocol: u8,
    v6: bool,
    scope: Scope,
}

impl From<&SetName> for SetKey {
    fn from(name: &SetName) -> Self {
        Self { port: name.port.as_str().into(), protocol: name.protocol, v6: name.v6, scope: name.scope }
    }
}

impl SetKey {
    fn is(&self, name: &SetName) -> bool {
        *self.port == *name.port
            && self.protocol == name.protocol
            && self.v6 == name.v6
            && self.scope == name.scope
    }
}

/// One service's part.
#[derive(Debug, Default)]
pub(super) struct Claim {
    /// The frontends it owns, in order.
    pub(super) frontends: Box<[FrontendKey]>,
    /// Its sets with their numbers.
    pub(super) sets: Vec<(SetKey, u32)>,
    /// Frontends it has let go, until it is certain that they are not in the maps, or another's.
    pub(super) closing: Vec<FrontendKey>,
    /// Backends that left its sets, until their sockets can be destroyed.
    pub(super) gone: Vec<Gone>,
}

impl Claim {
    /// A set's number.
    pub(super) fn set(&self, name: &SetName) -> Option<u32> {
        self.sets.iter().find(|(key, _)| key.is(name)).map(|(_, id)| *id)
    }

    /// Whether it can be forgotten.
    pub(super) fn is_nothing(&self) -> bool {
        self.frontends.is_empty() && self.sets.is_empty()
    }
}
