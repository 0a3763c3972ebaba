//! The files a pod gets from the agent: hosts, resolv.conf, hostname, termination messages.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::Pod;
use skep_agent_core::{
    files::{Resolver, aliases, hosts, resolver},
    view,
};

use super::NodeSettings;
use crate::Error;

/// The files of a pod.
#[derive(Clone, Debug)]
pub(super) struct PodFiles {
    pub hosts: PathBuf,
    pub resolv_conf: PathBuf,
    pub hostname: PathBuf,
}

pub(super) fn termination_file(folder: &Path, container: &str, attempt: u32) -> PathBuf {
    folder.join("containers").join(container).join(format!("{attempt}.termination"))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    // Not replaced when equal: running containers see the file itself, not its name.
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text).map_err(Error::io(path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(Error::io(path))
}

/// Writes the pod's files.
pub(super) fn prepare(pod: &Pod, ips: &[IpAddr], node: &NodeSettings) -> Result<PodFiles, Error> {
    let (_, _, uid) = view::identity(pod);
    let folder = node.pod_folder(uid).join("etc");
    fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let files = PodFiles {
        hosts: folder.join("hosts"),
        resolv_conf: folder.join("resolv.conf"),
        hostname: folder.join("hostname"),
    };
    let hosts_text = if view::host_network(pod) {
        let own = read_or_empty(Path::new("/etc/hosts"))?;
        let list = view::spec(pod).host_aliases.as_deref().unwrap_or_default();
        format!("# Kubernetes-managed hosts file (host network).\n{own}{}", aliases(list))
    } else {
        hosts(pod, ips, &node.dns.domain)
    };
    write(&files.hosts, &hosts_text)?;
    let host = Resolver::parse(&read_or_empty(&node.resolv_conf)?);
    write(&files.resolv_conf, &resolver(pod, &node.dns, &host).print())?;
    write(&files.hostname, &format!("{}\n", hostname(pod, node)?))?;
    Ok(files)
}

/// What `hostname` says in the pod's containers: in the host's network the host's name.
pub(super) fn hostname(pod: &Pod, node: &NodeSettings) -> Result<String, Error> {
    if view::host_network(pod) {
        let name = nix::unistd::gethostname().map_err(|e| Error::Config(format!("the host's name: {e}")))?;
        return Ok(name.to_string_lossy().into_owned());
    }
    view::kernel_hostname(pod, &node.dns.domain).map_err(|e| Error::Config(e.to_string()))
}

fn read_or_empty(path: &Path) -> Result<String, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Error::io(path)(error)),
    }
}

/// An empty file for a termination message, writable by whatever user the container has.
pub(super) fn termination(folder: &Path, container: &str, attempt: u32) -> Result<PathBuf, Error> {
    let path = termination_file(folder, container, attempt);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
    }
    fs::File::create(&path).map_err(Error::io(&path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).map_err(Error::io(&path))?;
    Ok(path)
}
