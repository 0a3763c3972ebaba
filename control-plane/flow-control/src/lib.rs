//! Priority and fairness: FlowSchemas put requests into flows of a priority level, each level has seats,
//! and inside of a level flows share the seats fairly.
//!
//! Pure: [`bootstrap`] (the objects each cluster begins with), [`config`] (objects read into plain types),
//! [`matching`], [`shuffle`], [`queue_set`] (one level's queues), [`allocation`] and [`demand`] (who lends
//! seats to whom), [`levels`] (all of it, under one lock), [`estimate`] (how wide a request is). None of
//! them looks at a clock: the time is an argument. [`gate`] is the thin part that waits.
//!
//! Task: [`gate::Gate::run`], which adjusts what levels lend each other and ends seats that linger.

pub mod allocation;
pub mod bootstrap;
pub mod config;
pub mod demand;
pub mod estimate;
pub mod gate;
pub mod levels;
pub mod matching;
mod metrics;
pub mod queue_set;
mod retry;
pub mod shuffle;

pub use gate::{Gate, Refusal, Seat};
