//! Names that tell which run made a thing, and removal of what dead runs left.

use std::{fs, path::Path, sync::Once};

use anyhow::{Context, Result};

use crate::{
    cgroup,
    netbox::{BPF_DIR, NETNS_DIR, RUN_DIR, remove_dir, remove_namespace},
};

const PREFIX: &str = "skt";

/// `skt-PID-N-LABEL`: unique while the process lives, and telling whose it is after.
pub(crate) fn unique_name(label: &str, number: u32) -> String {
    let label: String =
        label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(24).collect();
    format!("{PREFIX}-{}-{number}-{label}", std::process::id())
}

/// The process that made a thing of this name.
fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.strip_prefix('-')?.split('-').next()?.parse().ok()
}

fn is_leftover(name: &str) -> bool {
    maker(name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// Removes the namespaces, cgroups, folders and eBPF pins of runs that are dead. Returns their names.
///
/// # Errors
/// When one cannot be removed; the others are still tried.
pub fn reap() -> Result<Vec<String>> {
    let mut reaped = Vec::new();
    let mut outcome = Ok(());
    for hierarchy in cgroup::hierarchies()? {
        for name in leftovers(&hierarchy.root) {
            outcome = outcome.and(cgroup::remove(&hierarchy.root.join(&name)));
            reaped.push(name);
        }
    }
    for name in leftovers(Path::new(NETNS_DIR)) {
        outcome = outcome.and(remove_namespace(&name));
        reaped.push(name);
    }
    for (folder, remove) in [(RUN_DIR, remove_dir as fn(&Path) -> Result<()>), (BPF_DIR, remove_pins)] {
        for name in leftovers(Path::new(folder)) {
            outcome = outcome.and(remove(&Path::new(folder).join(&name)));
            reaped.push(name);
        }
    }
    outcome.map(|()| reaped)
}

/// Pins go one by one: nothing is ever mounted among them.
fn remove_pins(folder: &Path) -> Result<()> {
    fs::remove_dir_all(folder).with_context(|| format!("remove pins {}", folder.display()))
}

fn leftovers(folder: &Path) -> Vec<String> {
    // No folder: nothing was ever made in it.
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().filter_map(|e| e.file_name().into_string().ok()).filter(|n| is_leftover(n)).collect()
}

/// Reaps once per process, before the first box.
pub(crate) fn reap_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Err(error) = reap() {
            eprintln!("leftovers of an earlier run stay: {error:#}");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_things_of_dead_runs_are_leftovers() {
        let mine = unique_name("a test/box", 3);
        assert_eq!(maker(&mine), Some(std::process::id()));
        assert!(!is_leftover(&mine));
        assert!(mine.ends_with("-3-a-test-box"));
        // No process has this number: the kernel's limit is 2^22.
        assert!(is_leftover("skt-99999999-0-x"));
        for other in ["skt", "skt-x-1", "user-99999999-0", "cni-1234"] {
            assert!(!is_leftover(other), "{other}");
        }
    }
}
