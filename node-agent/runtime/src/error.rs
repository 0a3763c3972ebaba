//! What can go wrong between the agent and containerd, and what the agent must be able to tell apart.

use std::{io, path::PathBuf};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the container runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// containerd answered an error.
    #[error("containerd: {op}: {}", source.message())]
    Rpc {
        /// What was asked of it.
        op: &'static str,
        /// Its answer.
        source: Box<tonic::Status>,
    },
    /// containerd cannot be reached or started.
    #[error("containerd: {0}")]
    Daemon(String),
    /// A file, mount or socket of the host.
    #[error("{path}: {action}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The image reference cannot be parsed.
    #[error("invalid image reference {0:?}: {1}")]
    Reference(String, &'static str),
    /// The registry refused or cannot be reached.
    #[error("registry {host}: {message}")]
    Registry {
        /// Registry host.
        host: String,
        /// What it said.
        message: String,
    },
    /// The registry does not have the image, or hides it.
    #[error("image {0}: not found or access denied")]
    ImageNotFound(String),
    /// A manifest, index or config that is not what it should be.
    #[error("image {image}: {message}")]
    BadImage {
        /// Which image.
        image: String,
        /// What is wrong with it.
        message: String,
    },
    /// The image would run as root though the pod forbids it.
    #[error("container has runAsNonRoot and image will run as root")]
    RunsAsRoot,
    /// runAsNonRoot cannot be verified for a named user.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({0}), cannot verify user is non-root"
    )]
    UnverifiableUser(String),
    /// The user or group is not in the image.
    #[error("unable to find {0}: no matching entries in the image")]
    UnknownUser(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The operation took longer than it may.
    #[error("{0} timed out")]
    Timeout(&'static str),
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn errno(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(nix::errno::Errno) -> Self {
        let path = path.into();
        move |errno| Self::Io { action, path, source: errno.into() }
    }

    fn code(&self) -> Option<tonic::Code> {
        match self {
            Self::Rpc { source, .. } => Some(source.code()),
            _ => None,
        }
    }

    /// containerd does not know the thing.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(tonic::Code::NotFound)
    }

    /// containerd has the thing already.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.code() == Some(tonic::Code::AlreadyExists)
    }

    /// A process cannot be deleted because it has not ended.
    pub(crate) fn still_runs(&self) -> bool {
        // The shim's own refusal arrives without a code.
        self.code() == Some(tonic::Code::FailedPrecondition)
            || matches!(self, Self::Rpc { source, .. }
                // The second: another caller deleted it this moment, and the shim went.
                if source.message().contains("running process") || source.message().contains("ttrpc: closed"))
    }

    /// The connection broke; asking again may help.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        use tonic::Code;
        matches!(self.code(), Some(Code::Unavailable | Code::Unknown | Code::Cancelled))
    }
}
