//! Passing one request on over a connection of its own, and what is left of an answer on its way back.

use std::time::Duration;

use axum::body::Body;
use http::header::{
    AUTHORIZATION, CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use skep_api::error::ApiError;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::resources::Call;
use crate::respond::Answer;

/// Connecting takes no longer.
pub(super) const CONNECT: Duration = Duration::from_secs(10);

/// A WebSocket's way to carry a token, where a browser can't set headers.
const BEARER: &str = "base64url.bearer.authorization.k8s.io.";

/// Headers that belong to one connection, and those that are for this server only.
const DROPPED: [HeaderName; 4] = [
    AUTHORIZATION,
    TRANSFER_ENCODING,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// The tasks that carry bytes; they end with the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Relay {
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Relay {
    pub(crate) fn new(closing: CancellationToken) -> Self {
        Self { tasks: TaskTracker::new(), closing }
    }

    /// A task that ends with the server.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            closing.run_until_cancelled(work).await;
        });
    }

    /// Waits until every stream has ended. New ones may still begin: call it when none can.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The other end's answer as ours; after an upgrade the bytes are carried both ways.
    pub(crate) fn answer(
        &self,
        mut response: Response<Incoming>,
        client: Option<OnUpgrade>,
    ) -> Result<Answer, ApiError> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = client else {
                return Err(ApiError::bad_request("this connection can't be upgraded: use HTTP/1.1"));
            };
            let server = hyper::upgrade::on(&mut response);
            self.spawn(async move {
                match tokio::try_join!(client, server) {
                    Ok((client, server)) => carry(client, server).await,
                    Err(error) => tracing::debug!(%error, "an upgrade failed"),
                }
            });
            let (parts, _) = response.into_parts();
            return Ok(Response::from_parts(parts, Body::empty()));
        }
        let (mut parts, body) = response.into_parts();
        for name in DROPPED.iter().chain([&CONNECTION]) {
            parts.headers.remove(name);
        }
        Ok(Response::from_parts(parts, Body::new(body)))
    }
}

/// A request on its way to the other end.
pub(super) struct Outgoing<'a> {
    /// Path and query there.
    pub(super) path: &'a str,
    /// The Host header there.
    pub(super) host: &'a str,
    /// An upgrade the client asks for ends at this server: the other end is not asked for it.
    pub(super) plain: bool,
    /// Headers beside those of the client.
    pub(super) more: Vec<(HeaderName, HeaderValue)>,
}

/// Sends the call's request over `stream` and passes the answer back.
pub(super) async fn pass<S>(
    call: &Call<'_>,
    body: Body,
    stream: S,
    outgoing: Outgoing<'_>,
) -> Result<Answer, ApiError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let host = outgoing.host;
    let gone = |error: hyper::Error| {
        tracing::debug!(%error, host, "a proxied request failed");
        ApiError::service_unavailable(format!("error trying to reach service: {error}"))
    };
    let relay = &call.server.relay;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(gone)?;
    relay.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection ended");
        }
    });
    let uri: Uri = outgoing.path.parse().map_err(|_| ApiError::bad_request("the path can't be passed on"))?;
    let mut request = Request::new(body);
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = passed_headers(call.headers, host);
    if outgoing.plain {
        let headers = request.headers_mut();
        for name in [UPGRADE, CONNECTION, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION] {
            headers.remove(name);
        }
    }
    request.headers_mut().extend(outgoing.more);
    let client = call.extensions.get::<OnUpgrade>().filter(|_| !outgoing.plain).cloned();
    let response = sender.send_request(request).await.map_err(gone)?;
    relay.answer(response, client)
}

async fn carry(client: Upgraded, server: Upgraded) {
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    if let Err(error) = copy_bidirectional(&mut client, &mut server).await {
        tracing::debug!(%error, "an upgraded stream broke");
    }
}

/// The client's headers as the other end may see them: nothing that proves or changes who the client is.
pub(crate) fn passed_headers(from: &HeaderMap, host: &str) -> HeaderMap {
    let upgrade = from.contains_key(UPGRADE);
    let mut headers = from.clone();
    for name in DROPPED {
        headers.remove(name);
    }
    if !upgrade {
        headers.remove(CONNECTION);
    }
    let ours: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
    if headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        let protocols = offered_protocols(&headers).join(", ");
        headers.remove(SEC_WEBSOCKET_PROTOCOL);
        if let Some(value) = HeaderValue::from_str(&protocols).ok().filter(|value| !value.is_empty()) {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
        }
    }
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(HOST, host);
    }
    headers
}

/// The WebSocket protocols a client offers, without the one that only carries a token.
pub(crate) fn offered_protocols(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let protocols = values.flat_map(|value| value.split(',')).map(str::trim);
    let protocols = protocols.filter(|protocol| !protocol.is_empty() && !protocol.starts_with(BEARER));
    protocols.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("impersonate-user", "jane"),
            ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.c2VjcmV0, v4.channel.k8s.io"),
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("x-own", "1"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let passed = passed_headers(&headers, "there:1");
        assert!(!format!("{passed:?}").contains("secret"), "{passed:?}");
        assert!(!passed.values().any(|value| value.to_str().is_ok_and(|text| text.contains("c2VjcmV0"))));
        assert_eq!(passed["sec-websocket-protocol"], "v4.channel.k8s.io");
        assert_eq!(passed["host"], "there:1");
        assert_eq!(passed["upgrade"], "websocket");
        assert_eq!(passed["x-own"], "1");
        assert!(!passed.contains_key("impersonate-user"));
    }
}
