//! Many elements of a map by one system call (`BPF_MAP_*_BATCH`: hashes from 5.6, arrays and prefix trees from 5.13).
//!
//! The kernel goes through the keys in order, stops at the first that it refuses, and says how many it did.

use std::io;
use std::mem::size_of;
use std::os::fd::BorrowedFd;

use skep_ebpf_abi::Plain;

use super::{bpf, raw};

pub(super) const LOOKUP_BATCH: u32 = 24;
const UPDATE: u32 = 26;
const DELETE: u32 = 27;

/// `ENOTSUPP`, which libc does not know: the kernel keeps it to itself but for here.
const NOT_SUPPORTED: i32 = 524;

#[repr(C)]
#[derive(Default)]
pub(super) struct Batch {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) keys: u64,
    pub(super) values: u64,
    pub(super) count: u32,
    pub(super) map: u32,
    pub(super) element_flags: u64,
    pub(super) flags: u64,
}

/// Whether an error says that nothing was done, and that elements must be taken one by one.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    // Out of memory is for the call's own buffer as well as for an element: one by one it becomes clear which.
    matches!(error.raw_os_error(), Some(NOT_SUPPORTED | libc::EINVAL | libc::ENOMEM | libc::EFAULT))
}

fn slice_address<T>(values: &[T]) -> u64 {
    values.as_ptr() as u64
}

/// Writes elements in order; how many are written, also on an error.
pub(crate) fn map_put_batch<K: Plain, V: Plain>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> (usize, io::Result<()>) {
    let count = keys.len().min(values.len());
    let mut attributes = Batch {
        keys: slice_address(keys),
        values: slice_address(values),
        count: count as u32,
        map: raw(map),
        ..Batch::default()
    };
    match bpf(UPDATE, &mut attributes) {
        Ok(_) => (count, Ok(())),
        Err(error) if is_unsupported(&error) => (0, Err(error)),
        Err(error) => (attributes.count as usize, Err(error)),
    }
}

/// Removes elements in order; how many keys are done with, also on an error. Absent is done.
pub(crate) fn map_remove_batch<K: Plain>(map: BorrowedFd<'_>, keys: &[K]) -> (usize, io::Result<()>) {
    let mut done = 0;
    while let Some(rest) = keys.get(done..).filter(|rest| !rest.is_empty()) {
        let mut attributes =
            Batch { keys: slice_address(rest), count: rest.len() as u32, map: raw(map), ..Batch::default() };
        match bpf(DELETE, &mut attributes) {
            Ok(_) => return (keys.len(), Ok(())),
            Err(error) if is_unsupported(&error) => return (done, Err(error)),
            // The one it stopped at is not there: on with the next.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => done += attributes.count as usize + 1,
            Err(error) => return (done + attributes.count as usize, Err(error)),
        }
    }
    (keys.len(), Ok(()))
}

/// A walk through a map.
#[derive(Debug)]
pub(crate) struct Walk {
    /// Where the kernel goes on: a bucket's number, or a key.
    place: Vec<u8>,
    started: bool,
    ended: bool,
    room: usize,
}

impl Walk {
    /// A walk that takes about `room` elements a step.
    pub(crate) fn new<K: Plain>(room: usize) -> Self {
        Self { place: vec![0; size_of::<K>().max(8)], started: false, ended: false, room: room.max(1) }
    }

    /// Whether a step has been made.
    pub(crate) fn is_under_way(&self) -> bool {
        self.started
    }

    /// The next elements; none when the walk is over.
    pub(crate) fn step<K: Plain, V: Plain>(&mut self, map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>> {
        while !self.ended {
            let mut keys = Vec::<K>::with_capacity(self.room);
            let mut values = Vec::<V>::with_capacity(self.room);
            let mut next = vec![0_u8; self.place.len()];
            let mut attributes = Batch {
                from: if self.started { slice_address(&self.place) } else { 0 },
                to: next.as_mut_ptr() as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: self.room as u32,
                map: raw(map),
                ..Batch::default()
            };
            let got = bpf(LOOKUP_BATCH, &mut attributes);
            let ended = matches!(&got, Err(error) if error.raw_os_error() == Some(libc::ENOENT));
            match got {
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    // One bucket holds more than there is room for.
                    self.room *= 2;
                    continue;
                }
                Err(error) if !ended => return Err(error),
                _ => {}
            }
            let count = (attributes.count as usize).min(self.room);
            // SAFETY: the kernel has written `count` keys and values into buffers of at least that capacity, and
            // `Plain` types accept every bit pattern.
            unsafe {
                keys.set_len(count);
                values.set_len(count);
            }
            (self.started, self.ended, self.place) = (true, ended, next);
            if count > 0 {
                return Ok(keys.into_iter().zip(values).collect());
            }
        }
        Ok(Vec::new())
    }
}
