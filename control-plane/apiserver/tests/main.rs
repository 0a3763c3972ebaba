//! The API server in process, and under real kubectl where there is one.

mod aggregation;
mod conformance;
mod custom;
mod documents;
#[path = "../../storage/tests/etcd_process.rs"]
mod etcd_process;
mod explain;
mod extension;
mod fields;
mod flow_control;
mod forms;
mod kubectl;
mod namespaces;
mod overload;
mod policies;
mod reads;
mod refusals;
mod secure;
mod security;
mod several;
mod sockets;
mod streams;
mod subresources;
mod support;
mod verbs;
mod webhooks;
