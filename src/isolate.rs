//! Puts this process into a box before anything else runs: a network namespace and a child cgroup, so
//! that several nodes live on one machine and none touches the machine's own network.
//!
//! Invariant: called while the process has one thread; threads started later inherit both.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use nix::sched::{CloneFlags, setns};

/// Where cgroup hierarchies are mounted.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// The box to run in; without these options the node is the machine itself.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Isolation {
    /// Run in this network namespace (a name as `ip netns` knows it).
    #[arg(long, env = "SKEP_NETNS", value_name = "NAME")]
    pub(crate) netns: Option<String>,
    /// Run in this cgroup (a path below every hierarchy's root); socket load balancing attaches there.
    #[arg(long, env = "SKEP_CGROUP", value_name = "PATH")]
    pub(crate) cgroup: Option<String>,
}

impl Isolation {
    /// Moves this process into the box.
    pub(crate) fn enter(&self) -> Result<()> {
        if let Some(cgroup) = &self.cgroup {
            join_cgroup(cgroup)?;
        }
        if let Some(name) = &self.netns {
            let path = Path::new("/run/netns").join(name);
            let handle = File::open(&path).with_context(|| {
                format!("network namespace {name} does not exist; make it with: ip netns add {name}")
            })?;
            setns(handle, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("entering network namespace {name}"))?;
        }
        Ok(())
    }
}

/// Every hierarchy's root: each v1 controller's, and v2.
pub(crate) fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(CGROUP_ROOT);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        // Co-mounted controllers appear as links too; one of each is enough.
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .filter(|path| path.join("cgroup.procs").exists())
        .collect();
    found.sort();
    found
}

fn join_cgroup(cgroup: &str) -> Result<()> {
    let pid = std::process::id().to_string();
    for root in hierarchies() {
        let folder = root.join(cgroup.trim_start_matches('/'));
        fs::create_dir_all(&folder).with_context(|| format!("making cgroup {}", folder.display()))?;
        // A new v1 cpuset has no CPUs, and no process can join it before it has.
        for file in ["cpuset.mems", "cpuset.cpus"] {
            let (own, above) = (folder.join(file), root.join(file));
            if above.exists() && fs::read_to_string(&own).is_ok_and(|text| text.trim().is_empty()) {
                fs::write(&own, fs::read(&above)?).with_context(|| format!("setting {}", own.display()))?;
            }
        }
        fs::write(folder.join("cgroup.procs"), &pid)
            .with_context(|| format!("joining cgroup {}", folder.display()))?;
    }
    Ok(())
}
