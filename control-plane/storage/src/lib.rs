//! The MVCC store behind the API server: one trait, an embedded engine and etcd.
//!
//! Invariants every engine holds (the conformance suite in `conformance` checks them):
//! - one revision counter for the whole store; every transaction that writes takes the next one, and
//!   all its writes carry it;
//! - a write is durable when the call returns;
//! - a watch delivers every change of its prefix after its start revision exactly once, in revision
//!   order, all changes of one revision in one batch;
//! - reading or watching below the compacted revision fails with [`Error::Compacted`].

mod api;
pub mod embedded;
pub mod encryption;

pub mod etcd;

pub use embedded::Embedded;
pub use encryption::Encrypted;
pub use etcd::{Etcd, EtcdConfig};

pub use api::{
    Batch, Change, Compare, Error, KeyValue, LeaseId, Op, OpResult, Range, RangeResult, Result, Revision,
    Storage, Target, TxnRequest, TxnResult, WatchMessage, WatchStream, prefix_end,
};
