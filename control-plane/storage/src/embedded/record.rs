//! The bytes of one stored pair: a fixed little-endian header, then the value.

use bytes::Bytes;

use crate::{Error, KeyValue, LeaseId, Result, Revision};

const HEADER: usize = 32;

/// Everything stored of a pair beside its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) create: Revision,
    pub(super) modified: Revision,
    pub(super) version: u64,
    pub(super) lease: LeaseId,
    pub(super) value: &'a [u8],
}

impl<'a> Record<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.value.len());
        out.extend_from_slice(&self.create.to_le_bytes());
        out.extend_from_slice(&self.modified.to_le_bytes());
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.lease.to_le_bytes());
        out.extend_from_slice(self.value);
        out
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self> {
        let short =
            || Error::Corrupt(format!("a record of {} bytes is shorter than its header", bytes.len()));
        let word = |at: usize| -> Result<[u8; 8]> {
            bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).ok_or_else(short)
        };
        Ok(Self {
            create: u64::from_le_bytes(word(0)?),
            modified: u64::from_le_bytes(word(8)?),
            version: u64::from_le_bytes(word(16)?),
            lease: i64::from_le_bytes(word(24)?),
            value: bytes.get(HEADER..).ok_or_else(short)?,
        })
    }

    /// The pair as the trait shows it.
    pub(super) fn to_pair(self, key: &str, keys_only: bool) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: if keys_only { Bytes::new() } else { Bytes::copy_from_slice(self.value) },
            create_revision: self.create,
            mod_revision: self.modified,
            version: self.version,
            lease: self.lease,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_a_short_one_is_refused() {
        let record = Record { create: 3, modified: 9, version: 4, lease: -7, value: b"hello" };
        assert_eq!(Record::decode(&record.encode()).ok(), Some(record));
        assert!(matches!(Record::decode(&record.encode()[..31]), Err(Error::Corrupt(_))));
    }
}
