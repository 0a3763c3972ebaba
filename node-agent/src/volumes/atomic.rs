//! Writes a set of files so that a reader sees all of the old or all of the new.
//!
//! The files lie in a folder of their own, `..data` leads to it, and each visible name leads through
//! `..data`; renaming a new `..data` over the old one is the switch. (The layout is that of upstream's
//! kubelet: programs that watch for the rename of `..data` rely on it.)

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use super::payload::Files;

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";

/// Makes `folder` hold exactly `files`.
pub(super) fn write(folder: &Path, files: &Files, group: Option<u32>) -> io::Result<()> {
    let current = fs::read_link(folder.join(DATA)).ok();
    if current.as_ref().is_some_and(|name| same(&folder.join(name), files)) {
        return Ok(());
    }
    let name = format!("..{}", uuid::Uuid::new_v4().simple());
    let fresh = folder.join(&name);
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, file) in files {
        let path = fresh.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.bytes)?;
        // The group of the pod may read what is otherwise its owner's.
        let mode = if group.is_some() { file.mode | (file.mode & 0o400) >> 3 } else { file.mode };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        if group.is_some() || file.owner.is_some() {
            chown(&path, file.owner, group)?;
        }
    }
    let next = folder.join(NEXT);
    remove_if_there(fs::remove_file(&next))?;
    symlink(&name, &next)?;
    fs::rename(&next, folder.join(DATA))?;
    visible_names(folder, files)?;
    remove_old(folder, &name)
}

/// Do these files lie there already?
fn same(folder: &Path, files: &Files) -> bool {
    let mut found = 0;
    let mut pending = vec![folder.to_owned()];
    while let Some(next) = pending.pop() {
        let Ok(entries) = fs::read_dir(&next) else { return false };
        for entry in entries.flatten() {
            if entry.path().is_dir() {
                pending.push(entry.path());
            } else {
                found += 1;
            }
        }
    }
    found == files.len()
        && files.iter().all(|(path, file)| fs::read(folder.join(path)).is_ok_and(|bytes| bytes == file.bytes))
}

/// One link for each first part of a path; links of files that are gone go.
fn visible_names(folder: &Path, files: &Files) -> io::Result<()> {
    let wanted: Vec<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        let link = folder.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), link)?;
        }
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| !name.starts_with("..") && !wanted.contains(&name));
        if ours && entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn remove_old(folder: &Path, keep: &str) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let old = name.to_str().is_some_and(|name| name.starts_with("..") && name != keep && name != DATA);
        if old && entry.file_type()?.is_dir() {
            remove_if_there(fs::remove_dir_all(entry.path()))?;
        }
    }
    Ok(())
}

fn remove_if_there(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::File;
    use super::*;

    fn files(of: &[(&str, &str)]) -> Files {
        of.iter()
            .map(|(path, text)| {
                ((*path).to_owned(), File { bytes: text.as_bytes().to_vec(), mode: 0o640, owner: None })
            })
            .collect()
    }

    fn visible(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("the folder")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with(".."))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn contents_switch_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        write(root, &files(&[("a", "1"), ("sub/b", "2")]), None).expect("written");
        assert_eq!(visible(root), ["a", "sub"]);
        assert_eq!(fs::read_to_string(root.join("sub/b")).expect("b"), "2");
        let first = fs::read_link(root.join(DATA)).expect("the link");

        write(root, &files(&[("a", "1"), ("sub/b", "2")]), None).expect("written");
        assert_eq!(fs::read_link(root.join(DATA)).expect("the link"), first, "the same is not written again");

        write(root, &files(&[("a", "3"), ("c", "4")]), None).expect("written");
        assert_eq!(visible(root), ["a", "c"]);
        assert_eq!(fs::read_to_string(root.join("a")).expect("a"), "3");
        assert!(!root.join(&first).exists(), "old contents are removed");
    }

    #[test]
    fn what_a_crash_left_is_no_obstacle() {
        let folder = tempfile::tempdir().expect("a folder");
        symlink("..gone", folder.path().join(NEXT)).expect("a link");
        write(folder.path(), &files(&[("a", "1")]), None).expect("written");
        assert_eq!(visible(folder.path()), ["a"]);
    }
}
