//! The registry over the embedded store: the watch cache against a model, the verbs, allocation.

mod allocation;
mod cache;
#[path = "../../storage/tests/etcd_process.rs"]
mod etcd_process;
mod faults;
mod past;
mod support;
mod writes;
