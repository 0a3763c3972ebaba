//! The tables on disk, opening them, and what an engine fault means to a caller.
//!
//! `current` holds every live pair. `history` is an undo log: when revision R overwrites or deletes a
//! pair, what was there goes to `(key, R)`. `changes` says which keys a revision wrote, in order. So
//! the state at X is, for each key, the first history entry after X if there is one, else the current
//! pair, and compaction only ever drops a front part of `changes` with the history entries it names.

use std::path::Path;

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

use crate::{Error, LeaseId, Result, Revision};

/// Live pairs.
pub(super) const CURRENT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("current");
/// `(key, revision that replaced it)` to the pair replaced.
pub(super) const HISTORY: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("history");
/// `(revision, position in its transaction)` to the key written.
pub(super) const CHANGES: TableDefinition<'_, (u64, u32), &str> = TableDefinition::new("changes");
/// Lease to its ttl in milliseconds.
pub(super) const LEASES: TableDefinition<'_, LeaseId, u64> = TableDefinition::new("leases");
/// The keys that live by a lease.
pub(super) const LEASE_KEYS: TableDefinition<'_, (LeaseId, &str), ()> = TableDefinition::new("lease_keys");
/// Counters, by the names below.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

pub(super) const REVISION: &str = "revision";
pub(super) const COMPACTED: &str = "compacted";
pub(super) const NEXT_LEASE: &str = "next_lease";
const FORMAT: &str = "format";
const FORMAT_VERSION: u64 = 1;

/// An empty store is at revision 1, as etcd's is: 0 must keep its meaning "none".
pub(super) const FIRST_REVISION: Revision = 1;

/// Opens the file, making it and its tables when it is new.
pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<Database> {
    let database = Database::builder().set_cache_size(cache_bytes).create(path).map_err(|e| match e {
        DatabaseError::DatabaseAlreadyOpen => Error::InUse(path.display().to_string()),
        DatabaseError::Storage(StorageError::Io(e)) if e.kind() == std::io::ErrorKind::InvalidData => {
            Error::Corrupt(format!("{} is not a store: {e}", path.display()))
        }
        DatabaseError::Storage(StorageError::Io(e)) => {
            Error::Unavailable(format!("can't open {}: {e}", path.display()))
        }
        other => Error::Corrupt(format!("{}: {other}", path.display())),
    })?;
    if let Some(found) = format_of(&database)? {
        return if found == FORMAT_VERSION {
            Ok(database)
        } else {
            Err(Error::Format { found, supported: FORMAT_VERSION })
        };
    }
    let write = database.begin_write().map_err(fault)?;
    {
        let mut meta = write.open_table(META).map_err(fault)?;
        meta.insert(FORMAT, FORMAT_VERSION).map_err(fault)?;
        meta.insert(REVISION, FIRST_REVISION).map_err(fault)?;
        write.open_table(CURRENT).map_err(fault)?;
        write.open_table(HISTORY).map_err(fault)?;
        write.open_table(CHANGES).map_err(fault)?;
        write.open_table(LEASES).map_err(fault)?;
        write.open_table(LEASE_KEYS).map_err(fault)?;
    }
    write.commit().map_err(fault)?;
    Ok(database)
}

fn format_of(database: &Database) -> Result<Option<u64>> {
    let read = database.begin_read().map_err(fault)?;
    let mut tables = read.list_tables().map_err(fault)?;
    if tables.next().is_none() {
        return Ok(None);
    }
    let meta = read.open_table(META).map_err(|e| Error::Corrupt(format!("no table of meta data: {e}")))?;
    counter(&meta, FORMAT)?.map_or_else(|| Err(Error::Corrupt("no format version".into())), |v| Ok(Some(v)))
}

/// One of the counters in [`META`].
pub(super) fn counter(meta: &impl ReadableTable<&'static str, u64>, name: &str) -> Result<Option<u64>> {
    Ok(meta.get(name).map_err(fault)?.map(|guard| guard.value()))
}

/// An engine fault in the trait's words: damage is told apart from what may pass.
pub(super) fn fault(error: impl Into<redb::Error>) -> Error {
    match error.into() {
        e @ (redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableDoesNotExist(_)) => Error::Corrupt(e.to_string()),
        e => Error::Unavailable(e.to_string()),
    }
}
