//! Listeners: TLS with client certificates asked for, and plain HTTP for loopback.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::connection::{Connection, Guarded};
use crate::pipeline::{Insecure, Peer, PeerCertificates};
use crate::{ApiServer, Error};

/// A TLS handshake takes no longer.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The headers of a request take no longer.
const HEADERS: Duration = Duration::from_secs(30);

/// Open connections get so long to finish when the server closes.
const DRAIN: Duration = Duration::from_secs(10);

/// The most bytes of a request's line and headers.
const HEADER_BYTES: u32 = 1 << 20;

/// Pause after a failed accept: the usual cause is that no file descriptor is left.
const PAUSE: Duration = Duration::from_millis(50);

impl ApiServer {
    /// Serves HTTPS until cancelled, then lets open requests finish. `tls` may ask for client
    /// certificates and should offer `h2` and `http/1.1`.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        cancel: CancellationToken,
    ) -> Result<(), Error> {
        let acceptor = TlsAcceptor::from(tls);
        let router = self.router();
        self.accept(listener, cancel, move |stream, cancel| {
            let (acceptor, router) = (acceptor.clone(), router.clone());
            async move {
                let address = Peer(stream.peer_addr()?);
                let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))
                    .await
                    .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
                let peer = PeerCertificates(Arc::new(chain));
                let router = router.layer(axum::Extension(peer)).layer(axum::Extension(address));
                serve_connection(stream, router, cancel).await;
                Ok(())
            }
        })
        .await
    }

    /// Serves plain HTTP until cancelled, without authentication and authorization. Refuses every
    /// address but loopback.
    pub async fn serve_plain(self, listener: TcpListener, cancel: CancellationToken) -> Result<(), Error> {
        if !listener.local_addr()?.ip().is_loopback() {
            let text = "the plain port must be on a loopback address";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text).into());
        }
        let router = self.router().layer(axum::Extension(Insecure));
        self.accept(listener, cancel, move |stream, cancel| {
            let router = router.clone();
            async move {
                let address = Peer(stream.peer_addr()?);
                serve_connection(stream, router.layer(axum::Extension(address)), cancel).await;
                Ok(())
            }
        })
        .await
    }

    async fn accept<F>(
        self,
        listener: TcpListener,
        cancel: CancellationToken,
        serve: impl Fn(TcpStream, CancellationToken) -> F,
    ) -> Result<(), Error>
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let connections = TaskTracker::new();
        // Ends the connections; later than `cancel` by the delay.
        let stop = CancellationToken::new();
        let told_to_end = async {
            cancel.cancelled().await;
            self.inner.draining.cancel();
            tokio::time::sleep(self.inner.shutdown_delay).await;
        };
        tokio::pin!(told_to_end);
        loop {
            let accepted = tokio::select! {
                () = told_to_end.as_mut() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    // Small frames of watches must not wait for more.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY could not be set");
                    }
                    let work = serve(stream, stop.clone());
                    connections.spawn(async move {
                        if let Err(error) = work.await {
                            tracing::debug!(%error, %peer, "a connection failed");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        // Who connects now is refused, not left waiting in the listener's queue.
        drop(listener);
        self.close();
        stop.cancel();
        connections.close();
        let drained = async {
            connections.wait().await;
            self.inner.relay.ended().await;
        };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!(open = connections.len(), "connections were still open when the server closed");
        }
        Ok(())
    }
}

/// Serves one connection, HTTP/1.1 or 2, upgrades included.
async fn serve_connection<S>(stream: S, router: Router, cancel: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(HEADER_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1000)
        .max_header_list_size(HEADER_BYTES)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20));
    let this = Connection::default();
    let stream = Guarded::new(stream, this.clone());
    let router = router.layer(axum::Extension(this.clone()));
    let service = router.map_request(|request: http::Request<Incoming>| request.map(axum::body::Body::new));
    let connection =
        builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = cancelled_or_sent_away(&cancel, &this) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        // Clients go away in the middle all the time.
        tracing::debug!(error, "a connection ended");
    }
}

/// The server ends, or the client is to connect anew.
async fn cancelled_or_sent_away(cancel: &CancellationToken, connection: &Connection) {
    tokio::select! {
        () = cancel.cancelled() => {}
        () = connection.sent_away() => {}
    }
}
