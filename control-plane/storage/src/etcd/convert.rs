//! Between the trait's messages and etcd's.

use std::sync::Arc;

use bytes::Bytes;
use etcd_client::{
    Compare as EtcdCompare, CompareOp, DeleteOptions, GetOptions, GetResponse, PutOptions, ResponseHeader,
    Txn, TxnOp, TxnOpResponse, TxnResponse,
};

use super::failure::Asked;
use crate::{
    Error, KeyValue, Op, OpResult, Range, RangeResult, Result, Revision, Target, TxnRequest, TxnResult,
};

pub(super) fn to_etcd(revision: Revision) -> Result<i64> {
    i64::try_from(revision).map_err(|_| Error::Invalid(format!("revision {revision} is out of range")))
}

pub(super) fn from_etcd(revision: i64) -> Revision {
    Revision::try_from(revision).unwrap_or(0)
}

pub(super) fn revision_of(header: Option<&ResponseHeader>) -> Result<Revision> {
    let header = header.ok_or_else(|| Error::Unavailable("etcd answered without a header".into()))?;
    Ok(from_etcd(header.revision()))
}

/// Puts the store's prefix before keys, and takes it off again.
#[derive(Clone)]
pub(super) struct Keys(Arc<str>);

impl Keys {
    pub(super) fn new(prefix: String) -> Self {
        Self(prefix.into())
    }

    pub(super) fn outer(&self, key: &str) -> String {
        format!("{}{key}", self.0)
    }

    pub(super) fn pair(&self, kv: &etcd_client::KeyValue) -> Result<KeyValue> {
        let key = std::str::from_utf8(kv.key()).ok().and_then(|key| key.strip_prefix(&*self.0));
        let key = key.ok_or_else(|| Error::Corrupt("etcd has a key that is not of this store".into()))?;
        Ok(KeyValue {
            key: key.to_owned(),
            value: Bytes::copy_from_slice(kv.value()),
            create_revision: from_etcd(kv.create_revision()),
            mod_revision: from_etcd(kv.mod_revision()),
            version: u64::try_from(kv.version()).unwrap_or(0),
            lease: kv.lease(),
        })
    }

    pub(super) fn get(&self, range: &Range) -> Result<(String, GetOptions)> {
        let mut options = GetOptions::new().with_revision(to_etcd(range.revision)?);
        if !range.end.is_empty() {
            options = options.with_range(self.outer(&range.end));
        }
        if range.limit != 0 {
            options = options.with_limit(i64::try_from(range.limit).unwrap_or(i64::MAX));
        }
        if range.keys_only {
            options = options.with_keys_only();
        }
        if range.count_only {
            options = options.with_count_only();
        }
        Ok((self.outer(&range.start), options))
    }

    pub(super) fn range_result(&self, mut answer: GetResponse, revision: Revision) -> Result<RangeResult> {
        let (more, count) = (answer.more(), u64::try_from(answer.count()).unwrap_or(0));
        let kvs = answer.take_kvs().iter().map(|kv| self.pair(kv)).collect::<Result<_>>()?;
        Ok(RangeResult { kvs, more, count, revision })
    }

    pub(super) fn txn(&self, request: &TxnRequest) -> Result<(Txn, Asked)> {
        let mut asked = Asked::default();
        let mut compares = Vec::with_capacity(request.compare.len());
        for compare in &request.compare {
            let key = self.outer(&compare.key);
            compares.push(match compare.target {
                Target::ModRevision(at) => EtcdCompare::mod_revision(key, CompareOp::Equal, to_etcd(at)?),
                Target::CreateRevision(at) => {
                    EtcdCompare::create_revision(key, CompareOp::Equal, to_etcd(at)?)
                }
            });
        }
        let success = self.ops(&request.success, &mut asked)?;
        let failure = self.ops(&request.failure, &mut asked)?;
        Ok((Txn::new().when(compares).and_then(success).or_else(failure), asked))
    }

    fn ops(&self, ops: &[Op], asked: &mut Asked) -> Result<Vec<TxnOp>> {
        let op = |op: &Op| {
            Ok(match op {
                Op::Put { key, value, lease } => {
                    asked.size += key.len() + value.len();
                    if *lease != 0 {
                        asked.lease = *lease;
                    }
                    TxnOp::put(self.outer(key), value.to_vec(), Some(PutOptions::new().with_lease(*lease)))
                }
                Op::Delete { key } => {
                    TxnOp::delete(self.outer(key), Some(DeleteOptions::new().with_prev_key()))
                }
                Op::Range(range) => {
                    asked.revision = asked.revision.max(range.revision);
                    let (key, options) = self.get(range)?;
                    TxnOp::get(key, Some(options))
                }
            })
        };
        ops.iter().map(op).collect()
    }

    pub(super) fn txn_result(&self, answer: &TxnResponse) -> Result<TxnResult> {
        let revision = revision_of(answer.header())?;
        let mut results = Vec::new();
        for response in answer.op_responses() {
            results.push(match response {
                TxnOpResponse::Put(_) => OpResult::Put,
                TxnOpResponse::Delete(deleted) => {
                    OpResult::Deleted(deleted.prev_kvs().first().map(|kv| self.pair(kv)).transpose()?)
                }
                TxnOpResponse::Get(found) => OpResult::Range(self.range_result(found, revision)?),
                TxnOpResponse::Txn(_) => {
                    return Err(Error::Unavailable("etcd answered a transaction that was not asked".into()));
                }
            });
        }
        Ok(TxnResult { succeeded: answer.succeeded(), results, revision })
    }
}
