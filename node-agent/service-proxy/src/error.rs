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
}
