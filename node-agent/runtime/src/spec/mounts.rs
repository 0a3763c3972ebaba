//! The mounts of a container: what every container has, then the pod's volumes.

use std::{
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use serde_json::{Value, json};

use super::{Mount, Propagation};
use crate::ContainerRequest;

pub(super) fn all(request: &ContainerRequest) -> Vec<Value> {
    let privileged = request.security.privileged;
    let writable = if privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        mount("proc", "proc", "/proc", &["nosuid", "noexec", "nodev"]),
        mount("tmpfs", "tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "devpts",
            "devpts",
            "/dev/pts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("mqueue", "mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
        mount("sysfs", "sysfs", "/sys", &["nosuid", "noexec", "nodev", writable]),
        mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", writable]),
    ];
    match &request.shm {
        Some(path) => mounts.push(mount("bind", &path.to_string_lossy(), "/dev/shm", &["rbind", "rw"])),
        None => mounts.push(mount(
            "tmpfs",
            "shm",
            "/dev/shm",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        )),
    }
    // A volume over one of ours replaces it.
    let replaced = |target: &str| request.mounts.iter().any(|m| m.target == Path::new(target));
    mounts.retain(|m| !m["destination"].as_str().is_some_and(replaced));
    let mut volumes: Vec<&Mount> = request.mounts.iter().collect();
    // Outer before inner, whatever order the pod lists them in.
    volumes.sort_by_key(|m| m.target.components().count());
    mounts.extend(volumes.into_iter().map(bind));
    mounts
}

fn mount(kind: &str, source: &str, target: &str, options: &[&str]) -> Value {
    json!({ "type": kind, "source": source, "destination": target, "options": options })
}

fn bind(volume: &Mount) -> Value {
    let propagation = match volume.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    let access = if volume.read_only { "ro" } else { "rw" };
    mount(
        "bind",
        &volume.source.to_string_lossy(),
        &volume.target.to_string_lossy(),
        &["rbind", propagation, access],
    )
}

/// The root must propagate at least as much as any volume does.
pub(super) fn root_propagation(mounts: &[Mount]) -> &'static str {
    let any = |p| mounts.iter().any(|m| m.propagation == p);
    if any(Propagation::Bidirectional) {
        "rshared"
    } else if any(Propagation::HostToContainer) {
        "rslave"
    } else {
        ""
    }
}

/// The device nodes of the host, for privileged containers.
pub(super) fn host_devices(dev: &Path) -> Vec<Value> {
    let mut devices = Vec::new();
    let Ok(entries) = std::fs::read_dir(dev) else { return devices };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            if !["pts", "shm", "mqueue", "fd", "hugepages"].iter().any(|skip| name == *skip) {
                devices.extend(host_devices(&path));
            }
            continue;
        }
        let kind = if meta.file_type().is_char_device() {
            "c"
        } else if meta.file_type().is_block_device() {
            "b"
        } else {
            continue;
        };
        // The runtime makes these itself.
        if ["console", "ptmx", "tty", "null", "zero", "full", "random", "urandom"]
            .iter()
            .any(|skip| name == *skip)
        {
            continue;
        }
        devices.push(json!({
            "path": path.to_string_lossy(), "type": kind,
            "major": nix::sys::stat::major(meta.rdev()), "minor": nix::sys::stat::minor(meta.rdev()),
            "fileMode": meta.mode() & 0o7777, "uid": meta.uid(), "gid": meta.gid(),
        }));
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::tests::request;

    #[test]
    fn volumes_come_outer_first_and_replace_ours() {
        let mut request = request("a");
        let volume = |target: &str| Mount { source: "/s".into(), target: target.into(), ..Mount::default() };
        request.mounts = vec![volume("/a/b/c"), volume("/a"), volume("/dev/shm")];
        let mounts = all(&request);
        let targets: Vec<_> = mounts.iter().map(|m| m["destination"].as_str().unwrap()).collect();
        assert_eq!(targets.iter().filter(|t| **t == "/dev/shm").count(), 1);
        let at = |t: &str| targets.iter().position(|x| *x == t).unwrap();
        assert!(at("/a") < at("/a/b/c"));
    }
}
