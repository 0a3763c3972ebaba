//! Sysctls of the node's network namespace: the old value is on disk before a new one is written, so that
//! purge puts back exactly what was there.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    config::network_state_dir,
    disk,
    netns::{self, Namespace},
};

const ROOT: &str = "/proc/sys";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    before: String,
    after: String,
}

type Journal = BTreeMap<String, Change>;

fn journal_path(state_dir: &Path) -> PathBuf {
    network_state_dir(state_dir).join("sysctls.json")
}

/// A sysctl to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Its path below /proc/sys.
    pub(crate) key: String,
    pub(crate) value: &'static str,
    /// Set it only if it has this value now.
    pub(crate) only_if: Option<&'static str>,
}

/// Sets sysctls that stay until purge.
pub(crate) async fn set_recorded(
    namespace: &Namespace,
    state_dir: &Path,
    wanted: Vec<Setting>,
) -> Result<()> {
    let path = journal_path(state_dir);
    netns::inside(namespace, move || {
        let mut journal = load(&path)?;
        let mut writes = Vec::new();
        for Setting { key, value, only_if } in wanted {
            let current = read(&key)?;
            if current != value && only_if.is_none_or(|only| only == current) {
                // The first value ever seen is the one to go back to.
                journal
                    .entry(key.clone())
                    .and_modify(|change| value.clone_into(&mut change.after))
                    .or_insert_with(|| Change { before: current, after: value.to_owned() });
                writes.push((key, value));
            }
        }
        if writes.is_empty() {
            return Ok(());
        }
        disk::replace(&path, &serde_json::to_vec_pretty(&journal).expect("plain data"))?;
        writes.iter().try_for_each(|(key, value)| write(key, value))
    })
    .await?
}

/// Sets sysctls that vanish with their interface or namespace. A key that this kernel lacks is passed over.
pub(crate) async fn set_passing(namespace: &Namespace, wanted: Vec<(String, &'static str)>) -> Result<()> {
    netns::inside(namespace, move || {
        wanted
            .iter()
            .filter(|(key, _)| Path::new(ROOT).join(key).exists())
            .try_for_each(|(key, value)| write(key, value))
    })
    .await?
}

/// Puts every recorded sysctl back, unless someone has changed it since, and forgets the record.
pub(crate) async fn restore(namespace: &Namespace, state_dir: &Path) -> Result<()> {
    let path = journal_path(state_dir);
    netns::inside(namespace, move || {
        for (key, change) in load(&path)? {
            if read(&key)? == change.after {
                write(&key, &change.before)?;
            } else {
                tracing::warn!(key, "sysctl was changed by someone else; leaving it");
            }
        }
        disk::remove(&path)
    })
    .await?
}

fn load(path: &Path) -> Result<Journal> {
    let Some(bytes) = disk::read_optional(path)? else { return Ok(Journal::new()) };
    serde_json::from_slice(&bytes).map_err(|e| Error::file("parse", path, e.into()))
}

fn read(key: &str) -> Result<String> {
    let path = Path::new(ROOT).join(key);
    let text = fs::read_to_string(&path).map_err(|e| Error::file("read sysctl", &path, e))?;
    Ok(text.trim().to_owned())
}

fn write(key: &str, value: &str) -> Result<()> {
    let path = Path::new(ROOT).join(key);
    fs::write(&path, value).map_err(|e| Error::file("write sysctl", &path, e))
}
