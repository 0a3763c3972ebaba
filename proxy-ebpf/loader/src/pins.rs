//! Where maps and links are pinned, and the file system that holds them.
//!
//! ```text
//! PIN_DIR/maps-v1/<name>      layout version in the folder's name: a build with another layout makes its own
//! PIN_DIR/links/<name>        connect4 ..., pod-<ifindex>, pod-out-<ifindex>, uplink-in-<ifindex>, uplink-out-<ifindex>,
//!                             tunnel-in-<ifindex>, tunnel-out-<ifindex>
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount, umount};
use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};

use crate::error::{Error, Result};

/// The folder of maps of this build's layout.
pub const LAYOUT_FOLDER: &str = "maps-v1";
const _: () = assert!(skep_ebpf_abi::LAYOUT == 1, "LAYOUT_FOLDER names the layout");

/// Where systemd mounts the file system of pins.
const USUAL: &str = "/sys/fs/bpf";
/// The source given to a mount of ours, by which it is known again when everything is removed.
const SOURCE: &str = "skep";

/// The folders of one data plane.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    pub(crate) root: PathBuf,
}

impl Pins {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn maps(&self) -> PathBuf {
        self.root.join(LAYOUT_FOLDER)
    }

    pub(crate) fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// Makes the folders, mounting the file system where there is none.
    pub(crate) fn prepare(&self) -> Result<()> {
        if !is_kind(existing_ancestor(&self.root), BPF_FS_MAGIC) {
            let target = if self.root.starts_with(USUAL) { Path::new(USUAL) } else { &self.root };
            fs::create_dir_all(target).map_err(Error::on(format!("creating {}", target.display())))?;
            mount(Some(SOURCE), target, Some("bpf"), MsFlags::empty(), None::<&str>).map_err(|errno| {
                Error::kernel(format!("mounting a bpf file system on {}", target.display()), errno.into())
            })?;
        }
        for folder in [self.maps(), self.links()] {
            fs::create_dir_all(&folder).map_err(Error::on(format!("creating {}", folder.display())))?;
        }
        Ok(())
    }

    /// Names of the pinned links.
    pub(crate) fn link_names(&self) -> Result<Vec<String>> {
        let folder = self.links();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::kernel(format!("listing {}", folder.display()), error)),
        };
        entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()
            .map_err(Error::on(format!("listing {}", folder.display())))
    }

    /// Removes every pin (links first, so that no program runs on maps that are half gone) and our own mount.
    pub(crate) fn remove_all(&self) -> Result<()> {
        remove_tree(&self.links())?;
        remove_tree(&self.root)?;
        for target in [self.root.as_path(), Path::new(USUAL)] {
            if is_our_mount(target)? && is_empty(target)? {
                umount(target).map_err(|errno| {
                    Error::kernel(format!("unmounting {}", target.display()), errno.into())
                })?;
                if target == self.root {
                    remove_tree(target)?;
                }
            }
        }
        Ok(())
    }
}

/// Like `remove_dir_all`, which bpffs does not support on every kernel; a busy root (a mount point) is kept.
fn remove_tree(folder: &Path) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::kernel(format!("listing {}", folder.display()), error)),
    };
    for entry in entries {
        let path = entry.map_err(Error::on(format!("listing {}", folder.display())))?.path();
        if path.is_dir() {
            remove_tree(&path)?;
        } else {
            fs::remove_file(&path).map_err(Error::on(format!("removing {}", path.display())))?;
        }
    }
    match fs::remove_dir(folder) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        result => result.map_err(Error::on(format!("removing {}", folder.display()))),
    }
}

fn is_our_mount(target: &Path) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts").map_err(Error::on("reading /proc/self/mounts"))?;
    Ok(mounts.lines().any(|line| {
        let mut fields = line.split(' ');
        fields.next() == Some(SOURCE)
            && fields.next().map(Path::new) == Some(target)
            && fields.next() == Some("bpf")
    }))
}

fn is_empty(folder: &Path) -> Result<bool> {
    let mut entries = fs::read_dir(folder).map_err(Error::on(format!("listing {}", folder.display())))?;
    Ok(entries.next().is_none())
}

fn existing_ancestor(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

fn is_kind(path: &Path, kind: FsType) -> bool {
    statfs(path).is_ok_and(|info| info.filesystem_type() == kind)
}

/// The cgroup to attach at: `wanted`, or the root of the cgroup v2 hierarchy (which hybrid hosts have elsewhere).
pub(crate) fn cgroup(wanted: Option<&Path>) -> Result<PathBuf> {
    let is_v2 = |path: &Path| is_kind(path, CGROUP2_SUPER_MAGIC);
    let root =
        ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].into_iter().map(Path::new).find(|path| is_v2(path));
    let root = root.ok_or(Error::NoCgroup)?;
    match wanted {
        None => Ok(root.to_owned()),
        // An absolute path is taken as it is, a relative one is inside the hierarchy.
        Some(path) => {
            let path = root.join(path);
            if is_v2(&path) { Ok(path) } else { Err(Error::NotCgroup(path)) }
        }
    }
}
