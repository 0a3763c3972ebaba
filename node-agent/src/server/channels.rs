//! Kubernetes' channels over WebSocket: each binary message begins with a byte that names its stream.
//! (KEP-4006; `v5` adds the close signal to `v4`, the older `channel.k8s.io` has no exit status.) Over
//! SPDY each channel is a stream; readers and writers hide the difference.

mod streams;

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};

use super::spdy;

/// Channels.
pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
const V1: &str = "channel.k8s.io";

/// A client may send this much in one message.
const MAX_MESSAGE: usize = 1 << 20;

/// How long a client may still send after our end.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// The dialect that was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    V5,
    V4,
    /// No agreement means the oldest.
    V1,
}

/// Offers what we speak.
pub(super) fn offer(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade.protocols([V5, V4, V1]).max_message_size(MAX_MESSAGE)
}

pub(super) fn agreed(socket: &WebSocket) -> Dialect {
    match socket.protocol().and_then(|protocol| protocol.to_str().ok()) {
        Some(V5) => Dialect::V5,
        Some(V4) => Dialect::V4,
        _ => Dialect::V1,
    }
}

/// What the client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Input for the process.
    Stdin(Bytes),
    /// The end of its input.
    EndOfStdin,
    /// The terminal has a new size.
    Resize { width: u16, height: u16 },
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// Understands one message. What is not for us is `None`.
pub(super) fn understand(dialect: Dialect, message: &Bytes) -> Option<Said> {
    let (&channel, rest) = message.split_first()?;
    match channel {
        STDIN => Some(Said::Stdin(message.slice(1..))),
        RESIZE => {
            let size: Size = serde_json::from_slice(rest).ok()?;
            Some(Said::Resize { width: size.width, height: size.height })
        }
        CLOSE if dialect == Dialect::V5 && rest == [STDIN] => Some(Said::EndOfStdin),
        _ => None,
    }
}

/// The client is gone.
#[derive(Debug, thiserror::Error)]
pub(super) enum Gone {
    /// Its WebSocket is.
    #[error("the client is gone: {0}")]
    Socket(#[from] axum::Error),
    /// Its SPDY connection is.
    #[error("the client is gone: {0}")]
    Spdy(#[from] spdy::Error),
}

/// The receiving half.
pub(super) enum Reader {
    Socket { stream: SplitStream<WebSocket>, dialect: Dialect },
    Streams(Box<streams::Reader>),
}

/// The sending half.
pub(super) enum Writer {
    Socket { sink: SplitSink<WebSocket, Message>, dialect: Dialect },
    Streams(Box<streams::Writer>),
}

pub(super) fn split(socket: WebSocket) -> (Reader, Writer) {
    let dialect = agreed(&socket);
    let (sink, stream) = socket.split();
    (Reader::Socket { stream, dialect }, Writer::Socket { sink, dialect })
}

pub(super) use streams::{PROTOCOL as STREAMS, run as run_streams};

impl Reader {
    /// The next thing the client says; `None` when it is gone. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Said> {
        let (stream, dialect) = match self {
            Self::Socket { stream, dialect } => (stream, *dialect),
            Self::Streams(streams) => return streams.next().await,
        };
        loop {
            match stream.next().await? {
                Ok(Message::Binary(bytes)) => {
                    if let Some(said) = understand(dialect, &bytes) {
                        return Some(said);
                    }
                }
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(Message::Text(_) | Message::Ping(_) | Message::Pong(_)) => {}
            }
        }
    }
}

impl Reader {
    /// Takes what still comes after our end, until the client closes too: closing over input that is not
    /// read would reset the connection, and the exit status on its way with it.
    pub(super) async fn drain(mut self) {
        if matches!(self, Self::Socket { .. }) {
            let _late = tokio::time::timeout(LINGER, async { while self.next().await.is_some() {} }).await;
        }
    }
}

impl Writer {
    /// Sends output. An error means that the client is gone.
    pub(super) async fn send(&mut self, channel: u8, bytes: &[u8]) -> Result<(), Gone> {
        match self {
            Self::Socket { sink, .. } => {
                let mut message = BytesMut::with_capacity(bytes.len() + 1);
                message.put_u8(channel);
                message.put_slice(bytes);
                Ok(sink.send(Message::Binary(message.freeze())).await?)
            }
            Self::Streams(streams) => Ok(streams.send(channel, bytes).await?),
        }
    }

    /// Says how it ended and closes.
    pub(super) async fn finish(mut self, status: &Value) -> Result<(), Gone> {
        let succeeded = status["status"] == "Success";
        let dialect = match &self {
            Self::Socket { dialect, .. } => *dialect,
            Self::Streams(_) => Dialect::V4,
        };
        match dialect {
            Dialect::V5 | Dialect::V4 => self.send(ERROR, status.to_string().as_bytes()).await?,
            Dialect::V1 if !succeeded => {
                self.send(ERROR, status["message"].as_str().unwrap_or_default().as_bytes()).await?;
            }
            Dialect::V1 => {}
        }
        match self {
            Self::Socket { mut sink, .. } => {
                let frame = CloseFrame { code: axum::extract::ws::close_code::NORMAL, reason: "".into() };
                Ok(sink.send(Message::Close(Some(frame))).await?)
            }
            Self::Streams(streams) => Ok(streams.finish().await?),
        }
    }
}

/// The status of a command that ran to its end.
pub(super) fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_understood_by_dialect() {
        let close = &[CLOSE, STDIN][..];
        let cases: [(Dialect, &[u8], Option<Said>); 8] = [
            (Dialect::V5, b"\x00abc", Some(Said::Stdin(Bytes::from_static(b"abc")))),
            (Dialect::V5, b"\x00", Some(Said::Stdin(Bytes::new()))),
            (Dialect::V5, close, Some(Said::EndOfStdin)),
            (Dialect::V4, close, None),
            (Dialect::V4, b"\x04{\"Width\":80,\"Height\":24}", Some(Said::Resize { width: 80, height: 24 })),
            (Dialect::V4, b"\x04{\"Width\":-1}", None),
            (Dialect::V5, b"", None),
            (Dialect::V5, b"\x01x", None),
        ];
        for (dialect, message, want) in cases {
            assert_eq!(
                understand(dialect, &Bytes::copy_from_slice(message)),
                want,
                "{dialect:?} {message:?}"
            );
        }
    }

    #[test]
    fn an_exit_code_is_a_cause() {
        assert_eq!(exit_status(0)["status"], "Success");
        let failed = exit_status(3);
        assert_eq!(failed["reason"], "NonZeroExitCode");
        assert_eq!(failed["details"]["causes"][0]["message"], "3");
    }
}
