//! The decisions of the node agent: the pod state machine, statuses, probes, resources, environment and
//! files of a pod. Pure: no I/O, no clock, no task. [`state::advance`] is the heart.

pub mod backoff;
pub mod env;
pub mod fields;
pub mod files;
pub mod observed;
pub mod probe;
pub mod qos;
pub mod resources;
pub mod state;
pub mod status;
pub mod view;
