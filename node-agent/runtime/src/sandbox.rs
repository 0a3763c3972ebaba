//! What the containers of a pod share besides the network: IPC and UTS namespaces, pinned by bind mounts,
//! and `/dev/shm`. No process keeps them alive, so no pause container is needed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use crate::{Error, Result};

/// The pinned pieces of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// IPC namespace.
    pub ipc: PathBuf,
    /// UTS namespace, with the pod's host name set.
    pub uts: PathBuf,
    /// A tmpfs for `/dev/shm`.
    pub shm: PathBuf,
}

const SHM: &str = "mode=1777,size=64m";

fn folder(run: &Path, uid: &str) -> PathBuf {
    run.join("pods").join(uid)
}

/// Creates or finds the sandbox of a pod. Blocking: call it from a blocking thread.
pub fn ensure(run: &Path, uid: &str, hostname: &str) -> Result<Sandbox> {
    let dir = folder(run, uid);
    fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
    let sandbox = Sandbox { ipc: dir.join("ipc"), uts: dir.join("uts"), shm: dir.join("shm") };
    if !is_mounted(&sandbox.shm)? {
        fs::create_dir_all(&sandbox.shm).map_err(Error::io("create", &sandbox.shm))?;
        mount(
            Some("shm"),
            &sandbox.shm,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            Some(SHM),
        )
        .map_err(Error::errno("mount", &sandbox.shm))?;
    }
    if is_mounted(&sandbox.ipc)? && is_mounted(&sandbox.uts)? {
        return Ok(sandbox);
    }
    for pin in [&sandbox.ipc, &sandbox.uts] {
        detach(pin)?;
        fs::File::create(pin).map_err(Error::io("create", pin))?;
    }
    // Namespaces belong to a thread: a fresh one makes them, pins them and ends.
    let (pins, hostname) = (sandbox.clone(), hostname.to_owned());
    let thread = std::thread::Builder::new()
        .name("pod-sandbox".to_owned())
        .spawn(move || pin(&pins, &hostname))
        .map_err(Error::io("start thread", &dir))?;
    thread.join().map_err(|_| Error::Invalid("sandbox thread panicked".to_owned()))??;
    Ok(sandbox)
}

fn pin(sandbox: &Sandbox, hostname: &str) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS)
        .map_err(Error::errno("unshare", &sandbox.ipc))?;
    // sethostname acts on the namespace just made.
    nix::unistd::sethostname(hostname).map_err(Error::errno("set host name", &sandbox.uts))?;
    for (kind, target) in [("ipc", &sandbox.ipc), ("uts", &sandbox.uts)] {
        let source = PathBuf::from(format!("/proc/thread-self/ns/{kind}"));
        mount(Some(&source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(Error::errno("pin namespace", target))?;
    }
    Ok(())
}

/// Removes the sandbox of a pod. Nothing to remove is fine.
pub fn remove(run: &Path, uid: &str) -> Result<()> {
    let dir = folder(run, uid);
    for name in ["ipc", "uts", "shm"] {
        detach(&dir.join(name))?;
    }
    match fs::remove_dir_all(&dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &dir)(e)),
        _ => Ok(()),
    }
}

/// The pods that have a sandbox.
pub fn list(run: &Path) -> Result<Vec<String>> {
    let dir = run.join("pods");
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", &dir)(e)),
    };
    entries
        .map(|entry| Ok(entry.map_err(Error::io("list", &dir))?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Unmounts everything that is mounted on `path`.
pub fn detach(path: &Path) -> Result<()> {
    while is_mounted(path)? {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(Error::errno("unmount", path)(errno)),
        }
    }
    Ok(())
}

/// Whether something is mounted exactly there.
pub fn is_mounted(path: &Path) -> Result<bool> {
    Ok(mounts_under(path)?.iter().any(|m| m == path))
}

/// Mount points at or below `path`, innermost last.
pub fn mounts_under(path: &Path) -> Result<Vec<PathBuf>> {
    let table =
        fs::read_to_string("/proc/self/mountinfo").map_err(Error::io("read", "/proc/self/mountinfo"))?;
    Ok(table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|escaped| PathBuf::from(escaped.replace("\\040", " ").replace("\\134", "\\")))
        .filter(|m| m.starts_with(path))
        .collect())
}
