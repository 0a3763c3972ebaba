//! A small HTTP client for tests: one request, the whole reply, checked.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use crate::NetBox;

/// Replies in tests are small; a larger one is a fault.
const MAX_BODY: usize = 64 << 20;

/// What came back.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Reply {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The reply, if its status is 200 and its body contains `part`.
    ///
    /// # Errors
    /// Tells what came instead.
    pub fn expect(self, part: &str) -> Result<Self> {
        ensure!(self.status == 200, "status {}: {}", self.status, self.text());
        ensure!(self.text().contains(part), "want {part:?} in {:?}", self.text());
        Ok(self)
    }
}

/// One GET over a fresh connection, from the namespace of the calling thread.
///
/// # Errors
/// When there is no whole reply within `limit`.
pub async fn get(address: SocketAddr, path: &str, limit: Duration) -> Result<Reply> {
    timeout(limit, get_unlimited(address, path))
        .await
        .with_context(|| format!("no reply from http://{address}{path} within {limit:?}"))?
}

async fn get_unlimited(address: SocketAddr, path: &str) -> Result<Reply> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("connect to {address}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = http::Request::get(path)
        .header(http::header::HOST, address.to_string())
        .header(http::header::CONNECTION, "close")
        .body(Full::<Bytes>::default())?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_BODY)
            .collect()
            .await
            .map_err(|e| anyhow::anyhow!("body of http://{address}{path}: {e}"))?
            .to_bytes();
        anyhow::Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
    };
    tokio::pin!(connection, exchange);
    tokio::select! {
        reply = &mut exchange => reply,
        // A connection may end with the reply's last byte: what it brought is still to be read.
        ended = &mut connection => match ended {
            Ok(()) => exchange.await.with_context(|| format!("http://{address}{path}")),
            Err(error) => Err(error).with_context(|| format!("http://{address}{path}")),
        },
    }
}

impl NetBox {
    /// One GET from inside the box.
    ///
    /// # Errors
    /// When there is no whole reply within `limit`.
    pub fn get(&self, address: SocketAddr, path: &str, limit: Duration) -> Result<Reply> {
        self.run_async(|| get(address, path, limit))?
    }
}
