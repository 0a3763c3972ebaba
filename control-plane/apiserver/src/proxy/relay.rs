//! Passing one request on over a connection of its own.

use std::time::Duration;

use axum::body::Body;
use http::header::{AUTHORIZATION, CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
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

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = closing.cancelled() => {}
            }
        });
    }
}

/// Sends the call's request to `path` over `stream` and passes the answer back.
pub(super) async fn pass<S>(
    call: &Call<'_>,
    body: Body,
    stream: S,
    host: &str,
    path: &str,
) -> Result<Answer, ApiError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
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
    let uri: Uri = path.parse().map_err(|_| ApiError::bad_request("the path can't be passed on"))?;
    let mut request = Request::new(body);
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers(call.headers, host);
    let client_upgrade = call.extensions.get::<OnUpgrade>().cloned();
    let mut response = sender.send_request(request).await.map_err(gone)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client_upgrade else {
            return Err(ApiError::bad_request("this connection can't be upgraded: use HTTP/1.1"));
        };
        let server = hyper::upgrade::on(&mut response);
        relay.spawn(async move {
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

async fn carry(client: Upgraded, server: Upgraded) {
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    if let Err(error) = copy_bidirectional(&mut client, &mut server).await {
        tracing::debug!(%error, "an upgraded stream broke");
    }
}

/// The client's headers as the other end may see them.
fn headers(from: &HeaderMap, host: &str) -> HeaderMap {
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
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(HOST, host);
    }
    headers
}
