//! Where maps and links are pinned, and the file system that holds them.
//!
//! ```text
//! PIN_DIR/maps-v2/<name>      layout version in the folder's name: a build with another layout makes its own
//! PIN_DIR/maps-v2/<name>-next a larger map that is about to take the place of <name>
//! PIN_DIR/maps-v2/<name>-old  the one whose place it has taken, until all programs use the new one
//! PIN_DIR/maps-v2-next/       the folder while it is filled from an earlier layout's maps
//! PIN_DIR/links/<name>        connect4 ..., pod-<ifindex>, pod-out-<ifindex>, uplink-in-<ifindex>, uplink-out-<ifindex>,
//!                             tunnel-in-<ifindex>, tunnel-out-<ifindex>, xdp-native-<ifindex>, xdp-generic-<ifindex>
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount, umount};
use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};

use skep_ebpf_abi::LAYOUT;

use crate::error::{Error, Result};

/// The folder of maps of this build's layout.
pub const LAYOUT_FOLDER: &str = "maps-v2";
const _: () = assert!(LAYOUT == 2, "LAYOUT_FOLDER names the layout");

/// The endings of a map that is about to take another's place, and of the one whose place was taken. No dots: the file
/// system of pins keeps names with dots for itself.
pub(crate) const NEXT: &str = "-next";
pub(crate) const OLD: &str = "-old";

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
        make_folder(&self.links())
    }

    /// Makes the folder for this build's maps; one aside, without what may be left of an earlier try, if it is to be
    /// filled first.
    pub(crate) fn stage(&self, aside: bool) -> Result<PathBuf> {
        self.unstage()?;
        let folder = if aside && !self.maps().exists() { self.aside() } else { self.maps() };
        make_folder(&folder)?;
        Ok(folder)
    }

    fn aside(&self) -> PathBuf {
        self.root.join(format!("{LAYOUT_FOLDER}{NEXT}"))
    }

    /// Removes the folder aside; absent is success.
    pub(crate) fn unstage(&self) -> Result<()> {
        remove_tree(&self.aside())
    }

    /// From here on the maps made in a folder aside are this build's.
    pub(crate) fn publish(&self, folder: &Path) -> Result<PathBuf> {
        let maps = self.maps();
        if folder != maps {
            rename(folder, &maps)?;
        }
        Ok(maps)
    }

    /// The folders of maps of earlier layouts, the newest first.
    pub(crate) fn older(&self) -> Result<Vec<(u32, PathBuf)>> {
        let mut found = self.layouts()?;
        found.retain(|(layout, _)| *layout < LAYOUT);
        found.reverse();
        Ok(found)
    }

    /// All folders of maps, by layout.
    fn layouts(&self) -> Result<Vec<(u32, PathBuf)>> {
        let mut found = Vec::new();
        for name in names(&self.root)? {
            if let Some(layout) = name.strip_prefix("maps-v").and_then(|number| number.parse().ok()) {
                found.push((layout, self.root.join(name)));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Removes the maps of every other layout; programs that use them keep them.
    pub(crate) fn remove_other_layouts(&self) -> Result<()> {
        for (layout, folder) in self.layouts()? {
            if layout > LAYOUT {
                tracing::warn!(
                    layout,
                    "the maps of a newer build are removed: what it knew of flows is lost"
                );
            }
            if layout != LAYOUT {
                remove_tree(&folder)?;
            }
        }
        Ok(())
    }

    /// Brings the pins of maps in order that were to be exchanged when we were interrupted: what was not begun is
    /// forgotten, what was begun goes on. Returns the names of maps whose old one may hold what the new one lacks.
    pub(crate) fn recover(&self, folder: &Path) -> Result<Vec<String>> {
        let all = names(folder)?;
        for name in all.iter().filter_map(|name| name.strip_suffix(NEXT)) {
            let next = folder.join(format!("{name}{NEXT}"));
            if all.iter().any(|known| known == name) {
                remove(&next)?;
            } else {
                rename(&next, &folder.join(name))?;
            }
        }
        let old = all.iter().filter_map(|name| name.strip_suffix(OLD));
        Ok(old.map(str::to_owned).collect())
    }

    /// Lets the `-next` map take the place of one, which becomes `-old`.
    pub(crate) fn exchange(&self, name: &str) -> Result<()> {
        let folder = self.maps();
        rename(&folder.join(name), &folder.join(format!("{name}{OLD}")))?;
        rename(&folder.join(format!("{name}{NEXT}")), &folder.join(name))
    }

    /// Forgets a map's `-next` or `-old`; absent is success.
    pub(crate) fn forget(&self, name: &str, suffix: &str) -> Result<()> {
        remove(&self.maps().join(format!("{name}{suffix}")))
    }

    /// Names of the pinned links.
    pub(crate) fn link_names(&self) -> Result<Vec<String>> {
        names(&self.links())
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

/// The names in a folder; none in one that is not there.
pub(crate) fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::kernel(format!("listing {}", folder.display()), error)),
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()
        .map_err(Error::on(format!("listing {}", folder.display())))
}

fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::on(format!("creating {}", path.display())))
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(Error::on(format!("renaming {} to {}", from.display(), to.display())))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::kernel(format!("removing {}", path.display()), error))
        }
        _ => Ok(()),
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
