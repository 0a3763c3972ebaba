//! The storage engines against one conformance suite, and what is special to each.

mod conformance;
mod embedded;
mod encryption;
mod etcd;
mod etcd_process;
mod kill;
mod kms;
