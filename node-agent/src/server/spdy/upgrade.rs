//! `Upgrade: SPDY/3.1`, which clients without WebSockets use: the protocol on top is agreed on by
//! `X-Stream-Protocol-Version`.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use crate::server::Open;
use crate::server::refusal::Refusal;

const NAME: &str = "SPDY/3.1";
const VERSION: &str = "x-stream-protocol-version";

/// Does a client ask for SPDY?
fn wants(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|value| value.eq_ignore_ascii_case(NAME))
}

/// An upgrade that can be had.
pub(in super::super) struct Offer {
    upgrade: OnUpgrade,
    protocol: &'static str,
    open: Open,
}

impl Offer {
    /// Agrees on one of the protocols that we speak.
    pub(in super::super) fn new(
        request: &mut Request,
        ours: &[&'static str],
        open: &Open,
    ) -> Result<Self, Refusal> {
        if !wants(request.headers()) {
            return Err(Refusal::bad_request("Upgrade request required"));
        }
        let theirs = request.headers().get_all(VERSION).iter().filter_map(|value| value.to_str().ok());
        let agreed = theirs
            .flat_map(|line| line.split(','))
            .find_map(|name| ours.iter().find(|own| **own == name.trim()));
        let Some(protocol) = agreed else {
            let text = format!("unable to upgrade: none of the client's stream protocols is one of {ours:?}");
            return Err(Refusal::new(StatusCode::FORBIDDEN, text));
        };
        let upgrade = request.extensions_mut().remove::<OnUpgrade>();
        let upgrade = upgrade.ok_or_else(|| Refusal::bad_request("this connection can't be upgraded"))?;
        Ok(Self { upgrade, protocol, open: open.clone() })
    }

    /// What was agreed on.
    pub(in super::super) fn protocol(&self) -> &'static str {
        self.protocol
    }

    /// Answers, and goes on with the connection. The work ends when the client goes, or with the server.
    pub(in super::super) fn accept<F>(
        self,
        work: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { upgrade, protocol, open } = self;
        open.spawn(async move {
            match upgrade.await {
                Ok(upgraded) => work(TokioIo::new(upgraded)).await,
                Err(error) => tracing::debug!(%error, "an upgrade failed"),
            }
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(NAME));
        headers.insert(VERSION, HeaderValue::from_static(protocol));
        response
    }
}
