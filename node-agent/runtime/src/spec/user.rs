//! Users and groups: from names in the image's `/etc/passwd` and `/etc/group` to numbers.
//!
//! The files are read from the layers' folders, without mounting anything: the first layer from the top
//! that has the file decides, as in overlayfs. Symbolic links are not followed out of a layer.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::Security;
use crate::{Error, Result};

const MAX_FILE: u64 = 4 << 20;

/// Who a container runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All other groups.
    pub groups: Vec<u32>,
}

/// The account files of an image.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Reads them from layer folders, topmost first.
    pub fn from_layers(layers: &[PathBuf]) -> Result<Self> {
        Ok(Self { passwd: read_layered(layers, "passwd")?, group: read_layered(layers, "group")? })
    }

    fn passwd(&self) -> impl Iterator<Item = (&str, u32, u32)> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            Some((name, uid.parse().ok()?, gid.parse().ok()?))
        })
    }

    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
            Some((name, gid.parse().ok()?, fields.next().unwrap_or_default()))
        })
    }

    /// Resolves the image's `user[:group]` and the pod's wishes, which win.
    pub fn resolve(&self, image_user: &str, security: &Security) -> Result<User> {
        let (user, group) = image_user.split_once(':').unwrap_or((image_user, ""));
        let number = user.parse::<u32>().ok();
        if security.run_as_non_root && security.run_as_user.is_none() && !user.is_empty() && number.is_none()
        {
            return Err(Error::UnverifiableUser(user.to_owned()));
        }
        let (uid, entry) = match (security.run_as_user, number) {
            (Some(uid), _) | (None, Some(uid)) => (uid, self.passwd().find(|(_, u, _)| *u == uid)),
            (None, None) if user.is_empty() => (0, self.passwd().find(|(_, u, _)| *u == 0)),
            (None, None) => {
                let entry = self.passwd().find(|(name, ..)| *name == user);
                let (_, uid, _) = entry.ok_or_else(|| Error::UnknownUser(format!("user {user}")))?;
                (uid, entry)
            }
        };
        if security.run_as_non_root && uid == 0 {
            return Err(Error::RunsAsRoot);
        }
        let image_group = match (group, security.run_as_user) {
            // The image's group belongs to the image's user only.
            ("", _) | (_, Some(_)) => None,
            (group, None) => Some(match group.parse::<u32>() {
                Ok(gid) => gid,
                Err(_) => {
                    self.groups()
                        .find(|(name, ..)| *name == group)
                        .ok_or_else(|| Error::UnknownUser(format!("group {group}")))?
                        .1
                }
            }),
        };
        let gid = security.run_as_group.or(image_group).or(entry.map(|(.., gid)| gid)).unwrap_or(0);
        let mut groups = security.groups.clone();
        if let Some((name, ..)) = entry {
            let member = |list: &str| list.split(',').any(|m| m.trim() == name);
            groups.extend(self.groups().filter(|(.., members)| member(members)).map(|(_, gid, _)| gid));
        }
        groups.push(gid);
        groups.sort_unstable();
        groups.dedup();
        Ok(User { uid, gid, groups })
    }
}

fn read_layered(layers: &[PathBuf], name: &str) -> Result<String> {
    for layer in layers {
        let etc = layer.join("etc");
        if !fs::symlink_metadata(&etc).is_ok_and(|m| m.is_dir()) {
            continue;
        }
        let path = etc.join(name);
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.file_type().is_char_device() {
            // A whiteout: the file was deleted in this layer.
            return Ok(String::new());
        }
        if meta.is_file() {
            return read_limited(&path);
        }
    }
    Ok(String::new())
}

fn read_limited(path: &Path) -> Result<String> {
    let file = fs::File::options()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
        .open(path)
        .map_err(Error::io("open", path))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The layer folders of an overlay (or single-layer bind) mount, topmost first.
#[must_use]
pub fn layers_of(mount_type: &str, source: &str, options: &[String]) -> Vec<PathBuf> {
    if mount_type == "overlay" {
        let value = |key: &str| options.iter().find_map(|o| o.strip_prefix(key));
        let upper = value("upperdir=").into_iter();
        let lower = value("lowerdir=").unwrap_or_default().split(':').filter(|p| !p.is_empty());
        return upper.chain(lower).map(PathBuf::from).collect();
    }
    vec![PathBuf::from(source)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\nbroken\n".into(),
            group: "root:x:0:\nweb:x:2000:app,other\napp:x:1001:\n".into(),
        }
    }

    #[test]
    fn users_are_resolved() {
        let plain = Security::default();
        let resolve = |user: &str, s: &Security| accounts().resolve(user, s).unwrap();
        assert_eq!(resolve("", &plain), User { uid: 0, gid: 0, groups: vec![0] });
        assert_eq!(resolve("app", &plain), User { uid: 1000, gid: 1001, groups: vec![1001, 2000] });
        assert_eq!(resolve("app:web", &plain).gid, 2000);
        assert_eq!(resolve("4711", &plain), User { uid: 4711, gid: 0, groups: vec![0] });
        let pod = Security { run_as_user: Some(7), run_as_group: Some(8), groups: vec![9], ..plain.clone() };
        assert_eq!(resolve("app:web", &pod), User { uid: 7, gid: 8, groups: vec![8, 9] });
        assert!(accounts().resolve("nobody", &plain).is_err());
    }

    #[test]
    fn root_is_refused_when_forbidden() {
        let strict = Security { run_as_non_root: true, ..Security::default() };
        assert!(matches!(accounts().resolve("", &strict), Err(Error::RunsAsRoot)));
        assert!(matches!(accounts().resolve("app", &strict), Err(Error::UnverifiableUser(_))));
        assert_eq!(accounts().resolve("1000", &strict).unwrap().uid, 1000);
    }

    #[test]
    fn the_topmost_layer_decides() {
        let dir = tempfile::tempdir().unwrap();
        let layer = |name: &str, content: &str| {
            let root = dir.path().join(name);
            fs::create_dir_all(root.join("etc")).unwrap();
            fs::write(root.join("etc/passwd"), content).unwrap();
            root
        };
        let layers = [layer("top", "a:x:5:5::/:/"), layer("base", "a:x:6:6::/:/")];
        assert_eq!(
            Accounts::from_layers(&layers).unwrap().resolve("a", &Security::default()).unwrap().uid,
            5
        );
        let options = ["lowerdir=/x:/y".to_owned(), "upperdir=/u".to_owned()];
        assert_eq!(layers_of("overlay", "", &options), ["/u", "/x", "/y"].map(PathBuf::from));
    }
}
