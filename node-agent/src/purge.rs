//! Leaves nothing: containers, images, network, pins, groups, folders.

use std::path::PathBuf;

use skep_ebpf_loader::DataPlane;
use skep_network::PodNetwork;
use skep_runtime::{RuntimeConfig, cgroup::Hierarchies, purge::remove_tree};

use crate::Error;

/// Where an agent lived: the folders of its [`crate::AgentConfig`].
#[derive(Clone, Debug)]
pub struct PurgeOptions {
    /// As it was.
    pub state_dir: PathBuf,
    /// As it was.
    pub containerd_root: PathBuf,
    /// As it was.
    pub run_dir: PathBuf,
    /// As it was; only this agent's pods' logs are below it.
    pub log_dir: PathBuf,
    /// As it was.
    pub pin_dir: PathBuf,
    /// As it was.
    pub cgroup: Option<String>,
    /// As it was.
    pub containerd_socket: Option<PathBuf>,
    /// A program for the log writer; any that exists.
    pub log_writer: PathBuf,
}

impl PurgeOptions {
    fn runtime(&self) -> RuntimeConfig {
        let mut runtime = RuntimeConfig::new(&self.containerd_root, &self.run_dir);
        runtime.socket.clone_from(&self.containerd_socket);
        runtime.log_writer.clone_from(&self.log_writer);
        runtime
    }
}

impl From<&crate::AgentConfig> for PurgeOptions {
    fn from(config: &crate::AgentConfig) -> Self {
        Self {
            state_dir: config.state_dir.clone(),
            containerd_root: config.containerd_root.clone(),
            run_dir: config.run_dir.clone(),
            log_dir: config.log_dir.clone(),
            pin_dir: config.pin_dir.clone(),
            cgroup: config.cgroup.clone(),
            containerd_socket: config.containerd_socket.clone(),
            log_writer: config.log_writer.clone(),
        }
    }
}

/// Ends the node's containers and its containerd. The agent must not run; its next start makes the pods
/// anew, at the addresses that they have.
///
/// # Errors
/// When containerd can't be reached or refuses.
pub async fn stop_pods(options: PurgeOptions) -> Result<(), Error> {
    skep_runtime::purge::stop(options.runtime()).await?;
    Ok(())
}

/// Removes everything an agent made. It must not run any more. Can be repeated.
///
/// # Errors
/// The first thing that cannot be removed; what comes after it stays for the next call.
pub async fn purge(options: PurgeOptions) -> Result<(), Error> {
    let runtime = options.runtime();
    // Rules lead to pods that go.
    skep_service_proxy::purge_rules(&options.state_dir.join(crate::PROXY_RECORD)).await?;
    // The network first: its pins live in the run folder, and it restores sysctls by its records.
    PodNetwork::purge(&options.run_dir, &options.state_dir).await?;
    skep_runtime::purge::purge(runtime).await?;
    if options.pin_dir.exists() {
        DataPlane::purge(&options.pin_dir)?;
    }
    let base = options.cgroup.as_deref().unwrap_or("").trim_matches('/').to_owned();
    let pods = if base.is_empty() { "/skep-pods".to_owned() } else { format!("/{base}/pods") };
    Hierarchies::probe()?.remove(&pods).await?;
    for dir in [&options.state_dir, &options.run_dir, &options.log_dir] {
        remove_tree(dir)?;
    }
    Ok(())
}
