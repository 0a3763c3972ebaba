//! The data plane on the real kernel: in a network namespace and a child cgroup of the test's own.
//!
//! Skipped, loudly, without root; with `SKEP_TEST_REQUIRE_ALL=1` that is a failure.

mod bench;
mod crash;
mod errors;
mod exchange;
mod full;
mod helper;
mod maglev;
mod node_port;
mod packets;
mod policy;
mod refusal;
mod restart;
mod scale;
mod socket_lb;
mod support;
mod sys;
mod traffic;
mod upgrade;
mod verifier;
mod wire;
mod xdp;
