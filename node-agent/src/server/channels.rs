//! Kubernetes' channels over WebSocket: each binary message begins with a byte that names its stream.
//! (KEP-4006; `v5` adds the close signal to `v4`, the older `channel.k8s.io` has no exit status.) Over
//! SPDY each channel is a stream; readers and writers hide the difference.

mod streams;

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
const V4_TEXT: &str = "v4.base64.channel.k8s.io";
const V1: &str = "channel.k8s.io";
const V1_TEXT: &str = "base64.channel.k8s.io";

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

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// The channel is the first byte of a binary message.
    Binary,
    /// The channel is the first digit of a text, the rest is base64.
    Base64,
}

/// Offers what we speak.
pub(super) fn offer(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    // A frame is taken in whole before it is a message: it has the same limit.
    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    upgrade.protocols([V5, V4, V4_TEXT, V1, V1_TEXT])
}

pub(super) fn agreed(socket: &WebSocket) -> (Dialect, Framing) {
    match socket.protocol().and_then(|protocol| protocol.to_str().ok()) {
        Some(V5) => (Dialect::V5, Framing::Binary),
        Some(V4) => (Dialect::V4, Framing::Binary),
        Some(V4_TEXT) => (Dialect::V4, Framing::Base64),
        Some(V1_TEXT) => (Dialect::V1, Framing::Base64),
        _ => (Dialect::V1, Framing::Binary),
    }
}

/// A text message as the binary one that it stands for; `None` when it is malformed.
pub(super) fn decode(text: &str) -> Option<Bytes> {
    let digit = text.bytes().next().filter(u8::is_ascii_digit)?;
    let mut message = vec![digit - b'0'];
    STANDARD.decode_vec(text.get(1..)?, &mut message).ok()?;
    Some(message.into())
}

/// A message on a channel.
pub(super) fn message(framing: Framing, channel: u8, bytes: &[u8]) -> Message {
    match framing {
        Framing::Binary => {
            let mut message = BytesMut::with_capacity(bytes.len() + 1);
            message.put_u8(channel);
            message.put_slice(bytes);
            Message::Binary(message.freeze())
        }
        Framing::Base64 => {
            let mut text = char::from(b'0' + channel % 10).to_string();
            STANDARD.encode_string(bytes, &mut text);
            Message::text(text)
        }
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
    Socket { stream: SplitStream<WebSocket>, dialect: Dialect, framing: Framing },
    Streams(Box<streams::Reader>),
}

/// The sending half.
pub(super) enum Writer {
    Socket { sink: SplitSink<WebSocket, Message>, dialect: Dialect, framing: Framing },
    Streams(Box<streams::Writer>),
}

pub(super) fn split(socket: WebSocket) -> (Reader, Writer) {
    let (dialect, framing) = agreed(&socket);
    let (sink, stream) = socket.split();
    (Reader::Socket { stream, dialect, framing }, Writer::Socket { sink, dialect, framing })
}

pub(super) use streams::{PROTOCOLS as STREAMS, run as run_streams};

impl Reader {
    /// The next thing the client says; `None` when it is gone. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Said> {
        let (stream, dialect, framing) = match self {
            Self::Socket { stream, dialect, framing } => (stream, *dialect, *framing),
            Self::Streams(streams) => return streams.next().await,
        };
        loop {
            let message = match stream.next().await? {
                Ok(Message::Binary(bytes)) if framing == Framing::Binary => Some(bytes),
                Ok(Message::Text(text)) if framing == Framing::Base64 => decode(&text),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => None,
            };
            if let Some(said) = message.and_then(|message| understand(dialect, &message)) {
                return Some(said);
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
            Self::Socket { sink, framing, .. } => Ok(sink.send(message(*framing, channel, bytes)).await?),
            Self::Streams(streams) => Ok(streams.send(channel, bytes).await?),
        }
    }

    /// Says how it ended and closes.
    pub(super) async fn finish(mut self, status: &Value) -> Result<(), Gone> {
        let succeeded = status["status"] == "Success";
        let dialect = match &self {
            Self::Socket { dialect, .. } => *dialect,
            Self::Streams(streams) => streams.dialect(),
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

/// Any bytes as a message; as a text it stands for a binary one that it can be made of again.
pub(super) fn fuzz(bytes: &[u8]) {
    let message = Bytes::copy_from_slice(bytes);
    for dialect in [Dialect::V5, Dialect::V4, Dialect::V1] {
        drop(understand(dialect, &message));
    }
    let Some(read) = std::str::from_utf8(bytes).ok().and_then(decode) else { return };
    let (&channel, rest) = read.split_first().unwrap_or((&0, &[]));
    let Message::Text(again) = self::message(Framing::Base64, channel, rest) else { return };
    assert_eq!(decode(&again), Some(read));
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
    fn texts_stand_for_binary_messages() {
        let text = message(Framing::Base64, STDOUT, b"hello");
        assert_eq!(text, Message::text("1aGVsbG8="));
        assert_eq!(decode("1aGVsbG8="), Some(Bytes::from_static(b"\x01hello")));
        assert_eq!(
            message(Framing::Binary, STDOUT, b"hello"),
            Message::Binary(Bytes::from_static(b"\x01hello"))
        );
        for malformed in ["", "x", "0?", "é"] {
            assert_eq!(decode(malformed), None, "{malformed}");
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
