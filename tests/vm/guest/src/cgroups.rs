//! The two ways in which machines have their control groups.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

const ROOT: &str = "/sys/fs/cgroup";

/// Of the first version, each in a hierarchy of its own.
const FIRST: [&str; 8] = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"];

/// One hierarchy of the second version, as Debian 11 and later have it.
pub(crate) fn pure() -> Result<()> {
    second(ROOT)?;
    let root = Path::new(ROOT);
    let all = fs::read_to_string(root.join("cgroup.controllers")).context("reading cgroup.controllers")?;
    for controller in all.split_whitespace() {
        // One by one: what a kernel does not let into children must not keep the others out.
        if let Err(error) = fs::write(root.join("cgroup.subtree_control"), format!("+{controller}")) {
            println!("guest: no {controller} in child groups: {error}");
        }
    }
    Ok(())
}

/// Controllers of the first version beside a hierarchy of the second that has none.
pub(crate) fn hybrid() -> Result<()> {
    mount(Some("cgroup"), ROOT, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .context("mounting a tmpfs")?;
    for controller in FIRST {
        let folder = format!("{ROOT}/{controller}");
        fs::create_dir(&folder)?;
        if let Err(errno) =
            mount(Some("cgroup"), folder.as_str(), Some("cgroup"), MsFlags::empty(), Some(controller))
        {
            // New kernels are built without some.
            println!("guest: no {controller} of the first version: {errno}");
            fs::remove_dir(&folder)?;
        }
    }
    let unified = format!("{ROOT}/unified");
    fs::create_dir(&unified)?;
    second(&unified)
}

fn second(folder: &str) -> Result<()> {
    mount(Some("cgroup2"), folder, Some("cgroup2"), MsFlags::empty(), Some("nsdelegate"))
        .with_context(|| format!("mounting cgroup2 on {folder}"))
}
