//! The files of a volume as values: pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::KeyToPath;

use super::Error;

/// The mode of files whose volume names none.
pub(super) const DEFAULT_MODE: u32 = 0o644;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
    /// The user it belongs to; root without one.
    pub(super) owner: Option<u32>,
}

/// Files by their path in the volume.
pub(super) type Files = BTreeMap<String, File>;

/// A mode as the API has it: a decimal number.
pub(super) fn mode(given: Option<i32>, otherwise: u32) -> u32 {
    given.and_then(|mode| u32::try_from(mode).ok()).map_or(otherwise, |mode| mode & 0o777)
}

/// The path must stay inside the volume, and out of the way of the atomic writer's own names.
pub(super) fn check_path(volume: &str, path: &str) -> Result<(), Error> {
    let fine = !path.is_empty()
        && !path.starts_with('/')
        && !path.starts_with("..")
        && path.split('/').all(|part| part != ".." && !part.is_empty());
    if fine { Ok(()) } else { Err(Error::Path { volume: volume.to_owned(), path: path.to_owned() }) }
}

/// The files of a map of keys: all of them by their names, or those that `items` projects.
pub(super) fn project(
    volume: &str,
    data: &BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    default_mode: u32,
    optional: bool,
) -> Result<Files, Error> {
    let mut files = Files::new();
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        for (key, bytes) in data {
            check_path(volume, key)?;
            files.insert(key.clone(), File { bytes: bytes.clone(), mode: default_mode, owner: None });
        }
        return Ok(files);
    };
    for item in items {
        check_path(volume, &item.path)?;
        match data.get(&item.key) {
            Some(bytes) => {
                let mode = mode(item.mode, default_mode);
                files.insert(item.path.clone(), File { bytes: bytes.clone(), mode, owner: None });
            }
            None if optional => {}
            None => return Err(Error::MissingKey { volume: volume.to_owned(), key: item.key.clone() }),
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> BTreeMap<String, Vec<u8>> {
        [("a", "1"), ("b", "2")].map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec())).into()
    }

    fn item(key: &str, path: &str) -> KeyToPath {
        KeyToPath { key: key.to_owned(), path: path.to_owned(), mode: None }
    }

    fn paths(items: &[KeyToPath], optional: bool) -> Result<Vec<String>, String> {
        project("v", &data(), Some(items), DEFAULT_MODE, optional)
            .map(|files| files.into_keys().collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn keys_become_paths() {
        assert_eq!(paths(&[], false), Ok(vec!["a".into(), "b".into()]));
        assert_eq!(paths(&[item("a", "x/y")], false), Ok(vec!["x/y".into()]));
        assert!(paths(&[item("c", "x")], false).is_err_and(|error| error.contains("non-existent key: c")));
        assert_eq!(paths(&[item("c", "x")], true), Ok(vec![]));
    }

    #[test]
    fn paths_stay_inside() {
        for path in ["", "/a", "../a", "a/../b", "..data", "a//b", "a/.."] {
            assert!(paths(&[item("a", path)], false).is_err(), "{path:?}");
        }
    }
}
