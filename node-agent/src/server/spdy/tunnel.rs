//! SPDY inside of a WebSocket: the binary messages are one stream of bytes, whatever their borders.

use std::future::ready;
use std::io;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

/// The connection inside.
pub(in super::super) fn tunnel(socket: WebSocket) -> impl AsyncRead + AsyncWrite + Send {
    let (sink, stream) = socket.split();
    let pieces =
        stream.take_while(|message| ready(!matches!(message, Ok(Message::Close(_))))).filter_map(|message| {
            ready(match message {
                Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
                Ok(_) => None,
                Err(error) => Some(Err(io::Error::other(error))),
            })
        });
    let sink = sink
        .with(|bytes: Bytes| ready(Ok(Message::Binary(bytes))))
        .sink_map_err(|error: axum::Error| io::Error::other(error));
    tokio::io::join(StreamReader::new(Box::pin(pieces)), SinkWriter::new(CopyToBytes::new(Box::pin(sink))))
}
