//! One map of the kernel with the types of its keys and values.

use std::io;
use std::marker::PhantomData;
use std::mem::size_of;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use skep_ebpf_abi::Plain;

use crate::error::{Error, Result};
use crate::sys;

/// A map. All methods are one system call a key and may run on any thread.
#[derive(Debug)]
pub(crate) struct KernelMap<K, V> {
    name: String,
    fd: OwnedFd,
    limit: u32,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Plain + Ord, V: Plain> KernelMap<K, V> {
    /// Opens the pin `name` in `folder` and checks that it holds these types.
    pub(crate) fn open(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(name);
        let fd =
            sys::open_pinned(&path).map_err(Error::on(format!("opening pinned map {}", path.display())))?;
        let info = sys::map_info(fd.as_fd()).map_err(Error::on(format!("describing map {name}")))?;
        let (wanted_key, wanted_value) = (size_of::<K>() as u32, size_of::<V>() as u32);
        if info.key_size != wanted_key || info.value_size != wanted_value {
            return Err(Error::Layout {
                path,
                key: info.key_size,
                value: info.value_size,
                wanted_key,
                wanted_value,
            });
        }
        Ok(Self { name: name.to_owned(), fd, limit: info.max_entries, types: PhantomData })
    }

    /// The element at `key`.
    pub(crate) fn get(&self, key: &K) -> Result<Option<V>> {
        sys::map_get(self.fd.as_fd(), key).map_err(Error::on(format!("reading map {}", self.name)))
    }

    /// Writes an element; another one's place is never taken.
    pub(crate) fn put(&self, key: &K, value: &V) -> Result<()> {
        sys::map_put(self.fd.as_fd(), key, value).map_err(|error| match error.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) => Error::Full { name: self.name.clone(), limit: self.limit },
            _ => Error::kernel(format!("writing map {}", self.name), error),
        })
    }

    /// Removes an element; absent is success.
    pub(crate) fn remove(&self, key: &K) -> Result<()> {
        sys::map_remove(self.fd.as_fd(), key)
            .map(|_| ())
            .map_err(Error::on(format!("removing from map {}", self.name)))
    }

    /// All elements. One that is changed meanwhile is seen before or after the change, one that is added meanwhile
    /// perhaps not.
    pub(crate) fn entries(&self) -> Result<Vec<(K, V)>> {
        let failed = |error: io::Error| Error::kernel(format!("listing map {}", self.name), error);
        let mut entries = Vec::new();
        let mut key = sys::map_next::<K>(self.fd.as_fd(), None).map_err(failed)?;
        // A key removed meanwhile makes the kernel start over; without a bound that could go on for ever.
        let mut steps = u64::from(self.limit) * 2 + 16;
        while let Some(current) = key {
            if let Some(value) = self.get(&current)? {
                entries.push((current, value));
            }
            steps -= 1;
            if steps == 0 {
                return Err(failed(io::ErrorKind::Interrupted.into()));
            }
            key = sys::map_next(self.fd.as_fd(), Some(&current)).map_err(failed)?;
        }
        entries.sort_by_key(|(key, _)| *key);
        entries.dedup_by_key(|(key, _)| *key);
        Ok(entries)
    }

    /// How many elements it can hold.
    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// Its descriptor.
    pub(crate) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
