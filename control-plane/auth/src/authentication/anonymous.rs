//! Who may ask without saying who they are, and for what.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// Anonymous requests: which are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// None.
    Off,
    /// All that authorization lets pass.
    On,
    /// Those for exactly these paths.
    Paths(Vec<String>),
}

impl Anonymous {
    fn allows(&self, path: &str) -> bool {
        match self {
            Self::Off => false,
            Self::On => true,
            Self::Paths(paths) => paths.iter().any(|allowed| allowed == path),
        }
    }
}

/// The same, exchangeable while requests are served; clones are one.
#[derive(Clone, Debug)]
pub struct LiveAnonymous(Arc<ArcSwap<Anonymous>>);

impl LiveAnonymous {
    /// From now on it is this.
    pub fn replace(&self, anonymous: Anonymous) {
        self.0.store(Arc::new(anonymous));
    }

    pub(super) fn allows(&self, path: &str) -> bool {
        self.0.load().allows(path)
    }
}

impl From<Anonymous> for LiveAnonymous {
    fn from(anonymous: Anonymous) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(anonymous)))
    }
}

impl From<bool> for LiveAnonymous {
    fn from(on: bool) -> Self {
        Anonymous::from(on).into()
    }
}

impl From<bool> for Anonymous {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}
