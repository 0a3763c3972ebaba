//! The mounts of a container: its volumes, and the files of the agent.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::Container;
use skep_agent_core::env::expand;
use skep_runtime::spec::{Mount, Propagation};

use super::files::PodFiles;
use crate::volumes::{Error, sub_path};

const TERMINATION_PATH: &str = "/dev/termination-log";

/// All mounts of a container.
pub(super) fn all(
    container: &Container,
    places: &BTreeMap<String, PathBuf>,
    env: &BTreeMap<String, String>,
    files: &PodFiles,
    termination: &Path,
) -> Result<Vec<Mount>, Error> {
    let mut mounts = Vec::new();
    for volume in container.volume_mounts.iter().flatten() {
        let place = places.get(&volume.name).ok_or_else(|| Error::Unsupported(volume.name.clone()))?;
        let part = match (&volume.sub_path_expr, &volume.sub_path) {
            (Some(expression), _) if !expression.is_empty() => Some(expand(expression, env)),
            (_, Some(path)) if !path.is_empty() => Some(path.clone()),
            _ => None,
        };
        let source = match part {
            Some(part) => sub_path(&volume.name, place, &part)?,
            None => place.clone(),
        };
        mounts.push(Mount {
            source,
            target: absolute(&volume.mount_path),
            read_only: volume.read_only.unwrap_or(false),
            propagation: match volume.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::Private,
            },
        });
    }
    let message =
        container.termination_message_path.as_deref().filter(|p| !p.is_empty()).unwrap_or(TERMINATION_PATH);
    let own = [
        (files.hosts.as_path(), "/etc/hosts"),
        (files.resolv_conf.as_path(), "/etc/resolv.conf"),
        (files.hostname.as_path(), "/etc/hostname"),
        (termination, message),
    ];
    for (source, target) in own {
        let target = absolute(target);
        // A container that mounts its own keeps it.
        if !mounts.iter().any(|m| m.target == target) {
            mounts.push(Mount { source: source.to_owned(), target, ..Mount::default() });
        }
    }
    Ok(mounts)
}

fn absolute(path: &str) -> PathBuf {
    Path::new("/").join(path)
}
