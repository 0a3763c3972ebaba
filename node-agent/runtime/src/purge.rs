//! Removing everything: containers, tasks, snapshots, images, the daemon, mounts, groups and folders.

use std::{fs, path::Path};

use containerd_client::services::v1::snapshots::{ListSnapshotsRequest, RemoveSnapshotRequest};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Error, Result, Runtime, RuntimeConfig,
    rpc::{Named, SNAPSHOTTER, optional},
    sandbox,
};

/// Removes all that a runtime with this configuration left on the machine. With a foreign containerd only
/// our namespace is emptied.
pub async fn purge(config: RuntimeConfig) -> Result<()> {
    let daemon = config.daemon();
    // A daemon that is down is started once more: only it can undo its shims and snapshots.
    let known = config.socket.is_some() || daemon.running().is_some() || daemon.root.join("root").exists();
    if known {
        let cancel = CancellationToken::new();
        let tracker = TaskTracker::new();
        let runtime = Runtime::start(config.clone(), tracker.clone(), cancel.clone()).await;
        let emptied = match &runtime {
            Ok(runtime) => empty(runtime).await,
            Err(error) => Err(Error::Daemon(error.to_string())),
        };
        cancel.cancel();
        tracker.close();
        tracker.wait().await;
        emptied?;
    }
    if config.socket.is_none() {
        daemon.stop().await?;
        remove_tree(&config.root)?;
    }
    for uid in sandbox::list(&config.run_dir)? {
        sandbox::remove(&config.run_dir, &uid)?;
    }
    remove_tree(&config.run_dir)
}

/// Ends and removes every container of ours, and our own containerd; images and their content stay.
pub async fn stop(config: RuntimeConfig) -> Result<()> {
    let daemon = config.daemon();
    if config.socket.is_none() && daemon.running().is_none() && !daemon.root.join("root").exists() {
        return Ok(());
    }
    let (cancel, tracker) = (CancellationToken::new(), TaskTracker::new());
    let runtime = Runtime::start(config.clone(), tracker.clone(), cancel.clone()).await;
    let stopped = match &runtime {
        Ok(runtime) => remove_containers(runtime).await,
        Err(error) => Err(Error::Daemon(error.to_string())),
    };
    cancel.cancel();
    tracker.close();
    tracker.wait().await;
    stopped?;
    if config.socket.is_none() {
        daemon.stop().await?;
    }
    Ok(())
}

async fn remove_containers(runtime: &Runtime) -> Result<()> {
    for record in runtime.containers().await? {
        runtime.remove_container(&record.id).await?;
    }
    Ok(())
}

async fn empty(runtime: &Runtime) -> Result<()> {
    remove_containers(runtime).await?;
    for (name, _) in crate::image::store_names(&runtime.rpc).await? {
        runtime.remove_image(&name).await?;
    }
    // Snapshots that garbage collection has not reached: children before parents, so several rounds.
    for _ in 0..64 {
        let list = runtime
            .rpc
            .request(ListSnapshotsRequest { snapshotter: SNAPSHOTTER.to_owned(), filters: Vec::new() });
        let mut stream = runtime.rpc.snapshots().list(list).await.named("snapshot list")?;
        let mut keys = Vec::new();
        while let Some(part) = stream
            .message()
            .await
            .map_err(|source| Error::Rpc { op: "snapshot list", source: Box::new(source) })?
        {
            keys.extend(part.info.into_iter().map(|i| i.name));
        }
        if keys.is_empty() {
            return Ok(());
        }
        for key in keys {
            let remove =
                runtime.rpc.request(RemoveSnapshotRequest { snapshotter: SNAPSHOTTER.to_owned(), key });
            // One with children refuses until a later round.
            if let Err(error) =
                optional(runtime.rpc.snapshots().remove(remove).await.named("snapshot remove"))
            {
                tracing::debug!(%error, "snapshot stays for another round");
            }
        }
    }
    Err(Error::Timeout("removing snapshots"))
}

/// Unmounts everything below a folder and removes it.
pub fn remove_tree(path: &Path) -> Result<()> {
    let mut mounts = sandbox::mounts_under(path)?;
    mounts.sort_by_key(|m| std::cmp::Reverse(m.components().count()));
    for mount in mounts {
        sandbox::detach(&mount)?;
    }
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
        _ => Ok(()),
    }
}
