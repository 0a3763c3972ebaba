//! A network namespace with cgroups of the same name.

use std::{
    ffi::OsStr,
    fs::File,
    future::Future,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use anyhow::{Context, Result, anyhow};
use nix::{
    mount::{MntFlags, umount2},
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{cgroup::CgroupTree, ip, reaper};

/// Where `ip netns` and `skep --netns` look for names.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// Where boxes have their folders.
pub(crate) const RUN_DIR: &str = "/run/skep-tests";
/// Where boxes may pin eBPF maps and links, each in a folder of its name.
pub(crate) const BPF_DIR: &str = "/sys/fs/bpf";

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A node's place: its own network namespace (loopback up, nothing else) and, if asked for, its own cgroups.
#[derive(Debug)]
pub struct NetBox {
    name: String,
    cgroup: Option<CgroupTree>,
}

impl NetBox {
    /// Makes a box without cgroups. `label` shows in its name.
    ///
    /// # Errors
    /// When the namespace cannot be made; it takes root.
    pub fn new(label: &str) -> Result<Self> {
        reaper::reap_once();
        let name = reaper::unique_name(label, COUNTER.fetch_add(1, Ordering::Relaxed));
        ip(&format!("netns add {name}"))?;
        let made = Self { name, cgroup: None };
        // Duplicate address detection keeps IPv6 silent for a second or two.
        made.run(|| {
            ["all", "default"].iter().try_for_each(|which| {
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/accept_dad"), "0")
            })
        })?
        .context("switch off duplicate address detection")?;
        made.ip("link set lo up")?;
        Ok(made)
    }

    /// Makes a box with a child cgroup of its name in every hierarchy.
    ///
    /// # Errors
    /// When the namespace or a cgroup cannot be made.
    pub fn with_cgroup(label: &str) -> Result<Self> {
        let mut made = Self::new(label)?;
        made.cgroup = Some(CgroupTree::create(&made.name)?);
        Ok(made)
    }

    /// The name of the namespace and of the cgroups: `--netns NAME --cgroup NAME`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pinned namespace.
    #[must_use]
    pub fn netns_path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(&self.name)
    }

    /// The box's cgroups.
    #[must_use]
    pub fn cgroup(&self) -> Option<&CgroupTree> {
        self.cgroup.as_ref()
    }

    /// A folder of the box's own, gone with it, whatever is mounted in it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn dir(&self) -> Result<PathBuf> {
        let dir = Path::new(RUN_DIR).join(&self.name);
        std::fs::create_dir_all(&dir).with_context(|| format!("create folder {}", dir.display()))?;
        Ok(dir)
    }

    /// Runs `ip` with the words of `arguments` inside.
    ///
    /// # Errors
    /// With its standard error if it fails.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        ip(&format!("-n {} {arguments}", self.name))
    }

    /// A command that will run inside the namespace and the cgroups.
    ///
    /// Not by `ip netns exec`: that mounts a fresh /sys, which hides cgroups and bpffs.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        command_in(&self.netns_path(), self.cgroup.as_ref(), program)
    }

    /// Runs `work` on a fresh thread inside the namespace (threads do not change cgroup).
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    ///
    /// # Panics
    /// When `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        run_in(&self.netns_path(), work)
    }

    /// Runs a future inside the namespace, on its own single-threaded runtime: whatever it spawns is inside too.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    ///
    /// # Panics
    /// When the future panics.
    pub fn run_async<T, F>(&self, work: impl FnOnce() -> F + Send) -> Result<T>
    where
        T: Send,
        F: Future<Output = T>,
    {
        self.run(|| -> Result<T> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(work()))
        })?
    }
}

/// A command that will run in a namespace given by its path, and in the cgroups if there are any.
#[must_use]
pub fn command_in(netns: &Path, cgroup: Option<&CgroupTree>, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("sh");
    let join: String = cgroup
        .into_iter()
        .flat_map(CgroupTree::process_files)
        .map(|file| format!("echo 0 > '{}' && ", file.display()))
        .collect();
    command.args(["-c", &format!("{join}exec nsenter --net=\"$0\" -- \"$@\"")]).arg(netns).arg(program);
    command
}

/// Runs `work` on a fresh thread inside a namespace given by its path.
///
/// # Errors
/// When the namespace cannot be entered.
///
/// # Panics
/// When `work` panics.
pub fn run_in<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> Result<T> {
    let file = File::open(netns).with_context(|| format!("open namespace {}", netns.display()))?;
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|e| anyhow!("enter namespace: {e}"))?;
            Ok(work())
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Drop for NetBox {
    fn drop(&mut self) {
        // Before the namespace's processes: those of the cgroup are a superset where there is one.
        drop(self.cgroup.take());
        for removed in [remove_namespace(&self.name), remove_dir(&Path::new(RUN_DIR).join(&self.name))] {
            if let Err(error) = removed {
                eprintln!("box {} leaves something behind: {error:#}", self.name);
            }
        }
    }
}

/// Unmounts everything below a folder and removes it. Absent is success.
pub(crate) fn remove_dir(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("read the mount table")?;
    let mounts = table.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    // Later mounts may lie on earlier ones.
    let below: Vec<&Path> = mounts.filter(|mount| mount.starts_with(dir)).collect();
    for mount in below.into_iter().rev() {
        umount2(mount, MntFlags::MNT_DETACH).with_context(|| format!("unmount {}", mount.display()))?;
    }
    std::fs::remove_dir_all(dir).with_context(|| format!("remove folder {}", dir.display()))
}

/// Kills the processes inside a namespace and removes its name. Absent is success.
pub(crate) fn remove_namespace(name: &str) -> Result<()> {
    if !Path::new(NETNS_DIR).join(name).exists() {
        return Ok(());
    }
    for line in ip(&format!("netns pids {name}"))?.lines() {
        if let Ok(pid) = line.trim().parse::<u32>()
            && pid > 1
            && pid != std::process::id()
        {
            // Gone already is what we want.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
    }
    ip(&format!("netns del {name}"))?;
    Ok(())
}

#[cfg(test)]
mod tests;
