//! Where things are.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The workspace's root folder.
pub(crate) fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Cargo's output folder.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// What is fetched once a machine, outside the checkout: tool chains and test tools.
pub(crate) fn cache() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .unwrap_or_else(|| PathBuf::from("/var/cache"));
    base.join("skep")
}

/// The unpacked test tools (etcd, a registry): not installed, so that no service starts on this machine.
pub(crate) fn test_tools() -> PathBuf {
    cache().join("test-tools")
}

/// PATH for what we start: the test tools behind what the machine has, and in front of it the kubectl
/// that the tests are written for, where it has been fetched.
pub(crate) fn search_path() -> OsString {
    let mut entries: Vec<PathBuf> = vec![cache().join("kubectl-1.36")];
    entries.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    entries.push(test_tools().join("usr/bin"));
    entries.push(PathBuf::from("/usr/sbin"));
    entries.push(PathBuf::from("/sbin"));
    env::join_paths(entries).unwrap_or_default()
}
