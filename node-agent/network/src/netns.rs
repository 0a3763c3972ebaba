//! Network namespaces: made, pinned and entered by threads that end with the work, so that no thread of the
//! runtime ever leaves the process's own namespace.

use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd, RawFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{FsType, statfs},
};

use crate::{Error, Result};

/// `NSFS_MAGIC`: the file system of namespace files.
const NSFS: FsType = FsType(0x6e73_6673);
/// Resolves to the namespace of the thread that opens it.
const OWN: &str = "/proc/thread-self/ns/net";

/// An open network namespace.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    path: PathBuf,
    file: Arc<File>,
}

impl Namespace {
    /// The calling thread's namespace.
    pub(crate) fn own() -> Result<Self> {
        Self::open(Path::new(OWN))
    }

    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::namespace("open", path, e))?;
        Ok(Self { path: path.to_owned(), file: Arc::new(file) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Runs `work` on a fresh thread inside the namespace.
pub(crate) async fn inside<T, F>(namespace: &Namespace, work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let namespace = namespace.clone();
    on_thread(move || {
        setns(namespace.file.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|e| Error::namespace("enter", &namespace.path, e.into()))?;
        Ok(work())
    })
    .await
}

/// Makes and pins a namespace at `path`, or opens the one that is pinned there.
pub(crate) async fn ensure(path: &Path) -> Result<Namespace> {
    if is_pinned(path) {
        return Namespace::open(path);
    }
    let pinned = path.to_owned();
    on_thread(move || {
        if let Some(folder) = pinned.parent() {
            std::fs::create_dir_all(folder).map_err(|e| Error::file("create folder", folder, e))?;
        }
        // A file left by a crash between creation and mount is as good as a new one.
        File::create(&pinned).map_err(|e| Error::file("create", &pinned, e))?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| Error::namespace("create", &pinned, e.into()))?;
        mount(Some(OWN), &pinned, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(|e| Error::namespace("pin", &pinned, e.into()))?;
        Namespace::open(&pinned)
    })
    .await
}

/// Unpins a namespace; absent is success. The kernel removes it when its last process is gone.
pub(crate) fn remove(path: &Path) -> Result<()> {
    // A crash-looping earlier version may have stacked several mounts.
    while is_pinned(path) {
        umount2(path, MntFlags::MNT_DETACH).map_err(|e| Error::namespace("unpin", path, e.into()))?;
    }
    crate::disk::remove(path)
}

/// Whether a namespace is pinned here (not just an empty file).
pub(crate) fn is_pinned(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == NSFS)
}

/// The names in the folder of pinned namespaces; no folder is an empty one.
pub(crate) fn list(folder: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| Error::file("list", folder, e))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::file("list", folder, e))?;
        // No pod's name is other than ASCII; what is, is not ours.
        if let Ok(name) = entry.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Not the runtime's blocking pool: its threads are used again, and a changed namespace would stick to them.
async fn on_thread<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    let (done, outcome) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("netns".into())
        .spawn(move || {
            // The receiver is gone only when the caller was cancelled.
            let _ = done.send(work());
        })
        .map_err(|e| Error::namespace("start a thread for", OWN, e))?;
    outcome.await.map_err(|_| Error::HelperPanicked)?
}
