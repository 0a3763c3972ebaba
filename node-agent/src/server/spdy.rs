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

/// Any bytes as a connection, whole and in pieces: the frames are the same. And as a list of headers: what
/// is read survives being packed.
pub(super) fn fuzz(bytes: &[u8]) {
    let read = |piece: usize| {
        let (mut decoder, mut frames) = (frame::Decoder::new(), Vec::new());
        for piece in bytes.chunks(piece.max(1)) {
            decoder.buffer().extend_from_slice(piece);
            loop {
                match decoder.next() {
                    Ok(Some(frame)) => frame::join(&mut frames, frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error.to_string())),
                }
            }
        }
        (frames, None)
    };
    let whole = read(bytes.len());
    assert_eq!(read(usize::from(bytes.first().copied().unwrap_or(1))), whole, "pieces make no difference");
    if let Ok(mut encoder) = frame::Encoder::new() {
        let (mut out, mut again, mut decoder) = (bytes::BytesMut::new(), Vec::new(), frame::Decoder::new());
        for frame in &whole.0 {
            assert!(encoder.encode(frame, &mut out).is_ok(), "what was read can be said: {frame:?}");
        }
        decoder.buffer().extend_from_slice(&out);
        while let Ok(Some(frame)) = decoder.next() {
            frame::join(&mut again, frame);
        }
        // Of further headers only that they came is kept.
        assert_eq!(again, whole.0, "what is said is read");
    }
    headers::fuzz(bytes);
}
