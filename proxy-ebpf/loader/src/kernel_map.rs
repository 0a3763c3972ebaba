//! One map of the kernel with the types of its keys and values.

use std::io;
use std::marker::PhantomData;
use std::mem::size_of;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use skep_ebpf_abi::Plain;

use crate::error::{Error, Result};
use crate::sys;

/// Elements a system call where the kernel takes many at once.
const BATCH: usize = 4096;
/// What those that are read in one may take, in bytes.
const BATCH_BYTES: usize = 1 << 20;

/// A map. All methods may run on any thread.
#[derive(Debug)]
pub(crate) struct KernelMap<K, V> {
    name: String,
    fd: OwnedFd,
    limit: u32,
    /// Whether the kernel takes many elements of this kind of map at once; until it refuses, it is thought to.
    batches: AtomicBool,
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
        Ok(Self {
            name: name.to_owned(),
            fd,
            limit: info.max_entries,
            batches: AtomicBool::new(true),
            types: PhantomData,
        })
    }

    /// The element at `key`.
    pub(crate) fn get(&self, key: &K) -> Result<Option<V>> {
        sys::map_get(self.fd.as_fd(), key).map_err(Error::on(format!("reading map {}", self.name)))
    }

    /// Writes an element; another one's place is never taken.
    pub(crate) fn put(&self, key: &K, value: &V) -> Result<()> {
        sys::map_put(self.fd.as_fd(), key, value).map_err(|error| self.refused(error))
    }

    fn refused(&self, error: io::Error) -> Error {
        match error.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) => Error::Full { name: self.name.clone(), limit: self.limit },
            _ => Error::kernel(format!("writing map {}", self.name), error),
        }
    }

    /// Writes elements in order; how many are written, also on an error.
    pub(crate) fn put_all(&self, keys: &[K], values: &[V]) -> (usize, Result<()>) {
        let mut done = 0;
        for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
            let mut written = 0;
            if self.may_batch(keys.len()) {
                let (count, result) = sys::map_put_batch(self.fd.as_fd(), keys, values);
                written = count;
                match result {
                    Err(error) if sys::is_unsupported(&error) => self.batch_no_more(&error),
                    Err(error) => return (done + written, Err(self.refused(error))),
                    Ok(()) => {}
                }
            }
            for (key, value) in keys.iter().zip(values).skip(written) {
                if let Err(error) = self.put(key, value) {
                    return (done + written, Err(error));
                }
                written += 1;
            }
            done += written;
        }
        (done, Ok(()))
    }

    /// Removes an element; absent is success.
    pub(crate) fn remove(&self, key: &K) -> Result<()> {
        sys::map_remove(self.fd.as_fd(), key).map(|_| ()).map_err(|error| self.kept(error))
    }

    fn kept(&self, error: io::Error) -> Error {
        Error::kernel(format!("removing from map {}", self.name), error)
    }

    /// Removes elements in order; how many keys are done with, also on an error. Absent is success.
    pub(crate) fn remove_all(&self, keys: &[K]) -> (usize, Result<()>) {
        let mut done = 0;
        for keys in keys.chunks(BATCH) {
            let mut removed = 0;
            if self.may_batch(keys.len()) {
                let (count, result) = sys::map_remove_batch(self.fd.as_fd(), keys);
                removed = count;
                match result {
                    Err(error) if sys::is_unsupported(&error) => self.batch_no_more(&error),
                    Err(error) => return (done + removed, Err(self.kept(error))),
                    Ok(()) => {}
                }
            }
            for key in keys.iter().skip(removed) {
                if let Err(error) = self.remove(key) {
                    return (done + removed, Err(error));
                }
                removed += 1;
            }
            done += removed;
        }
        (done, Ok(()))
    }

    /// A single element is cheaper by itself.
    fn may_batch(&self, elements: usize) -> bool {
        elements > 1 && self.batches.load(Ordering::Relaxed)
    }

    fn batch_no_more(&self, error: &io::Error) {
        if error.raw_os_error() != Some(libc::ENOMEM) && self.batches.swap(false, Ordering::Relaxed) {
            tracing::debug!(map = self.name, %error, "elements go one by one");
        }
    }

    /// Shows every element to `visit`. One that is changed meanwhile is seen before or after the change, one that is
    /// added meanwhile perhaps not, and none of those that stay is missed.
    pub(crate) fn visit(&self, mut visit: impl FnMut(K, V)) -> Result<()> {
        let failed = |error: io::Error| Error::kernel(format!("listing map {}", self.name), error);
        if self.batches.load(Ordering::Relaxed) {
            let fitting = BATCH_BYTES / (size_of::<K>() + size_of::<V>());
            let mut walk = sys::Walk::new::<K>(BATCH.min(fitting).min(self.limit as usize));
            loop {
                match walk.step(self.fd.as_fd()) {
                    Ok(elements) if elements.is_empty() => return Ok(()),
                    Ok(elements) => elements.into_iter().for_each(|(key, value)| visit(key, value)),
                    Err(error) if sys::is_unsupported(&error) && !walk.is_under_way() => {
                        self.batch_no_more(&error);
                        break;
                    }
                    Err(error) => return Err(failed(error)),
                }
            }
        }
        let mut key = sys::map_next::<K>(self.fd.as_fd(), None).map_err(failed)?;
        // A key removed meanwhile makes the kernel start over; without a bound that could go on for ever.
        let mut steps = u64::from(self.limit) * 2 + 16;
        while let Some(current) = key {
            if let Some(value) = self.get(&current)? {
                visit(current, value);
            }
            steps -= 1;
            if steps == 0 {
                return Err(failed(io::ErrorKind::Interrupted.into()));
            }
            key = sys::map_next(self.fd.as_fd(), Some(&current)).map_err(failed)?;
        }
        Ok(())
    }

    /// All elements in the order of their keys, seen as [`visit`](Self::visit) sees them.
    pub(crate) fn entries(&self) -> Result<Vec<(K, V)>> {
        let mut entries = Vec::new();
        self.visit(|key, value| entries.push((key, value)))?;
        entries.sort_unstable_by_key(|(key, _)| *key);
        entries.dedup_by_key(|(key, _)| *key);
        Ok(entries)
    }

    /// How many elements there are.
    pub(crate) fn count(&self) -> Result<usize> {
        let mut count = 0;
        self.visit(|_, _| count += 1)?;
        Ok(count)
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
