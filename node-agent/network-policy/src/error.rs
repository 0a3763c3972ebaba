//! What can go wrong.

/// Why a pod may not start yet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Policies are not in the kernel in time.
    #[error("network policy is not in the kernel yet: {0}")]
    NotReady(String),
    /// A policy selects the pod, and the node cannot enforce it.
    #[error(
        "NetworkPolicy {0} selects the pod, and this node cannot enforce it: the eBPF programs are not loaded"
    )]
    Unenforceable(String),
    /// The agent is ending.
    #[error("the node agent is stopping")]
    Stopping,
}
