//! A pinned map of any layout, its elements as bytes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::error::{Error, Result};
use crate::sys;

/// Elements a system call.
const BATCH: usize = 4096;
/// The kernel's numbers of arrays: their elements are all there, always.
const ARRAYS: [u32; 2] = [2, 6];

/// A map.
#[derive(Debug)]
pub(crate) struct RawMap {
    name: String,
    fd: OwnedFd,
    info: sys::MapInfo,
}

impl RawMap {
    /// Opens a pin; none if there is no such pin, or if it is no map.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let fd = match sys::open_pinned(path) {
            Ok(fd) => fd,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::kernel(format!("opening pinned map {}", path.display()), error)),
        };
        let info = sys::map_info(fd.as_fd()).map_err(Error::on(format!("describing map {name}")))?;
        Ok(Some(Self { name, fd, info }))
    }

    /// The sizes of keys and values.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.info.key_size as usize, self.info.value_size as usize)
    }

    /// How many elements it can hold.
    pub(crate) fn limit(&self) -> u32 {
        self.info.max_entries
    }

    /// Whether its elements are all there, always.
    pub(crate) fn is_array(&self) -> bool {
        ARRAYS.contains(&self.info.kind)
    }

    fn failed(&self, doing: &str) -> impl Fn(io::Error) -> Error {
        let action = format!("{doing} map {}", self.name);
        move |error| Error::kernel(action.clone(), error)
    }

    /// Shows every element.
    pub(crate) fn visit(&self, mut visit: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        let (key_size, value_size) = self.sizes();
        let mut walk = sys::ByteWalk::new(key_size, value_size, BATCH.min(self.info.max_entries as usize));
        loop {
            match walk.step(self.fd.as_fd()) {
                Ok((keys, _)) if keys.is_empty() => return Ok(()),
                Ok((keys, values)) => {
                    for (key, value) in keys.chunks_exact(key_size).zip(values.chunks_exact(value_size)) {
                        visit(key, value)?;
                    }
                }
                Err(error) if sys::is_unsupported(&error) && !walk.is_under_way() => break,
                Err(error) => return Err(self.failed("listing")(error)),
            }
        }
        let (mut key, mut value) = (vec![0; key_size], vec![0; value_size]);
        let mut more = sys::next_bytes(self.fd.as_fd(), None, &mut key).map_err(self.failed("listing"))?;
        let mut steps = u64::from(self.info.max_entries) * 2 + 16;
        while more {
            if sys::get_bytes(self.fd.as_fd(), &key, &mut value).map_err(self.failed("reading"))? {
                visit(&key, &value)?;
            }
            steps -= 1;
            if steps == 0 {
                return Err(self.failed("listing")(io::ErrorKind::Interrupted.into()));
            }
            let before = key.clone();
            more =
                sys::next_bytes(self.fd.as_fd(), Some(&before), &mut key).map_err(self.failed("listing"))?;
        }
        Ok(())
    }

    /// The value at `key`.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.info.value_size as usize];
        let found = sys::get_bytes(self.fd.as_fd(), key, &mut value).map_err(self.failed("reading"))?;
        Ok(found.then_some(value))
    }

    /// Writes an element of the map's sizes.
    pub(crate) fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        if (key.len(), value.len()) != self.sizes() {
            return Err(self.failed("writing")(io::ErrorKind::InvalidInput.into()));
        }
        sys::put_bytes(self.fd.as_fd(), key, value).map_err(|error| match error.raw_os_error() {
            Some(libc::E2BIG | libc::ENOSPC) => {
                Error::Full { name: self.name.clone(), limit: self.info.max_entries }
            }
            _ => self.failed("writing")(error),
        })
    }

    /// Removes an element; absent is success.
    pub(crate) fn remove(&self, key: &[u8]) -> Result<()> {
        sys::remove_bytes(self.fd.as_fd(), key).map(|_| ()).map_err(self.failed("removing from"))
    }
}
