//! `subPath`: a part of a volume, mounted in place of the whole.

use std::fs;
use std::path::{Path, PathBuf};

use super::Error;
use super::payload::check_path;

/// Where a sub-path lies on the host. It is made (as a folder) when it is not there. A link that leads
/// out of the volume is refused: the pod may have put it there.
///
/// # Errors
/// When the path leaves the volume, or the file system refuses.
pub fn sub_path(volume: &str, root: &Path, sub: &str) -> Result<PathBuf, Error> {
    check_path(volume, sub)?;
    let path = root.join(sub);
    if !path.exists() {
        // The part that exists must be inside before anything is made below it.
        let existing = path.ancestors().find(|part| part.exists()).unwrap_or(root);
        inside(volume, root, existing)?;
        fs::create_dir_all(&path).map_err(Error::io(&path))?;
    }
    inside(volume, root, &path)
}

fn inside(volume: &str, root: &Path, path: &Path) -> Result<PathBuf, Error> {
    let root = fs::canonicalize(root).map_err(Error::io(root))?;
    let real = fs::canonicalize(path).map_err(Error::io(path))?;
    if real.starts_with(&root) {
        return Ok(real);
    }
    Err(Error::Path { volume: volume.to_owned(), path: path.display().to_string() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_out_of_the_volume_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("volume");
        fs::create_dir(&root).expect("the volume");
        symlink("/etc", root.join("out")).expect("a link");
        assert!(sub_path("v", &root, "out").is_err());
        assert!(sub_path("v", &root, "out/below").is_err());
        assert!(sub_path("v", &root, "../volume").is_err());
        assert!(sub_path("v", &root, "new/below").is_ok_and(|path| path.is_dir()));
    }
}
