//! Cgroup hierarchies of this machine: hybrid (v1 controllers, v2 beside) or pure v2.
//!
//! The runtime makes a container's own group; the groups above it, of the pod, are ours to remove, in
//! every hierarchy.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Error, Result};

/// The mount points of the hierarchies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchies {
    roots: Vec<(String, PathBuf)>,
}

/// Usage of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nanoseconds of CPU.
    pub cpu_ns: u64,
    /// Bytes in memory.
    pub memory: u64,
    /// Bytes that cannot be reclaimed easily.
    pub working_set: u64,
    /// Tasks killed for lack of memory.
    pub oom_kills: u64,
}

impl Hierarchies {
    /// Reads the mount table.
    pub fn probe() -> Result<Self> {
        let table =
            fs::read_to_string("/proc/self/mounts").map_err(Error::io("read", "/proc/self/mounts"))?;
        Ok(Self::parse(&table))
    }

    fn parse(table: &str) -> Self {
        let mut roots = Vec::new();
        for line in table.lines() {
            let fields: Vec<_> = line.split(' ').collect();
            let [_, target, kind, options, ..] = fields[..] else { continue };
            match kind {
                "cgroup2" => roots.push((String::new(), PathBuf::from(target))),
                "cgroup" => {
                    let name = options.split(',').rfind(|o| {
                        !matches!(*o, "rw" | "ro" | "relatime" | "nosuid" | "nodev" | "noexec" | "xattr")
                    });
                    roots.push((name.unwrap_or_default().to_owned(), PathBuf::from(target)));
                }
                _ => {}
            }
        }
        roots.dedup();
        Self { roots }
    }

    /// No v1 controllers.
    #[must_use]
    pub fn is_pure_v2(&self) -> bool {
        self.roots.iter().all(|(name, _)| name.is_empty())
    }

    /// The mount point of the v2 hierarchy.
    #[must_use]
    pub fn unified(&self) -> Option<&Path> {
        self.roots.iter().find(|(name, _)| name.is_empty()).map(|(_, p)| p.as_path())
    }

    fn controller(&self, name: &str) -> Option<&Path> {
        self.roots
            .iter()
            .find(|(n, _)| n == name)
            .or_else(|| self.roots.iter().find(|(n, _)| n.is_empty()))
            .map(|(_, p)| p.as_path())
    }

    fn in_root(root: &Path, group: &str) -> PathBuf {
        root.join(group.trim_start_matches('/'))
    }

    /// Reads what a group uses; zeros for what cannot be read.
    #[must_use]
    pub fn usage(&self, group: &str) -> Usage {
        let read = |controller: &str, file: &str| {
            let root = self.controller(controller)?;
            fs::read_to_string(Self::in_root(root, group).join(file)).ok()
        };
        let number = |text: Option<String>| text.and_then(|t| t.trim().parse::<u64>().ok());
        let keyed = |text: Option<String>, key: &str| {
            text.and_then(|t| {
                t.lines().find_map(|l| {
                    l.split_once(' ').filter(|(k, _)| *k == key).and_then(|(_, v)| v.trim().parse().ok())
                })
            })
        };
        let v2 = self.is_pure_v2();
        let (cpu_ns, memory, inactive, oom_kills) = if v2 {
            (
                keyed(read("", "cpu.stat"), "usage_usec").map(|us: u64| us * 1000),
                number(read("", "memory.current")),
                keyed(read("", "memory.stat"), "inactive_file"),
                keyed(read("", "memory.events"), "oom_kill"),
            )
        } else {
            (
                number(read("cpuacct", "cpuacct.usage")),
                number(read("memory", "memory.usage_in_bytes")),
                keyed(read("memory", "memory.stat"), "total_inactive_file"),
                keyed(read("memory", "memory.oom_control"), "oom_kill"),
            )
        };
        let memory = memory.unwrap_or(0);
        Usage {
            cpu_ns: cpu_ns.unwrap_or(0),
            memory,
            working_set: memory.saturating_sub(inactive.unwrap_or(0)),
            oom_kills: oom_kills.unwrap_or(0),
        }
    }

    /// Removes a group and all below it, in every hierarchy. Processes in it are killed.
    pub async fn remove(&self, group: &str) -> Result<()> {
        for (_, root) in &self.roots {
            let path = Self::in_root(root, group);
            if path == *root || !path.exists() {
                continue;
            }
            let mut tries = 0;
            while let Err(error) = remove_tree(&path) {
                tries += 1;
                if tries > 50 {
                    return Err(Error::io("remove cgroup", &path)(error));
                }
                kill_all(&path);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// On a pure v2 machine a group with processes cannot have controlled children: moves this process
    /// into a leaf of `group`. Elsewhere nothing is needed.
    pub fn make_room(&self, group: &str) -> Result<()> {
        let Some(root) = self.unified().filter(|_| self.is_pure_v2()) else { return Ok(()) };
        if group.trim_matches('/').is_empty() {
            return Ok(());
        }
        let leaf = Self::in_root(root, group).join("agent");
        fs::create_dir_all(&leaf).map_err(Error::io("create", &leaf))?;
        let procs = leaf.join("cgroup.procs");
        fs::write(&procs, std::process::id().to_string()).map_err(Error::io("write", &procs))
    }
}

fn remove_tree(path: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn kill_all(path: &Path) {
    if let Ok(entries) = fs::read_dir(path) {
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            kill_all(&entry.path());
        }
    }
    let pids = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    for pid in pids.lines().filter_map(|p| p.parse::<i32>().ok()).filter(|p| *p > 1) {
        // It may be gone already, which is what is wanted.
        if let Err(errno) =
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        {
            tracing::debug!(pid, %errno, "kill");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_tables_are_understood() {
        let hybrid = Hierarchies::parse(
            "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
        );
        assert!(!hybrid.is_pure_v2());
        assert_eq!(hybrid.unified(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(hybrid.controller("cpu"), Some(Path::new("/sys/fs/cgroup/cpu")));
        assert!(Hierarchies::parse("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0").is_pure_v2());
    }
}
