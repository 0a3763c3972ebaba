//! Load between two addresses: connect-request-respond, request-respond and streams, with latencies.
//!
//! Plain blocking sockets and one thread per connection: the least that stands between the figure and the
//! kernel's path. The server learns the mode from the first byte of a connection.

mod client;
mod server;

use serde::{Deserialize, Serialize};

pub use client::{Plan, run};
pub use server::{Server, serve};

use crate::histogram::Percentiles;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Mode {
    /// A new TCP connection for each one-byte request and response; the server closes.
    TcpCrr,
    /// One-byte requests and responses over standing TCP connections.
    TcpRr,
    /// One-byte requests and responses over connected UDP sockets.
    UdpRr,
    /// As much as goes through TCP, from the client to the server.
    Stream,
    /// Nothing but the handshake of a new TCP connection: the latency of a flow's first packet.
    Connect,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 5] = [Self::TcpCrr, Self::TcpRr, Self::UdpRr, Self::Stream, Self::Connect];

    /// The customary name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcpCrr => "TCP_CRR",
            Self::TcpRr => "TCP_RR",
            Self::UdpRr => "UDP_RR",
            Self::Stream => "STREAM",
            Self::Connect => "CONNECT",
        }
    }
}

/// First byte of a TCP connection that closes after one response.
const ONCE: u8 = b'c';
/// First byte, and every further request, of a TCP connection that goes on.
const AGAIN: u8 = b'r';
/// First byte of a connection whose bytes are to be read and thrown away.
const SINK: u8 = b's';

/// What a client measured.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What was measured.
    pub mode: Mode,
    /// Whole transactions (or buffers of a stream).
    pub transactions: u64,
    /// Transactions that failed.
    pub errors: u64,
    /// How long it took.
    pub seconds: f64,
    /// Transactions per second.
    pub per_second: f64,
    /// Bits per second of a stream.
    pub bits_per_second: f64,
    /// How long transactions took.
    pub latency: Percentiles,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_mode_measures_over_loopback() {
        let server = serve("127.0.0.1:0".parse().expect("an address")).expect("serves");
        for mode in Mode::ALL {
            let plan =
                Plan { mode, target: server.address(), connections: 2, time: Duration::from_millis(80) };
            let report = run(&plan).expect("measures");
            assert!(report.transactions > 10, "{report:?}");
            assert_eq!(report.errors, 0, "{report:?}");
            assert!(report.per_second > 0.0 && report.latency.p50_us > 0.0, "{report:?}");
            assert_eq!(report.bits_per_second > 0.0, mode == Mode::Stream);
        }
    }

    #[test]
    fn nobody_listening_is_an_error() {
        let target = "127.0.0.1:1".parse().expect("an address");
        let time = Duration::from_millis(20);
        assert!(run(&Plan { mode: Mode::TcpRr, target, connections: 1, time }).is_err());
    }
}
