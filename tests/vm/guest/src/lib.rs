//! What a test and a machine say to each other: lines of JSON over a virtio port.
//!
//! Invariant: every [`Request`] is answered by chunks of output and then exactly one end, [`Reply::Ended`] or
//! [`Reply::Failed`].

use serde::{Deserialize, Serialize};

/// The port's name in the machine.
pub const PORT: &str = "skep.control";

/// A program to run in the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Given back in replies; chosen by the test.
    pub id: u64,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Variables beside the machine's own.
    pub env: Vec<(String, String)>,
    /// What it reads.
    pub input: String,
    /// Kill it and its children after so long; a program in the background has no limit.
    pub seconds: u64,
    /// Answer as soon as it runs, and write what it says to this file of the machine.
    pub background: Option<String>,
}

/// What the machine says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is up: the kernel's release.
    Ready(String),
    /// Part of what a program wrote.
    Output {
        /// The request's.
        id: u64,
        /// Whether it was standard error.
        error: bool,
        /// What it wrote.
        text: String,
    },
    /// A program ended.
    Ended {
        /// The request's.
        id: u64,
        /// The exit status; 128 and the signal's number when it was killed. Of a program in the background: 0, it runs.
        status: i32,
    },
    /// A program did not run, or not to its end.
    Failed {
        /// The request's.
        id: u64,
        /// Why.
        reason: String,
    },
}
