//! The node agent: registers the node, runs its pods, and composes network, service proxy and DNS.
//!
//! Tasks, all owned by [`run`] and ended by its token: the node's heartbeat ([`node`]), one worker per pod
//! ([`pods`]) fed by an informer of the pods bound to this node, the kubelet API ([`server`]), housekeeping
//! ([`housekeeping`]), DNS and its advertisement ([`dns`]). Stopping the agent stops none of the containers: the
//! next one adopts them from containerd.
//!
//! Invariants: a container starts only after its pod's network and volumes are there; a pod's object is
//! removed from the API only after nothing of it is left on the node.

pub mod config;
pub mod node;
pub mod pods;
pub mod server;
pub mod volumes;

mod compose;
mod dns;
mod housekeeping;
mod metrics;
mod purge;

pub use compose::run;
pub use config::AgentConfig;
pub use purge::{PurgeOptions, purge, stop_pods};
pub use skep_network::{PodRouting, TUNNEL_PORT};

/// The file in the agent's state folder that says what the numbers in the maps of policies stand for.
pub const POLICY_NAMES: &str = "policy.json";

/// The file in the agent's state folder that says in which mode services were left.
pub const PROXY_RECORD: &str = "proxy.json";

/// What ends the agent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container runtime.
    #[error("container runtime: {0}")]
    Runtime(#[from] skep_runtime::Error),
    /// The pod network.
    #[error("pod network: {0}")]
    Network(#[from] skep_network::Error),
    /// Network policy.
    #[error(transparent)]
    Policy(#[from] skep_network_policy::Error),
    /// The eBPF data plane.
    #[error("data plane: {0}")]
    DataPlane(#[from] skep_ebpf_loader::Error),
    /// The service proxy.
    #[error("service proxy: {0}")]
    Proxy(#[from] skep_service_proxy::Error),
    /// The API server.
    #[error("API server: {0}")]
    Api(#[from] skep_client::Error),
    /// The kubelet API.
    #[error("kubelet API: {0}")]
    Server(#[from] server::TlsError),
    /// Volumes.
    #[error(transparent)]
    Volumes(#[from] volumes::Error),
    /// A file of the agent.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What cannot work.
    #[error("{0}")]
    Config(String),
}

impl Error {
    pub(crate) fn io(path: impl Into<std::path::PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
