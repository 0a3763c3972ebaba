//! Network namespaces whose sockets are left alone: what their processes dial goes out as it is and is translated
//! packet by packet. A proxy beside an application (a service mesh's) must see the address that was dialled, and what
//! has a network stack of its own (a virtual machine's) opens no socket here.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

use super::DataPlane;
use crate::error::{Error, Result};
use crate::kernel_map::KernelMap;
use crate::sys;

impl DataPlane {
    /// Leaves the sockets of a network namespace alone, or no longer; again is success. A namespace that is not there
    /// has no sockets.
    ///
    /// # Errors
    /// When the kernel refuses; before 5.14 it cannot tell which namespace a socket is in.
    pub fn skip_sockets(&self, namespace: &Path, skip: bool) -> Result<()> {
        let map = self.skipped()?;
        if !skip && map.entries()?.is_empty() {
            return Ok(());
        }
        let Some(cookie) = cookie_of(namespace)? else { return Ok(()) };
        if skip { map.put(&cookie, &1) } else { map.remove(&cookie) }
    }

    /// Forgets namespaces that are not among these: they went while nobody looked.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn keep_skipped(&self, namespaces: &[PathBuf]) -> Result<()> {
        let map = self.skipped()?;
        let skipped = map.entries()?;
        if skipped.is_empty() {
            return Ok(());
        }
        let mut present = BTreeSet::new();
        for namespace in namespaces {
            present.extend(cookie_of(namespace)?);
        }
        skipped
            .iter()
            .filter(|(cookie, _)| !present.contains(cookie))
            .try_for_each(|(cookie, _)| map.remove(cookie))
    }

    fn skipped(&self) -> Result<KernelMap<u64, u32>> {
        KernelMap::open(&self.pins.maps(), "skip_socket")
    }
}

/// The cookie of a namespace, if it is there.
fn cookie_of(namespace: &Path) -> Result<Option<u64>> {
    let action = || format!("telling network namespace {}", namespace.display());
    let file = match File::open(namespace) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::kernel(action(), error)),
    };
    // A thread of its own: the namespace of a thread that runs other work must not change.
    let inside = std::thread::scope(|scope| {
        let work = || {
            setns(&file, CloneFlags::CLONE_NEWNET)?;
            sys::netns_cookie()
        };
        match scope.spawn(work).join() {
            Ok(cookie) => cookie,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    inside.map(Some).map_err(Error::on(action()))
}
