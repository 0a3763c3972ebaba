//! SPDY/3.1, as far as Kubernetes' streams need it: the server's side, where the client opens every stream.
//!
//! kubectl carries its port-forwards in SPDY, today inside of a WebSocket, before 1.31 right after the
//! upgrade. `frame` and `headers` are pure; `session` moves bytes and keeps what is in memory bounded.

mod dictionary;
mod flow;
mod frame;
mod headers;
mod session;
mod tunnel;
mod upgrade;

pub(super) use session::{Incoming, Session, StreamReader, StreamWriter, serve};
pub(super) use tunnel::tunnel;
pub(super) use upgrade::Offer;

/// What ends a SPDY connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The peer does not keep to the protocol.
    #[error("SPDY: {0}")]
    Protocol(&'static str),
    /// The connection broke.
    #[error("the SPDY connection broke: {0}")]
    Io(#[from] std::io::Error),
    /// The other half of the connection has ended.
    #[error("the SPDY connection has ended")]
    Ended,
}
