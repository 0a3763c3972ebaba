//! What can stop the proxy.

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The data plane refused.
    #[error("the data plane")]
    DataPlane(#[from] skep_ebpf_loader::Error),
    /// The node's addresses could not be read.
    #[error("reading the node's addresses")]
    Addresses(#[source] std::io::Error),
    /// A report could not be written as JSON.
    #[error("writing a report")]
    Report(#[from] serde_json::Error),
    /// A tool could not be run to its end.
    #[error("running {command}")]
    Start {
        /// The command line.
        command: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A tool refused.
    #[error("{command} failed ({status}): {said}")]
    Tool {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it wrote to its standard error.
        said: String,
    },
    /// The kernel's table of connections refused.
    #[error("the table of connections")]
    Conntrack(#[source] std::io::Error),
    /// A file could not be read or written.
    #[error("{path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A mode was asked for that this node cannot run.
    #[error("proxy mode {mode} cannot be used: {why}")]
    Mode {
        /// Which.
        mode: crate::mode::ProxyMode,
        /// Why not.
        why: String,
    },
}

impl Error {
    /// For `map_err` on what was done to a file.
    pub(crate) fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::File { path: path.display().to_string(), source }
    }

    /// Whether a map has no room.
    pub(crate) fn is_full(&self) -> bool {
        use skep_ebpf_loader::Error as E;
        matches!(self, Self::DataPlane(E::Full { .. } | E::NoMemory { .. } | E::CannotExchange))
    }

    /// The error with its causes, for an event.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }
}
