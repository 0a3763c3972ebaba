//! WebSockets that end at this server: logs (`binary.k8s.io`, `base64.binary.k8s.io`) and watches.
//!
//! Clients only listen; what they send is ignored but for closing.

use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{Extensions, HeaderMap, HeaderValue, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use skep_api::error::{ApiError, Reason};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use super::relay::{Relay, offered_protocols};
use crate::respond::Answer;

/// How often a client is asked whether it is still there.
const PING: Duration = Duration::from_secs(30);

/// Clients have nothing to say.
const LONGEST: usize = 64 * 1024;

/// How pieces become messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// As they are.
    Binary,
    /// As text in base64.
    Base64,
    /// As text: JSON is.
    Text,
}

/// The protocols of a stream that is only read, with their framing; the empty one is for clients that
/// name none.
pub(crate) const READER: [(&str, Framing); 3] =
    [("", Framing::Binary), ("binary.k8s.io", Framing::Binary), ("base64.binary.k8s.io", Framing::Base64)];

/// Does a client ask for a WebSocket?
pub(crate) fn is_websocket(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let connection = text(CONNECTION).split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    connection && text(UPGRADE).eq_ignore_ascii_case("websocket")
}

/// A WebSocket that can be had.
pub(crate) struct Handshake {
    upgrade: OnUpgrade,
    accept: String,
    protocol: String,
    framing: Framing,
}

impl Handshake {
    /// Agrees on one of these protocols.
    pub(crate) fn new(
        headers: &HeaderMap,
        extensions: &Extensions,
        ours: &[(&str, Framing)],
    ) -> Result<Self, ApiError> {
        let offered = offered_protocols(headers);
        let find = |name: &str| ours.iter().find(|(own, _)| *own == name);
        let agreed = match offered.as_slice() {
            [] => find(""),
            offered => offered.iter().find_map(|name| find(name)),
        };
        let Some((protocol, framing)) = agreed else {
            let names: Vec<&str> = ours.iter().map(|(name, _)| *name).collect();
            return Err(ApiError {
                code: 403,
                reason: Reason::Forbidden,
                ..ApiError::bad_request(format!(
                    "requested protocol(s) are not supported: [{}]; supports [{}]",
                    offered.join(" "),
                    names.join(" ")
                ))
            });
        };
        Self::with(headers, extensions, protocol, *framing)
    }

    /// Takes the first protocol the client offers, whatever it is.
    pub(crate) fn any(
        headers: &HeaderMap,
        extensions: &Extensions,
        framing: Framing,
    ) -> Result<Self, ApiError> {
        let first = offered_protocols(headers).into_iter().next().unwrap_or_default();
        Self::with(headers, extensions, &first, framing)
    }

    fn with(
        headers: &HeaderMap,
        extensions: &Extensions,
        protocol: &str,
        framing: Framing,
    ) -> Result<Self, ApiError> {
        if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(ApiError::bad_request("missing or bad WebSocket Version"));
        }
        let key = headers.get(SEC_WEBSOCKET_KEY);
        let key = key.ok_or_else(|| ApiError::bad_request("challenge response: no Sec-WebSocket-Key"))?;
        let upgrade = extensions.get::<OnUpgrade>().cloned();
        let upgrade = upgrade
            .ok_or_else(|| ApiError::bad_request("this connection can't be upgraded: use HTTP/1.1"))?;
        let accept = derive_accept_key(key.as_bytes());
        Ok(Self { upgrade, accept, protocol: protocol.to_owned(), framing })
    }

    /// Sends the body of a successful answer as messages; another answer passes unchanged.
    pub(crate) fn text_or_bytes(self, relay: &Relay, answer: Answer) -> Answer {
        if !answer.status().is_success() {
            return answer;
        }
        let Self { upgrade, accept, protocol, framing } = self;
        let body = answer.into_body();
        relay.spawn(async move {
            let outcome = match upgrade.await {
                Ok(upgraded) => send(TokioIo::new(upgraded), body, framing).await,
                Err(error) => return tracing::debug!(%error, "an upgrade failed"),
            };
            if let Err(error) = outcome {
                tracing::debug!(%error, "a WebSocket ended");
            }
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        let values = [(SEC_WEBSOCKET_ACCEPT, accept), (SEC_WEBSOCKET_PROTOCOL, protocol)];
        for (name, value) in values.into_iter().filter(|(_, value)| !value.is_empty()) {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        response
    }
}

/// Sends the pieces of a body, each as a message, until the body or the client ends.
async fn send(
    stream: TokioIo<hyper::upgrade::Upgraded>,
    body: Body,
    framing: Framing,
) -> Result<(), tungstenite::Error> {
    let config = WebSocketConfig::default().max_message_size(Some(LONGEST)).max_frame_size(Some(LONGEST));
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let (mut sink, mut incoming) = socket.split();
    let mut pieces = body.into_data_stream();
    let mut ping = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
    loop {
        // Cancel safe: each takes what it returns in one step.
        let message = tokio::select! {
            piece = pieces.next() => match piece {
                Some(Ok(piece)) if piece.is_empty() => continue,
                Some(Ok(piece)) => frame(piece, framing),
                Some(Err(_)) | None => break,
            },
            said = incoming.next() => match said {
                None | Some(Ok(Message::Close(_))) => break,
                Some(Err(error)) => return Err(error),
                Some(Ok(_)) => continue,
            },
            _ = ping.tick() => Message::Ping(Bytes::new()),
        };
        sink.send(message).await?;
    }
    sink.close().await
}

fn frame(piece: Bytes, framing: Framing) -> Message {
    match framing {
        Framing::Binary => Message::Binary(piece),
        Framing::Base64 => Message::text(STANDARD.encode(&piece)),
        Framing::Text => Message::text(String::from_utf8_lossy(&piece).into_owned()),
    }
}
