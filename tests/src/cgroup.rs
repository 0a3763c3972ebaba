//! Child cgroups in every hierarchy of the machine: hybrid (v1 controllers beside a v2 tree) or pure v2.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub root: PathBuf,
    /// Whether it is the v2 tree.
    pub unified: bool,
}

/// The hierarchies this process sees.
///
/// # Errors
/// When the mount table cannot be read.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read the mount table")?;
    Ok(parse_mounts(&table))
}

fn parse_mounts(table: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in table.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let unified = match after.split(' ').next() {
            Some("cgroup2") => true,
            Some("cgroup") => false,
            _ => continue,
        };
        let mut fields = before.split(' ').skip(3);
        // A bind mount of a part of a hierarchy is not its root.
        let (Some("/"), Some(root)) = (fields.next(), fields.next()) else { continue };
        let hierarchy = Hierarchy { root: root.into(), unified };
        if !found.contains(&hierarchy) {
            found.push(hierarchy);
        }
    }
    found
}

/// A cgroup of one name in every hierarchy, removed with its processes when dropped.
#[derive(Debug)]
pub struct CgroupTree {
    name: String,
    folders: Vec<PathBuf>,
    unified: Option<PathBuf>,
}

impl CgroupTree {
    /// Makes the cgroups.
    ///
    /// # Errors
    /// When the kernel refuses; what was made is removed.
    pub fn create(name: &str) -> Result<Self> {
        let mut tree = Self { name: name.to_owned(), folders: Vec::new(), unified: None };
        for hierarchy in hierarchies()? {
            let folder = hierarchy.root.join(name);
            fs::create_dir_all(&folder).with_context(|| format!("create cgroup {}", folder.display()))?;
            tree.folders.push(folder.clone());
            if hierarchy.unified {
                tree.unified = Some(folder);
            } else {
                // A v1 cpuset takes no process before it has processors and memory nodes.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    if let Ok(value) = fs::read_to_string(hierarchy.root.join(file)) {
                        fs::write(folder.join(file), value).with_context(|| format!("set {file}"))?;
                    }
                }
            }
        }
        Ok(tree)
    }

    /// The name, relative to each hierarchy's root.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cgroup in the v2 tree: where cgroup eBPF programs attach.
    #[must_use]
    pub fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// The file in each hierarchy that takes a process.
    pub fn process_files(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.folders.iter().map(|folder| folder.join("cgroup.procs"))
    }
}

impl Drop for CgroupTree {
    fn drop(&mut self) {
        for folder in &self.folders {
            if let Err(error) = remove(folder) {
                eprintln!("cgroup {} stays: {error:#}", folder.display());
            }
        }
    }
}

/// Kills the processes of a cgroup and below, and removes it. Absent is success.
///
/// # Errors
/// When it is still busy after two seconds.
pub fn remove(folder: &Path) -> Result<()> {
    let mut last = None;
    for _ in 0..100 {
        match remove_once(folder) {
            Ok(()) => return Ok(()),
            Err(error) => last = Some(error),
        }
        thread::sleep(Duration::from_millis(20));
    }
    last.map_or(Ok(()), Err)
}

fn remove_once(folder: &Path) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry.context("list a cgroup")?.path();
        if path.is_dir() {
            remove_once(&path)?;
        }
    }
    for pid in processes(folder) {
        // Gone already is what we want.
        let _ = kill(pid, Signal::SIGKILL);
    }
    fs::remove_dir(folder).with_context(|| format!("remove {}", folder.display()))
}

fn processes(folder: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    // Zero is a process of another pid namespace; one is never ours.
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1).map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_and_pure_tables_are_read() {
        let hybrid = "30 25 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
             31 25 0:27 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw\n\
             32 25 0:27 /part /mnt/part rw - cgroup2 cgroup2 rw\n\
             33 25 0:5 / /proc rw - proc proc rw\n";
        let got = parse_mounts(hybrid);
        let want = [
            Hierarchy { root: "/sys/fs/cgroup/cpu".into(), unified: false },
            Hierarchy { root: "/sys/fs/cgroup/unified".into(), unified: true },
        ];
        assert_eq!(got, want);
        let pure = "31 25 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(parse_mounts(pure), [Hierarchy { root: "/sys/fs/cgroup".into(), unified: true }]);
    }
}
