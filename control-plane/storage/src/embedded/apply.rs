//! Runs transactions inside an open redb write transaction. Nothing here is visible, or durable,
//! before the writer commits; several transactions share one commit.

use std::collections::HashSet;

use bytes::Bytes;
use redb::{ReadableTable, Table, WriteTransaction};

use super::read::View;
use super::record::Record;
use super::tables::{self, fault};
use crate::{
    Batch, Change, Compare, Error, KeyValue, LeaseId, Op, OpResult, Result, Revision, Target, TxnRequest,
    TxnResult,
};

/// The tables a write works on.
pub(super) struct Workspace<'t> {
    current: Table<'t, &'static str, &'static [u8]>,
    history: Table<'t, (&'static str, u64), &'static [u8]>,
    pub(super) changes: Table<'t, (u64, u32), &'static str>,
    pub(super) leases: Table<'t, LeaseId, u64>,
    lease_keys: Table<'t, (LeaseId, &'static str), ()>,
    pub(super) meta: Table<'t, &'static str, u64>,
    /// The newest revision, of this unfinished group too.
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
}

/// What one transaction did.
pub(super) struct Applied {
    pub(super) result: TxnResult,
    /// Its changes; none when it only read.
    pub(super) batch: Option<Batch>,
}

impl<'t> Workspace<'t> {
    pub(super) fn open(write: &'t WriteTransaction) -> Result<Self> {
        let meta = write.open_table(tables::META).map_err(fault)?;
        let revision = tables::counter(&meta, tables::REVISION)?
            .ok_or_else(|| Error::Corrupt("the store has no revision".into()))?;
        let compacted = tables::counter(&meta, tables::COMPACTED)?.unwrap_or(0);
        Ok(Self {
            current: write.open_table(tables::CURRENT).map_err(fault)?,
            history: write.open_table(tables::HISTORY).map_err(fault)?,
            changes: write.open_table(tables::CHANGES).map_err(fault)?,
            leases: write.open_table(tables::LEASES).map_err(fault)?,
            lease_keys: write.open_table(tables::LEASE_KEYS).map_err(fault)?,
            meta,
            revision,
            compacted,
        })
    }

    /// Runs one transaction. [`check`] must have passed it. The outer error is a fault of the engine
    /// after which the whole group is lost; the inner one refuses this transaction alone, and then
    /// nothing of it was written.
    pub(super) fn txn(&mut self, request: &TxnRequest) -> Result<Result<Applied>> {
        let mut succeeded = true;
        for compare in &request.compare {
            succeeded &= self.holds(compare)?;
        }
        let ops = if succeeded { &request.success } else { &request.failure };
        if let Err(refusal) = self.admissible(ops)? {
            return Ok(Err(refusal));
        }
        let revision = self.revision + 1;
        let mut changes = Vec::new();
        let mut results = Vec::with_capacity(ops.len());
        for op in ops {
            results.push(match op {
                Op::Put { key, value, lease } => {
                    changes.push(self.put(key, value, *lease, revision, changes.len())?);
                    OpResult::Put
                }
                Op::Delete { key } => {
                    let previous = self.delete(key, revision, changes.len())?;
                    if previous.is_some() {
                        changes.push(Change::Delete { key: key.clone(), previous: previous.clone() });
                    }
                    OpResult::Deleted(previous)
                }
                Op::Range(range) => {
                    let at = if changes.is_empty() { self.revision } else { revision };
                    let view = View {
                        current: &self.current,
                        history: &self.history,
                        revision: at,
                        compacted: self.compacted,
                    };
                    OpResult::Range(view.range(range)?)
                }
            });
        }
        let batch = self.seal(revision, changes)?;
        Ok(Ok(Applied { result: TxnResult { succeeded, results, revision: self.revision }, batch }))
    }

    /// Deletes every key of a lease in one revision, and the lease.
    pub(super) fn end_lease(&mut self, lease: LeaseId) -> Result<Option<Batch>> {
        let mut keys = Vec::new();
        for entry in self.lease_keys.range::<(LeaseId, &str)>((lease, "")..).map_err(fault)? {
            let (id, _) = entry.map_err(fault)?;
            let (owner, key) = id.value();
            if owner != lease {
                break;
            }
            keys.push(key.to_owned());
        }
        let revision = self.revision + 1;
        let mut changes = Vec::new();
        for key in keys {
            let previous = self.delete(&key, revision, changes.len())?;
            if previous.is_some() {
                changes.push(Change::Delete { key, previous });
            }
        }
        self.leases.remove(lease).map_err(fault)?;
        self.seal(revision, changes)
    }

    fn seal(&mut self, revision: Revision, changes: Vec<Change>) -> Result<Option<Batch>> {
        if changes.is_empty() {
            return Ok(None);
        }
        self.meta.insert(tables::REVISION, revision).map_err(fault)?;
        self.revision = revision;
        Ok(Some(Batch { revision, changes }))
    }

    fn holds(&self, compare: &Compare) -> Result<bool> {
        let found = self.current.get(compare.key.as_str()).map_err(fault)?;
        let record = found.as_ref().map(|bytes| Record::decode(bytes.value())).transpose()?;
        Ok(match compare.target {
            Target::ModRevision(revision) => record.map_or(0, |r| r.modified) == revision,
            Target::CreateRevision(revision) => record.map_or(0, |r| r.create) == revision,
        })
    }

    /// What only the state can tell: leases exist, read revisions can be served.
    fn admissible(&self, ops: &[Op]) -> Result<Result<()>> {
        for op in ops {
            match op {
                Op::Put { lease, .. } if *lease != 0 => {
                    if self.leases.get(*lease).map_err(fault)?.is_none() {
                        return Ok(Err(Error::NoLease(*lease)));
                    }
                }
                Op::Range(range) if range.revision > self.revision => {
                    return Ok(Err(Error::Future { asked: range.revision, current: self.revision }));
                }
                Op::Range(range) if range.revision != 0 && range.revision < self.compacted => {
                    return Ok(Err(Error::Compacted { asked: range.revision, oldest: self.compacted }));
                }
                Op::Put { .. } | Op::Delete { .. } | Op::Range(_) => {}
            }
        }
        Ok(Ok(()))
    }

    fn put(
        &mut self,
        key: &str,
        value: &Bytes,
        lease: LeaseId,
        revision: Revision,
        position: usize,
    ) -> Result<Change> {
        let previous = self.retire(key, revision)?;
        let record = Record {
            create: previous.as_ref().map_or(revision, |pair| pair.create_revision),
            modified: revision,
            version: previous.as_ref().map_or(1, |pair| pair.version + 1),
            lease,
            value,
        };
        self.current.insert(key, record.encode().as_slice()).map_err(fault)?;
        if lease != 0 {
            self.lease_keys.insert((lease, key), ()).map_err(fault)?;
        }
        self.log(key, revision, position)?;
        let kv = KeyValue { value: value.clone(), ..record.to_pair(key, true) };
        Ok(Change::Put { kv, previous })
    }

    fn delete(&mut self, key: &str, revision: Revision, position: usize) -> Result<Option<KeyValue>> {
        let previous = self.retire(key, revision)?;
        if previous.is_some() {
            self.current.remove(key).map_err(fault)?;
            self.log(key, revision, position)?;
        }
        Ok(previous)
    }

    /// Moves what is at `key` into the history and lets go of its lease.
    fn retire(&mut self, key: &str, revision: Revision) -> Result<Option<KeyValue>> {
        let Some(bytes) = self.current.get(key).map_err(fault)? else { return Ok(None) };
        let pair = Record::decode(bytes.value())?.to_pair(key, false);
        self.history.insert((key, revision), bytes.value()).map_err(fault)?;
        drop(bytes);
        if pair.lease != 0 {
            self.lease_keys.remove((pair.lease, key)).map_err(fault)?;
        }
        Ok(Some(pair))
    }

    fn log(&mut self, key: &str, revision: Revision, position: usize) -> Result<()> {
        let position = u32::try_from(position).map_err(|e| Error::Invalid(e.to_string()))?;
        self.changes.insert((revision, position), key).map_err(fault)?;
        Ok(())
    }

    /// Drops up to `budget` changes at or below the compacted revision; true when none are left.
    pub(super) fn sweep(&mut self, budget: usize) -> Result<bool> {
        let mut doomed = Vec::new();
        for entry in
            self.changes.range::<(u64, u32)>(..=(self.compacted, u32::MAX)).map_err(fault)?.take(budget)
        {
            let (id, key) = entry.map_err(fault)?;
            doomed.push((id.value(), key.value().to_owned()));
        }
        for (id, key) in &doomed {
            self.changes.remove(*id).map_err(fault)?;
            self.history.remove((key.as_str(), id.0)).map_err(fault)?;
        }
        Ok(doomed.len() < budget)
    }
}

/// What can be told of a transaction without looking at the store.
pub(crate) fn check(request: &TxnRequest, limit: usize) -> Result<()> {
    let mut size = 0;
    for branch in [&request.success, &request.failure] {
        let mut written = HashSet::new();
        for op in branch {
            let key = match op {
                Op::Put { key, value, .. } => {
                    size += key.len() + value.len();
                    key
                }
                Op::Delete { key } => {
                    size += key.len();
                    key
                }
                Op::Range(_) => continue,
            };
            if key.is_empty() {
                return Err(Error::Invalid("an empty key".into()));
            }
            if !written.insert(key.as_str()) {
                return Err(Error::Invalid(format!("{key} is written twice in one transaction")));
            }
        }
    }
    if size > limit { Err(Error::TooLarge { size, limit }) } else { Ok(()) }
}
