//! Who may ask without saying who they are, and for what.

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
    pub(super) fn allows(&self, path: &str) -> bool {
        match self {
            Self::Off => false,
            Self::On => true,
            Self::Paths(paths) => paths.iter().any(|allowed| allowed == path),
        }
    }
}

impl From<bool> for Anonymous {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}
