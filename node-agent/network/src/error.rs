//! What can go wrong in pod networking, with the operation that failed named.

use std::path::PathBuf;

use ipnet::IpNet;

/// The result of every operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of a pod network operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration cannot work.
    #[error("invalid network configuration: {0}")]
    Config(String),
    /// A pod uid that is not safe as a file name.
    #[error("invalid pod uid {0:?}: want 1 to 64 letters, digits or '-'")]
    InvalidUid(String),
    /// No address can be given out now.
    #[error("no free address in {cidr}: {used} in use, {cooling} released too recently")]
    Exhausted {
        /// The range that is full.
        cidr: IpNet,
        /// Addresses that pods hold.
        used: usize,
        /// Addresses that were released a moment ago.
        cooling: usize,
    },
    /// A file operation failed.
    #[error("{action} {path}", path = .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A request to the kernel failed.
    #[error("{action}")]
    Netlink {
        /// What was tried.
        action: String,
        /// Why it failed.
        #[source]
        source: rtnetlink::Error,
    },
    /// A namespace operation failed.
    #[error("{action} network namespace {path}", path = .path.display())]
    Namespace {
        /// What was tried.
        action: &'static str,
        /// Which namespace.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The eBPF data path refused.
    #[error("{action}")]
    DataPath {
        /// What was tried.
        action: String,
        /// Why it failed.
        #[source]
        source: crate::DataPathError,
    },
    /// An interface that was just made is not there.
    #[error("interface {0} vanished while it was set up")]
    Vanished(String),
    /// The helper thread for a namespace died.
    #[error("the helper thread for a network namespace panicked")]
    HelperPanicked,
}

impl Error {
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::File { action, path: path.into(), source }
    }

    pub(crate) fn namespace(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Namespace { action, path: path.into(), source }
    }

    pub(crate) fn netlink(action: impl Into<String>, source: rtnetlink::Error) -> Self {
        Self::Netlink { action: action.into(), source }
    }
}
