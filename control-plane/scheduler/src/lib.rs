//! Binds pods to nodes.
//!
//! One task owns all state: the [`queue`] of pods that want a node and the [`cluster`] of nodes with
//! what runs on them. Informers only mark keys as changed; the task reads their stores, so that it
//! always decides by the newest state. [`cycle::schedule`] is pure; binding runs beside it, and the
//! pod counts as placed ("assumed") meanwhile. When nothing fits, [`preemption::plan`], pure as well, says
//! which less important pods could go; the pod is nominated for their node and waits for their end.
//!
//! Invariants:
//! - a pod is in the queue, in flight, or bound, never in two of them;
//! - what is assumed and then fails to bind is forgotten before the pod is tried again;
//! - no decision reads a clock or draws a random number but what it is given.

mod affinity;
mod cluster;
mod cycle;
mod framework;
mod node_info;
mod plugins;
mod pod_info;
mod preemption;
mod queue;
mod report;
mod resources;
mod run;

pub use run::{Error, SCHEDULER_NAME, run};
