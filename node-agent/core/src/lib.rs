//! The pod state machine, probes and resources: pure.

pub mod fields;
