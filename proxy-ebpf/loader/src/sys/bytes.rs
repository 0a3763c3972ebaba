//! Elements of maps whose types are known at run time only, as bytes. The callers see to it that keys and values have
//! the sizes that the map has.

use std::io;
use std::os::fd::BorrowedFd;

use super::batch::{Batch, LOOKUP_BATCH};
use super::{Element, MAP_DELETE, MAP_LOOKUP, MAP_NEXT_KEY, MAP_UPDATE, bpf, raw};

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr() as u64
}

fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads an element into `value`; whether there is one.
pub(crate) fn get_bytes(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let mut attributes =
        Element { map: raw(map), key: address(key), value: value.as_mut_ptr() as u64, ..Element::default() };
    Ok(absent(bpf(MAP_LOOKUP, &mut attributes))?.is_some())
}

/// Writes an element.
pub(crate) fn put_bytes(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut attributes =
        Element { map: raw(map), key: address(key), value: address(value), ..Element::default() };
    bpf(MAP_UPDATE, &mut attributes).map(|_| ())
}

/// Removes an element; whether there was one.
pub(crate) fn remove_bytes(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    let mut attributes = Element { map: raw(map), key: address(key), ..Element::default() };
    Ok(absent(bpf(MAP_DELETE, &mut attributes))?.is_some())
}

/// The key after `key`, or the first, into `next`; whether there is one.
pub(crate) fn next_bytes(map: BorrowedFd<'_>, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
    let mut attributes = Element {
        map: raw(map),
        key: key.map_or(0, address),
        value: next.as_mut_ptr() as u64,
        ..Element::default()
    };
    Ok(absent(bpf(MAP_NEXT_KEY, &mut attributes))?.is_some())
}

/// A walk through a map, many elements a step.
#[derive(Debug)]
pub(crate) struct ByteWalk {
    sizes: (usize, usize),
    place: Option<Vec<u8>>,
    ended: bool,
    room: usize,
}

impl ByteWalk {
    /// Of a map with keys and values of these sizes.
    pub(crate) fn new(key: usize, value: usize, room: usize) -> Self {
        Self { sizes: (key, value), place: None, ended: false, room: room.max(1) }
    }

    /// Whether a step has been made.
    pub(crate) fn is_under_way(&self) -> bool {
        self.place.is_some()
    }

    /// The next keys and values, one after another; none when the walk is over.
    pub(crate) fn step(&mut self, map: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let (key, value) = self.sizes;
        while !self.ended {
            let (mut keys, mut values) = (vec![0; key * self.room], vec![0; value * self.room]);
            let mut next = vec![0_u8; key.max(8)];
            let mut attributes = Batch {
                from: self.place.as_deref().map_or(0, address),
                to: next.as_mut_ptr() as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: self.room as u32,
                map: raw(map),
                ..Batch::default()
            };
            match bpf(LOOKUP_BATCH, &mut attributes) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.ended = true,
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    // One bucket holds more than there is room for.
                    self.room *= 2;
                    continue;
                }
                Err(error) => return Err(error),
            }
            self.place = Some(next);
            let count = (attributes.count as usize).min(self.room);
            if count > 0 {
                keys.truncate(count * key);
                values.truncate(count * value);
                return Ok((keys, values));
            }
        }
        Ok((Vec::new(), Vec::new()))
    }
}
