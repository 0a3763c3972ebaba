//! Removing everything the pod network ever made on a node.

use std::path::Path;

use crate::{
    Error, PodNetwork, Result,
    config::{netns_dir, network_state_dir},
    kernel::Netlink,
    model::Wanted,
    netns::{self, Namespace},
    plan::{self, Strays, peers::Ways},
    sysctl,
};

impl PodNetwork {
    /// Removes all pods' namespaces and interfaces, all our routes, the records, and puts sysctls back. Works
    /// in the calling thread's network namespace, without records too, and can be repeated. No [`PodNetwork`]
    /// may be alive beside it.
    ///
    /// # Errors
    /// When the kernel or the disk refuses; what was not reached stays for the next call.
    pub async fn purge(run_dir: &Path, state_dir: &Path) -> Result<()> {
        let namespace = Namespace::own()?;
        let netlink = Netlink::connect(&namespace).await?;
        let seen = netlink.observe().await?;
        let mut ops = plan::steps(&Wanted::default(), &seen, Strays::Remove);
        ops.extend(plan::stale_peer_steps(&Ways::default(), &Wanted::default(), &seen));
        netlink.apply(&ops).await?;
        let pinned = netns_dir(run_dir);
        for name in netns::list(&pinned)? {
            netns::remove(&pinned.join(name))?;
        }
        remove_folder(&pinned)?;
        sysctl::restore(&namespace, state_dir).await?;
        remove_tree(&network_state_dir(state_dir))
    }
}

fn remove_folder(path: &Path) -> Result<()> {
    ignore_absent(std::fs::remove_dir(path), path)
}

fn remove_tree(path: &Path) -> Result<()> {
    ignore_absent(std::fs::remove_dir_all(path), path)
}

fn ignore_absent(outcome: std::io::Result<()>, path: &Path) -> Result<()> {
    match outcome {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove folder", path, error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
