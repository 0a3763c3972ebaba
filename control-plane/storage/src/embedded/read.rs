//! Range reads over a snapshot or over a transaction under way, at the newest or an older revision.

use std::collections::BTreeMap;
use std::ops::Bound;

use redb::ReadableTable;

use super::record::Record;
use super::tables::{self, fault};
use crate::{Error, KeyValue, Op, OpResult, Range, RangeResult, Result, Revision, TxnRequest, TxnResult};

/// The state a read is answered from; its parts come from one redb transaction.
pub(super) struct View<'a, C, H> {
    pub(super) current: &'a C,
    pub(super) history: &'a H,
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
}

impl<C, H> View<'_, C, H>
where
    C: ReadableTable<&'static str, &'static [u8]>,
    H: ReadableTable<(&'static str, u64), &'static [u8]>,
{
    /// Answers a range read.
    pub(super) fn range(&self, range: &Range) -> Result<RangeResult> {
        if range.revision > self.revision {
            return Err(Error::Future { asked: range.revision, current: self.revision });
        }
        if range.revision != 0 && range.revision < self.compacted {
            return Err(Error::Compacted { asked: range.revision, oldest: self.compacted });
        }
        let mut sink = Sink::new(range, self.revision);
        let old = range.revision != 0 && range.revision != self.revision;
        if range.end.is_empty() {
            if let Some(pair) =
                self.one(&range.start, if old { range.revision } else { 0 }, range.keys_only)?
            {
                sink.push(pair);
            }
        } else if range.start < range.end {
            if old {
                self.scan_at(range, &mut sink)?;
            } else {
                self.scan(range, &mut sink)?;
            }
        }
        Ok(sink.result)
    }

    fn one(&self, key: &str, at: Revision, keys_only: bool) -> Result<Option<KeyValue>> {
        if at != 0 {
            let mut later = self
                .history
                .range::<(&str, u64)>((Bound::Excluded((key, at)), Bound::Included((key, u64::MAX))))
                .map_err(fault)?;
            if let Some(entry) = later.next() {
                let (_, bytes) = entry.map_err(fault)?;
                let record = Record::decode(bytes.value())?;
                return Ok((record.modified <= at).then(|| record.to_pair(key, keys_only)));
            }
        }
        let Some(bytes) = self.current.get(key).map_err(fault)? else { return Ok(None) };
        let record = Record::decode(bytes.value())?;
        Ok((at == 0 || record.modified <= at).then(|| record.to_pair(key, keys_only)))
    }

    fn scan(&self, range: &Range, sink: &mut Sink) -> Result<()> {
        for entry in self.current.range::<&str>(range.start.as_str()..range.end.as_str()).map_err(fault)? {
            let (key, bytes) = entry.map_err(fault)?;
            if sink.wants_pairs() {
                sink.push(Record::decode(bytes.value())?.to_pair(key.value(), range.keys_only));
            } else {
                sink.count();
            }
        }
        Ok(())
    }

    fn scan_at(&self, range: &Range, sink: &mut Sink) -> Result<()> {
        let at = range.revision;
        // What differs from the current state: the pair at `at`, or None where there was none.
        let mut undone: BTreeMap<String, Option<KeyValue>> = BTreeMap::new();
        let span = (range.start.as_str(), 0)..(range.end.as_str(), 0);
        for entry in self.history.range::<(&str, u64)>(span).map_err(fault)? {
            let (id, bytes) = entry.map_err(fault)?;
            let (key, replaced_at) = id.value();
            if replaced_at <= at || undone.contains_key(key) {
                continue;
            }
            let record = Record::decode(bytes.value())?;
            let pair = (record.modified <= at).then(|| record.to_pair(key, range.keys_only));
            undone.insert(key.to_owned(), pair);
        }
        let mut undone = undone.into_iter().peekable();
        for entry in self.current.range::<&str>(range.start.as_str()..range.end.as_str()).map_err(fault)? {
            let (key, bytes) = entry.map_err(fault)?;
            let mut replaced = false;
            while let Some((old_key, pair)) = undone.next_if(|(old, _)| old.as_str() <= key.value()) {
                replaced |= old_key == key.value();
                pair.into_iter().for_each(|pair| sink.push(pair));
            }
            let record = Record::decode(bytes.value())?;
            if !replaced && record.modified <= at {
                sink.push(record.to_pair(key.value(), range.keys_only));
            }
        }
        undone.filter_map(|(_, pair)| pair).for_each(|pair| sink.push(pair));
        Ok(())
    }
}

/// Collects pairs up to the limit and counts them all.
struct Sink {
    limit: usize,
    result: RangeResult,
}

impl Sink {
    fn new(range: &Range, revision: Revision) -> Self {
        let limit = match (range.count_only, range.limit) {
            (true, _) => 0,
            (false, 0) => usize::MAX,
            (false, limit) => limit,
        };
        Self { limit, result: RangeResult { revision, ..RangeResult::default() } }
    }

    fn wants_pairs(&self) -> bool {
        self.result.kvs.len() < self.limit
    }

    fn count(&mut self) {
        self.result.count += 1;
        self.result.more = self.limit != 0;
    }

    fn push(&mut self, pair: KeyValue) {
        if self.wants_pairs() {
            self.result.kvs.push(pair);
            self.result.count += 1;
        } else {
            self.count();
        }
    }
}

/// Answers a range read from a fresh snapshot.
pub(super) fn snapshot_range(database: &redb::Database, range: &Range) -> Result<RangeResult> {
    let snapshot = Snapshot::begin(database)?;
    snapshot.view().range(range)
}

type CurrentTable = redb::ReadOnlyTable<&'static str, &'static [u8]>;
type HistoryTable = redb::ReadOnlyTable<(&'static str, u64), &'static [u8]>;

/// The read side of one redb snapshot.
pub(super) struct Snapshot {
    pub(super) read: redb::ReadTransaction,
    current: CurrentTable,
    pub(super) history: HistoryTable,
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
}

impl Snapshot {
    pub(super) fn begin(database: &redb::Database) -> Result<Self> {
        use redb::ReadableDatabase;
        let read = database.begin_read().map_err(fault)?;
        let meta = read.open_table(tables::META).map_err(fault)?;
        let revision = tables::counter(&meta, tables::REVISION)?.unwrap_or(tables::FIRST_REVISION);
        let compacted = tables::counter(&meta, tables::COMPACTED)?.unwrap_or(0);
        let current = read.open_table(tables::CURRENT).map_err(fault)?;
        let history = read.open_table(tables::HISTORY).map_err(fault)?;
        Ok(Self { read, current, history, revision, compacted })
    }

    pub(super) fn view(&self) -> View<'_, CurrentTable, HistoryTable> {
        View {
            current: &self.current,
            history: &self.history,
            revision: self.revision,
            compacted: self.compacted,
        }
    }
}

/// Answers a transaction that only reads, from one snapshot.
pub(super) fn snapshot_txn(database: &redb::Database, request: &TxnRequest) -> Result<TxnResult> {
    let snapshot = Snapshot::begin(database)?;
    let mut results = Vec::with_capacity(request.success.len());
    for op in &request.success {
        if let Op::Range(range) = op {
            results.push(OpResult::Range(snapshot.view().range(range)?));
        }
    }
    Ok(TxnResult { succeeded: true, results, revision: snapshot.revision })
}
