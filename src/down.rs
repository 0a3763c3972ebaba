//! `skep down`: stops what runs on this node; with `--purge` removes every trace.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;
use skep_node_agent::PurgeOptions;

use crate::agent::NodeOptions;
use crate::folders::Folders;
use crate::isolate::Isolation;
use crate::{kubeconfig, runtime};

/// `skep down`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    folders: Folders,
    #[command(flatten)]
    isolation: Isolation,
    #[command(flatten)]
    node: NodeOptions,
    /// Remove everything: pods, images, network, maps, the cluster's state and keys.
    #[arg(long)]
    purge: bool,
}

/// `skep down`.
pub(crate) fn main(options: Options) -> Result<()> {
    options.isolation.enter()?;
    let _lock = options.folders.lock()?;
    runtime::run(async move |_| {
        let purge = PurgeOptions {
            state_dir: options.folders.agent(),
            containerd_root: options.folders.state_dir.join("containerd"),
            run_dir: options.folders.run_dir.clone(),
            log_dir: options.folders.log_dir.clone(),
            pin_dir: options.folders.pin_dir.clone(),
            cgroup: options.isolation.cgroup.clone(),
            containerd_socket: options.node.containerd_socket.clone(),
            log_writer: std::env::current_exe().context("finding this program's path")?,
        };
        if !options.purge {
            return Ok(skep_node_agent::stop_pods(purge).await?);
        }
        skep_node_agent::purge(purge).await?;
        kubeconfig::unlink_home(&options.folders.admin_kubeconfig())?;
        remove(&options.folders.state_dir)
    })
}

/// The folder with all that is in it. Absent is success.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}
