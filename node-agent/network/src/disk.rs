//! Files that are either the old or the new version, whatever happens in between.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use crate::{Error, Result};

/// Replaces a file atomically and durably: written beside it, synced, renamed, folder synced.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(|e| Error::file("create folder", folder, e))?;
    let beside = path.with_extension("new");
    let mut file = File::create(&beside).map_err(|e| Error::file("create", &beside, e))?;
    file.write_all(bytes).map_err(|e| Error::file("write", &beside, e))?;
    file.sync_all().map_err(|e| Error::file("sync", &beside, e))?;
    fs::rename(&beside, path).map_err(|e| Error::file("replace", path, e))?;
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| Error::file("sync folder", folder, e))
}

/// The file's bytes; `None` if there is none.
pub(crate) fn read_optional(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path, error)),
    }
}

/// Removes a file; absent is success.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
