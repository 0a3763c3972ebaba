//! Container logs on disk: `<RFC 3339 time> <stdout|stderr> <P|F> <text>`, one file per attempt, rotated.
//!
//! The writer is a process of its own (see [`crate::logger_main`]), so reading never competes with it:
//! this module only reads.

pub mod format;
pub mod read;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// The folder of a pod's logs below the log root.
#[must_use]
pub fn pod_folder(root: &Path, namespace: &str, name: &str, uid: &str) -> PathBuf {
    root.join(format!("{namespace}_{name}_{uid}"))
}

/// The log of one attempt of a container.
#[must_use]
pub fn container_log(pod_folder: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_folder.join(container).join(format!("{attempt}.log"))
}

/// The files of a log in order of age: rotated ones, then the current.
pub fn files(log: &Path) -> Result<Vec<PathBuf>> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name().and_then(|n| n.to_str())) else {
        return Ok(Vec::new());
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", dir)(e)),
    };
    let mut rotated = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", dir))?;
        let file = entry.file_name();
        if file.to_str().is_some_and(|f| f.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))) {
            rotated.push(entry.path());
        }
    }
    rotated.sort();
    if log.exists() {
        rotated.push(log.to_path_buf());
    }
    Ok(rotated)
}

/// Removes the log of one attempt.
pub fn remove(log: &Path) -> Result<()> {
    for file in files(log)? {
        match fs::remove_file(&file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", &file)(e)),
            _ => {}
        }
    }
    Ok(())
}
